"""The whole objective of MSACL pre-training, equation (1)."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from sklearn.exceptions import NotFittedError
from torch import Tensor, nn

from msacl_loss.contrastive import Positive, calibrated_contrastive_loss
from msacl_loss.terms import augmentation_loss, centring_loss, position_loss


class LossTerms(NamedTuple):
    """The weighted sum of equation (1) and its four terms before weighting, all scalars."""

    total: Tensor
    centring: Tensor
    contrastive: Tensor
    augmentation: Tensor
    position: Tensor


class MSACLLoss(nn.Module):
    """The MSACL objective: centring + contrastive + augmentation + position, equation (1).

    Args:
        embedding_dim: Components D of an embedding.
        num_classes: Strong augmentations C.
        temperature: tau of equation (7), > 0.
        alpha: Scaling of the temperature within a class, >= 1.
        positive: How the positive enters the denominator of equation (5), see `calibrated_contrastive_loss`.
        weights: Weights of the four terms, in the order of equation (1). Assign `criterion.weights` between steps to
            change them.
    """

    centres: Tensor

    def __init__(
        self,
        embedding_dim: int = 128,
        num_classes: int = 4,
        temperature: float = 0.2,
        alpha: float = 2.0,
        positive: Positive = "paper",
        weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
    ) -> None:
        super().__init__()
        self.temperature, self.alpha, self.positive, self.weights = temperature, alpha, positive, tuple(weights)
        self.augmentation_head = nn.Linear(embedding_dim, num_classes)
        self.position_head = nn.Sequential(
            nn.Linear(embedding_dim, embedding_dim), nn.ReLU(), nn.Linear(embedding_dim, 8)
        )
        self.register_buffer("centres", torch.full((num_classes, embedding_dim), torch.nan))
        self._centres_set = False
        self.register_load_state_dict_post_hook(_notice_loaded_centres)

    def set_centres(self, centres: Tensor) -> None:
        """Freeze the class centres of equation (2), (C, D), as `estimate_centres` returns them."""
        if centres.shape != self.centres.shape:
            raise ValueError(f"expected centres of shape {tuple(self.centres.shape)}, got {tuple(centres.shape)}")
        self.centres.copy_(centres)
        self._centres_set = True

    def forward(
        self, z_a: Tensor, z_b: Tensor, labels: Tensor, patch_pairs: tuple[Tensor, Tensor, Tensor] | None = None
    ) -> LossTerms:
        """Compute the four terms for two views of each strongly augmented image.

        Args:
            z_a: Embeddings of the first views, (N, D).
            z_b: Embeddings of the second views, (N, D).
            labels: Strong augmentation of each row, (N,), int64 in 0..C-1.
            patch_pairs: Embeddings (M, D) of first and second patches and their relative position (M,), int64 in 0..7;
                None leaves the position term out (0).
        """
        if not self._centres_set:
            raise NotFittedError("the class centres are not set: call set_centres(estimate_centres(...)) first")
        z, both = torch.cat((z_a, z_b)), torch.cat((labels, labels))
        terms = (
            centring_loss(z, both, self.centres),
            calibrated_contrastive_loss(
                z_a,
                z_b,
                labels,
                self.centres,
                temperature=self.temperature,
                alpha=self.alpha,
                positive=self.positive,
            ),
            augmentation_loss(self.augmentation_head(z), both),
            z.new_zeros(()) if patch_pairs is None else self._position(*patch_pairs),
        )
        total = sum((w * term for w, term in zip(self.weights, terms, strict=True)), z.new_zeros(()))
        return LossTerms(total, *terms)

    def _position(self, z_first: Tensor, z_second: Tensor, position: Tensor) -> Tensor:
        return position_loss(self.position_head(z_first - z_second), position)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "MSACLLoss":
        """Move the centres with the module but keep their float32."""
        centres = self.centres
        super()._apply(fn, recurse)
        self.centres = centres.to(self.centres.device)
        return self


def _notice_loaded_centres(criterion: MSACLLoss, incompatible_keys: object) -> None:
    criterion._centres_set = bool(criterion.centres.isfinite().all())
