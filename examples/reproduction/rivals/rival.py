"""What the generative rivals of the paper's Table 1 share: networks, the loop over epochs, the residual map."""

from collections.abc import Iterable
from itertools import chain
from typing import Any, Self

import torch
from torch import Tensor, nn

from detectors import AnomalyDetector
from detectors.igd.networks import Critic


class Encoder(nn.Module):
    """Images to codes: IGD's critic without its mean over places, then one linear layer.

    Args:
        image_size: Side of the images in pixels, one of 32, 64, 128, 256, 512.
        code_dim: Components of a code.
        width: Factor on the number of inner channels.
    """

    def __init__(self, image_size: int, code_dim: int = 128, width: float = 1.0) -> None:
        super().__init__()
        critic = Critic(image_size, width=width)
        self.blocks = critic.blocks
        self.linear = nn.Linear(critic.linear.in_features * 4 * 4, code_dim)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, 3, H, H) to codes (B, code_dim)."""
        return self.linear(self.blocks(images).flatten(1))


class GenerativeRival(AnomalyDetector):
    """A detector that learns to make healthy images.

    A subclass gives `train_step(images)`, which returns the losses to remember, and `score(images)`.

    Args:
        image_size: Side of the images in pixels.
        epochs: Passes over the healthy images.

    Attributes:
        history: Mean losses of each epoch, for the training curve.
    """

    def __init__(self, image_size: int, epochs: int) -> None:
        super().__init__()
        self.image_size = image_size
        self.epochs = epochs
        self.history: list[dict[str, float]] = []

    def train_step(self, images: Tensor) -> dict[str, Tensor]:
        """Take one step on healthy images (B, 3, H, H)."""
        raise NotImplementedError

    def fit(self, loader: Iterable[Any]) -> Self:
        """Train for `epochs` passes over a loader of healthy images that can be iterated anew each time."""
        self.train()
        for _ in range(self.epochs):
            losses = []
            for images in self.batches(loader):
                losses.append({name: value.detach() for name, value in self.train_step(images).items()})
                self.remember_shape(images)
            self.history.append({name: float(torch.stack([x[name] for x in losses]).mean()) for name in losses[0]})
        return self.eval()

    def is_fitted(self) -> bool:
        """Whether `fit` has run."""
        return self._shape is not None


def residual_score(images: Tensor, rebuilt: Tensor) -> tuple[Tensor, Tensor]:
    """Mean squared residual per image (B,) and per pixel (B, 1, H, H)."""
    squared = (images - rebuilt).square().mean(1, keepdim=True)
    return squared.mean((1, 2, 3)), squared


def gradient_penalty(critic: nn.Module, real: Tensor, made: Tensor) -> Tensor:
    """WGAN-GP's penalty: mean (|grad D(x^)| - 1)^2 at random points between real and made samples (B, ...)."""
    share = torch.rand(len(real), *[1] * (real.dim() - 1), device=real.device)
    between = (share * real + (1 - share) * made).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


def critic_loss(critic: nn.Module, real: Tensor, made: Tensor, *, penalty: float = 10.0) -> Tensor:
    """WGAN-GP's loss of the critic: D(made) - D(real) + penalty; both without gradients to their makers."""
    real, made = real.detach(), made.detach()
    distance = critic(made).mean() - critic(real).mean()
    return distance + penalty * gradient_penalty(critic, real, made)


def adam(*modules: nn.Module, lr: float, betas: tuple[float, float] = (0.0, 0.9)) -> torch.optim.Adam:
    """Adam over the parameters of some modules."""
    return torch.optim.Adam(chain.from_iterable(module.parameters() for module in modules), lr=lr, betas=betas)


def step(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step of an optimiser on its own parameters."""
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
