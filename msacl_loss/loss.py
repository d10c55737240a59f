"""The whole objective of MSACL pre-training, equation (1)."""

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from sklearn.exceptions import NotFittedError
from torch import Tensor, nn

from msacl_loss.checks import (
    Validate,
    check_centres,
    check_contrastive_options,
    check_features,
    check_finite,
    check_patch_pairs,
    check_switch,
    check_views,
)
from msacl_loss.contrastive import Implementation, Positive, calibrated_contrastive_loss
from msacl_loss.distributed import GatherDistributed, gathers, joined_mean
from msacl_loss.terms import augmentation_loss, centring_loss, position_loss

NUM_POSITIONS = 8
PatchPairs = tuple[Tensor, Tensor, Tensor]
Features = tuple[Tensor, Tensor]


class LossTerms(NamedTuple):
    """The weighted sum of equation (1) and its four terms before weighting, all scalars."""

    total: Tensor
    centring: Tensor
    contrastive: Tensor
    augmentation: Tensor
    position: Tensor


class MSACLLoss(nn.Module):
    """The MSACL objective: centring + contrastive + augmentation + position, equation (1).

    The heads f_beta (`augmentation_head`) and f_gamma (`position_head`) live here: give `criterion.parameters()` to the
    optimiser, and wrap the criterion in DistributedDataParallel beside the encoder.

    Assign `criterion.weights` between steps to warm a term up; a compiled loss takes new weights as they are:
    ``criterion.weights = (min(1.0, epoch / 10), 1.0, 1.0, 1.0)``.

    CCD, the predecessor, is the same objective without centring and calibration:
    ``MSACLLoss(alpha=1.0, weights=(0.0, 1.0, 1.0, 1.0))`` with ``set_centres(torch.zeros(4, 128))``, on images whose
    four strong augmentations are permutations: class k swaps the top and bottom halves if k // 2, the left and right
    halves if k % 2. Its contrastive term is then NT-Xent.

    Args:
        embedding_dim: Components D of an embedding.
        num_classes: Strong augmentations C.
        temperature: tau of equation (7), > 0.
        alpha: Scaling of the temperature within a class, >= 1.
        positive: How the positive enters the denominator of equation (5); this and the next three are explained at
            `calibrated_contrastive_loss`.
        weights: Weights of the four terms, in the order of equation (1), each >= 0.
        implementation: "dense", "streaming" or "auto".
        gather_distributed: Whether all four terms are those of all processes' joined batch; "auto": when there are.
        validate: Whether to check values too; "auto": on a CPU, outside torch.compile.
        augmentation_dim: Components of what f_beta sees, when that is not z: pass those as `features`.
        position_input: Whether f_gamma sees the "difference" of the two embeddings or both ("concat").

    Example:
        >>> from msacl_loss import estimate_centres
        >>> _ = torch.manual_seed(0)
        >>> encoder = torch.nn.Linear(12, 16)
        >>> images, labels = torch.rand(8, 12), torch.arange(8) % 4
        >>> criterion = MSACLLoss(embedding_dim=16)
        >>> criterion.set_centres(estimate_centres(encoder, [(images, labels)], num_classes=4))
        >>> z_a, z_b = encoder(images + 0.1), encoder(images)
        >>> terms = criterion(z_a, z_b, labels)
        >>> terms.total.backward()
        >>> accuracy = (criterion.augmentation_head(z_a).argmax(dim=1) == labels).float().mean()
    """

    centres: Tensor
    _weights: Tensor

    def __init__(
        self,
        embedding_dim: int = 128,
        num_classes: int = 4,
        temperature: float = 0.2,
        alpha: float = 2.0,
        positive: Positive = "paper",
        weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
        implementation: Implementation = "auto",
        gather_distributed: GatherDistributed = "auto",
        *,
        validate: Validate = "auto",
        augmentation_dim: int | None = None,
        position_input: Literal["difference", "concat"] = "difference",
    ) -> None:
        super().__init__()
        check_contrastive_options(temperature, alpha, positive, implementation)
        check_switch("gather_distributed", gather_distributed)
        check_switch("validate", validate)
        if position_input not in ("difference", "concat"):
            raise ValueError(f"expected position_input to be 'difference' or 'concat', got {position_input!r}")
        self.temperature, self.alpha, self.positive = temperature, alpha, positive
        self.implementation, self.gather_distributed, self.validate = implementation, gather_distributed, validate
        self.augmentation_dim, self.position_input = augmentation_dim, position_input
        self.augmentation_head = nn.Linear(augmentation_dim or embedding_dim, num_classes)
        self.position_head = nn.Sequential(
            nn.Linear(embedding_dim * (2 if position_input == "concat" else 1), embedding_dim),
            nn.ReLU(),
            nn.Linear(embedding_dim, NUM_POSITIONS),
        )
        self.register_buffer("centres", torch.full((num_classes, embedding_dim), math.nan))
        self.register_buffer("_weights", torch.ones(4), persistent=False)  # a tensor: new values compile nothing anew
        self.weights = weights
        self._centres_set = False
        self.register_load_state_dict_post_hook(_notice_loaded_centres)  # type: ignore[no-untyped-call]

    @property
    def weights(self) -> tuple[float, ...]:
        """Weights of the centring, contrastive, augmentation and position term."""
        return self._plain_weights

    @weights.setter
    def weights(self, weights: Sequence[float]) -> None:
        new = torch.as_tensor(weights, dtype=torch.float32, device="cpu")
        if new.shape != (4,) or not bool(((new >= 0) & (new < math.inf)).all()):
            raise ValueError(f"expected four finite weights >= 0, got {weights}")
        self._plain_weights = tuple(new.tolist())
        self._weights.copy_(new)

    def set_centres(self, centres: Tensor) -> None:
        """Freeze the class centres of equation (2), (C, D), as `estimate_centres` returns them.

        Raises:
            TypeError: They are not a floating tensor.
            ValueError: Their shape differs, or they are not finite.
        """
        check_centres(centres)
        if centres.shape != self.centres.shape:
            raise ValueError(f"expected centres of shape {tuple(self.centres.shape)}, got {tuple(centres.shape)}")
        check_finite("centres", centres)
        self.centres.copy_(centres.detach())
        self._centres_set = True

    def forward(
        self,
        z_a: Tensor,
        z_b: Tensor,
        labels: Tensor,
        patch_pairs: PatchPairs | None = None,
        features: Features | None = None,
    ) -> LossTerms:
        """Compute the four terms for two views of each strongly augmented image.

        Args:
            z_a: Embeddings of the first views, (N, D), not normalised.
            z_b: Embeddings of the second views, (N, D).
            labels: Strong augmentation of each row, (N,), int64 in 0..C-1.
            patch_pairs: Embeddings (M, D) of first and second patches and their relative position (M,), int64 in 0..7;
                None leaves the position term out (0).
            features: What f_beta sees of both views, (N, augmentation_dim) each, when `augmentation_dim` was given.

        Raises:
            NotFittedError: The centres were never set.
            TypeError: An argument is not a tensor or has another dtype.
            ValueError: Shapes, counts or checked values are off.
        """
        self._check(z_a, z_b, labels, patch_pairs, features)
        with torch.autocast(z_a.device.type, enabled=False):
            contrastive = calibrated_contrastive_loss(
                z_a,
                z_b,
                labels,
                self.centres,
                temperature=self.temperature,
                alpha=self.alpha,
                positive=self.positive,
                implementation=self.implementation,
                gather_distributed=self.gather_distributed,
                validate=False,
            )
            others = self._row_terms(z_a, z_b, labels, patch_pairs, features)
            terms = (others[0], contrastive, others[1], others[2])
            total = (self._weights * torch.stack(terms)).sum()
        return LossTerms(total, *terms)

    def position_logits(self, z_first: Tensor, z_second: Tensor) -> Tensor:
        """f_gamma of two patches' embeddings, before its softmax: (M, D), (M, D) -> (M, 8)."""
        z = torch.cat((z_first, z_second), dim=1) if self.position_input == "concat" else z_first - z_second
        return in_weight_dtype(self.position_head, z)

    def _row_terms(
        self, z_a: Tensor, z_b: Tensor, labels: Tensor, patch_pairs: PatchPairs | None, features: Features | None
    ) -> Tensor:
        """The terms that look at one row at a time, (3,): centring, augmentation, position."""
        z, both = torch.cat((z_a, z_b)), torch.cat((labels, labels))
        logits = in_weight_dtype(self.augmentation_head, z if features is None else torch.cat(features))
        position, num_patches = z.new_zeros((), dtype=torch.float32), 0
        if patch_pairs is not None:
            position = position_loss(self.position_logits(*patch_pairs[:2]), patch_pairs[2], validate=False)
            num_patches = len(patch_pairs[2])
        centring = centring_loss(z, both, self.centres, validate=False)
        terms = torch.stack((centring, augmentation_loss(logits, both, validate=False), position))
        if gathers(self.gather_distributed):
            terms = joined_mean(terms, labels.new_tensor([len(both), len(both), num_patches]))
        return terms

    def _check(
        self, z_a: Tensor, z_b: Tensor, labels: Tensor, patch_pairs: PatchPairs | None, features: Features | None
    ) -> None:
        if not self._centres_set:
            raise NotFittedError("the class centres are not set: call set_centres(estimate_centres(...)) first")
        smallest = 1 if gathers(self.gather_distributed) else 2
        check_views(z_a, z_b, labels, self.centres, validate=self.validate, smallest=smallest)
        check_features(features, self.augmentation_dim, len(z_a), self.validate)
        if patch_pairs is not None:
            check_patch_pairs(patch_pairs, self.centres.shape[1], self.validate)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "MSACLLoss":
        """Move centres and weights with the module but keep them in float32."""
        centres = self.centres
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._weights = torch.tensor(self._plain_weights, device=self.centres.device)
        if not centres.is_meta:
            self.centres = centres.to(self.centres.device)
        return self


def in_weight_dtype(head: nn.Module, z: Tensor) -> Tensor:
    """Run a head on embeddings of another precision."""
    logits: Tensor = head(z.to(next(head.parameters()).dtype))
    return logits


def _notice_loaded_centres(criterion: MSACLLoss, incompatible_keys: object) -> None:
    criterion._centres_set = bool(criterion.centres.isfinite().all())
