"""One IGD model at one input size: codes, decoder, critic and the Gaussian classifier's centre and sigma."""

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from detectors.igd.losses import (
    IGDLosses,
    centre_and_sigma,
    classification_loss,
    critic_loss,
    interpolate_codes,
    interpolation_loss,
    normality,
    reconstruction_error,
)
from detectors.igd.networks import Critic, Decoder, frozen_call

ANCHOR_SHARE = 0.2  # gamma of the critic's loss: share of the image in its blend with the reconstruction
INTERPOLATION_WEIGHT = 0.1


class TrainingPass(NamedTuple):
    """What one batch gives: the losses of encoder, decoder and critic are functions of these."""

    images: Tensor  # (B, C, H, H)
    codes: Tensor  # (B, D)
    reconstructions: Tensor  # (B, C, H, H)
    interpolations: Tensor  # (B, C, H, H)
    alpha: Tensor  # (B,)


class IGDModel(nn.Module):
    """Gaussian anomaly classifier, auto-encoder and interpolation critic on the features of a backbone.

    Args:
        side: Side of the square images in pixels, a multiple of 32.
        channels: Channels of the images.
        num_features: Width of the backbone's pooled features.
        code_dim: Components of a code.
        width: Factor on the channels of decoder and critic.
        rho: Weight of the absolute error in eq. (11).
        data_range: Largest minus smallest possible pixel value.
        projection: Maps features (B, num_features) to codes, in place of a new linear layer; a copy of it is trained.

    Raises:
        TypeError: If the projection is no module.
        ValueError: If it does not map features to codes (B, code_dim).
    """

    centre: Tensor
    sigma: Tensor

    def __init__(
        self,
        side: int,
        channels: int,
        num_features: int,
        code_dim: int,
        width: float,
        rho: float,
        data_range: float,
        projection: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.rho = rho
        self.data_range = data_range
        self.project = _projection(projection, num_features, code_dim)
        self.decoder = Decoder(side, channels, code_dim, width)
        self.critic = Critic(side, channels, width)
        self.register_buffer("centre", torch.full((code_dim,), torch.nan))
        self.register_buffer("sigma", torch.tensor(torch.nan))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Map features (B, F) to reconstructions (B, C, H, H) and likelihoods h (B,) of being normal."""
        codes = self.project(features)
        likelihood = normality(codes, self.centre, self.sigma)
        return self.decoder(codes), likelihood

    def training_pass(self, images: Tensor, features: Tensor, generator: torch.Generator | None) -> TrainingPass:
        """Reconstruct a batch and decode interpolations between its codes."""
        codes = self.project(features)
        # At most half of the other image, so that alpha is known up to the order of the two.
        alpha = 0.5 * torch.rand(len(codes), device=codes.device, generator=generator)
        interpolations = self.decoder(interpolate_codes(codes, alpha))
        reconstructions = self.decoder(codes)
        return TrainingPass(images, codes, reconstructions, interpolations, alpha)

    def losses(self, batch: TrainingPass) -> IGDLosses:
        """What encoder and decoder minimise; no gradient reaches the critic's parameters."""
        errors = reconstruction_error(batch.images, batch.reconstructions, rho=self.rho, data_range=self.data_range)
        error = errors.mean()
        anomaly = classification_loss(batch.codes, self.centre, self.sigma)
        estimates = frozen_call(self.critic, batch.interpolations)
        smooth = INTERPOLATION_WEIGHT * interpolation_loss(estimates)
        return IGDLosses(error + anomaly + smooth, error, anomaly, smooth)

    def critic_loss(self, batch: TrainingPass) -> Tensor:
        """What the critic minimises; no gradient reaches encoder and decoder."""
        reconstructions = batch.reconstructions.detach()
        anchors = torch.lerp(reconstructions, batch.images.to(reconstructions.dtype), ANCHOR_SHARE)
        # One call judges both; its norms are per sample, so that the halves do not see each other.
        both = torch.cat([batch.interpolations.detach(), anchors])
        of_interpolations, of_anchors = self.critic(both).chunk(2)
        return critic_loss(of_interpolations, batch.alpha, of_anchors)

    def set_gaussian(self, mean: Tensor, mean_square: Tensor) -> None:
        """Set centre, then sigma, from the training codes' mean (D,) and mean squared distance to it."""
        centre, sigma = centre_and_sigma(mean, mean_square)
        self.centre.copy_(centre)
        self.sigma.copy_(sigma)

    def generator_parameters(self) -> list[nn.Parameter]:
        """Parameters of encoder and decoder."""
        return [*self.project.parameters(), *self.decoder.parameters()]


def _projection(projection: nn.Module | None, num_features: int, code_dim: int) -> nn.Module:
    """A new linear layer, or a copy of the given module once it is known to fit."""
    if projection is None:
        return nn.Linear(num_features, code_dim)
    if not isinstance(projection, nn.Module):
        raise TypeError(f"expected projection to be a torch.nn.Module or None, got {type(projection).__name__}")
    project = copy.deepcopy(projection).cpu().eval().requires_grad_(True)
    try:
        codes = project(torch.zeros(1, num_features))
    except RuntimeError as error:
        raise ValueError(
            f"expected a projection of the backbone's {num_features} features, but it failed: {error}"
        ) from error
    if codes.shape != (1, code_dim):
        raise ValueError(f"expected codes of code_dim={code_dim} from the projection, got {tuple(codes.shape)[1:]}")
    return project.train()


class CodeMoments:
    """Mean of codes and mean squared distance to it, streamed in float64 by Chan's update."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: Tensor | float = 0.0
        self.sum_square: Tensor | float = 0.0

    def update(self, codes: Tensor) -> None:
        """Take in codes (B, D)."""
        codes = codes.double()
        count = len(codes)
        total = self.count + count
        mean = codes.mean(0)
        shift = mean - self.mean
        # Chan: within both parts, and between their means.
        within = (codes - mean).square().sum()
        weight = self.count * count / total
        between = shift.square().sum() * weight
        self.sum_square = self.sum_square + within + between
        self.mean = self.mean + shift * (count / total)
        self.count = total

    def result(self) -> tuple[Tensor, Tensor]:
        """Mean code (D,) and mean squared distance to it.

        Raises:
            ValueError: If no codes were taken in.
        """
        if self.count == 0:
            raise ValueError("expected at least one batch of normal images, got none: is the loader used up?")
        mean_square = torch.as_tensor(self.sum_square) / self.count
        return torch.as_tensor(self.mean), mean_square
