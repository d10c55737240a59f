"""The whole objective of MSACL pre-training, equation (1)."""

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple

import torch
from sklearn.exceptions import NotFittedError
from torch import Tensor, nn
from typing_extensions import Self

from msacl_loss.centres import estimate_centres
from msacl_loss.checks import (
    Validate,
    check_centres,
    check_contrastive_options,
    check_features,
    check_finite,
    check_patch_pairs,
    check_switch,
    check_views,
    reads_values,
)
from msacl_loss.contrastive import Implementation, Positive, calibrated_contrastive_loss
from msacl_loss.distributed import GatherDistributed, gathers, joined_mean
from msacl_loss.terms import augmentation_loss, centring_loss, position_loss
from msacl_loss.vectors import unit_vectors

NUM_POSITIONS = 8
MOST_CENTRING = 10.0  # times the other terms: beyond it (3) drives the training, and large steps make it diverge
NORM_SLACK = 1e-3  # rounding of a mean of unit vectors, in half precision too
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

    The paper does not say whether f_theta(x) in equations (2), (3), (5), (6) has unit length. By default it has: z is
    divided by its norm first, as in the authors' predecessor CCD, so that the centring term is at most 4 and cannot
    outgrow the others. Both heads then see sqrt(D) z / |z|, whose components are of the size that linear layers expect.

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
        normalize: Whether z is put on the unit sphere; False takes the equations literally, with z as it comes. Then
            term (3) has no scale of its own: with weight 1 and usual learning rates it diverges within a few steps.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> encoder = torch.nn.Linear(12, 16)
        >>> images, labels = torch.rand(8, 12), torch.arange(8) % 4
        >>> criterion = MSACLLoss(embedding_dim=16).fit_centres(encoder, [(images, labels)])
        >>> z_a, z_b = encoder(images + 0.1), encoder(images)
        >>> terms = criterion(z_a, z_b, labels)
        >>> terms.total.backward()
        >>> accuracy = (criterion.augmentation_logits(z_a).argmax(dim=1) == labels).float().mean()
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
        normalize: bool = True,
    ) -> None:
        super().__init__()
        check_contrastive_options(temperature, alpha, positive, implementation)
        check_switch("gather_distributed", gather_distributed)
        check_switch("validate", validate)
        if position_input not in ("difference", "concat"):
            raise ValueError(f"expected position_input to be 'difference' or 'concat', got {position_input!r}")
        self.temperature, self.alpha, self.positive = temperature, alpha, positive
        self.implementation, self.gather_distributed, self.validate = implementation, gather_distributed, validate
        if not isinstance(normalize, bool):
            raise ValueError(f"expected normalize to be True or False, got {normalize!r}")
        self.augmentation_dim, self.position_input = augmentation_dim, position_input
        self.normalize = normalize
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
        self._warned = False
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

    def fit_centres(self, embed: Callable[[Tensor], Tensor], batches: Iterable[tuple[Tensor, Tensor]]) -> Self:
        """Estimate the class centres of equation (2) as this loss sees embeddings, and freeze them.

        Args:
            embed: Maps images (N, C, H, W) to embeddings (N, D); see `estimate_centres`.
            batches: Pairs of images (N, C, H, W) and labels (N,), int64 in 0..C-1.

        Returns:
            The criterion itself.

        Raises:
            TypeError: An embedding or label is not a tensor or has another dtype.
            ValueError: A class has no sample, a label is out of range, or shapes are off.

        Example:
            >>> batches = [(torch.eye(4, 16), torch.arange(4))]
            >>> MSACLLoss(embedding_dim=16).fit_centres(nn.Identity(), batches).centres.norm(dim=1)
            tensor([1., 1., 1., 1.])
        """
        centres = estimate_centres(
            embed,
            batches,
            num_classes=len(self.centres),
            gather_distributed=self.gather_distributed,
            normalize=self.normalize,
        )
        self.set_centres(centres)
        return self

    def set_centres(self, centres: Tensor) -> None:
        """Freeze the class centres of equation (2), (C, D), as `estimate_centres` returns them.

        Raises:
            TypeError: They are not a floating tensor.
            ValueError: Their shape differs, they are not finite, or they are no means of unit vectors where the loss
                normalises.
        """
        check_centres(centres)
        if centres.shape != self.centres.shape:
            raise ValueError(f"expected centres of shape {tuple(self.centres.shape)}, got {tuple(centres.shape)}")
        check_finite("centres", centres)
        if self.normalize:
            _check_inside_sphere(centres)
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
            z_a: Embeddings of the first views, (N, D), as the encoder gives them.
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
            # Both heads normalise what they see themselves; the two other terms take z from here.
            both = torch.cat((labels, labels))
            logits = self.augmentation_logits(torch.cat((z_a, z_b) if features is None else features))
            if self.normalize:
                z_a, z_b = unit_vectors(z_a), unit_vectors(z_b)
            centring = self._joined(centring_loss(torch.cat((z_a, z_b)), both, self.centres, validate=False), both)
            contrastive = self._contrastive(z_a, z_b, labels)
            augmentation = self._joined(augmentation_loss(logits, both, validate=False), both)
            position = self._position(z_a, patch_pairs)
            total = (self._weights * torch.stack((centring, contrastive, augmentation, position))).sum()
        terms = LossTerms(total, centring, contrastive, augmentation, position)
        if not self._warned and reads_values(self.validate, z_a):
            self._warn_of_large_centring(terms)
        return terms

    def augmentation_logits(self, z: Tensor) -> Tensor:
        """f_beta of embeddings (or of `features`), before its softmax: (N, D) -> (N, C)."""
        return in_weight_dtype(self.augmentation_head, z if self.augmentation_dim else self._as_heads_see(z))

    def position_logits(self, z_first: Tensor, z_second: Tensor) -> Tensor:
        """f_gamma of two patches' embeddings, before its softmax: (M, D), (M, D) -> (M, 8)."""
        z_first, z_second = self._as_heads_see(z_first), self._as_heads_see(z_second)
        z = torch.cat((z_first, z_second), dim=1) if self.position_input == "concat" else z_first - z_second
        return in_weight_dtype(self.position_head, z)

    def _as_heads_see(self, z: Tensor) -> Tensor:
        """On the sphere of radius sqrt(D): components of mean square 1; on the unit sphere logits would be tiny."""
        return unit_vectors(z) * math.sqrt(z.shape[1]) if self.normalize else z

    def _contrastive(self, z_a: Tensor, z_b: Tensor, labels: Tensor) -> Tensor:
        return calibrated_contrastive_loss(
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

    def _position(self, z_a: Tensor, patch_pairs: PatchPairs | None) -> Tensor:
        """Term (9), 0 without patch pairs; in the joined batch a process without any counts for nothing."""
        if patch_pairs is None:
            return self._joined(z_a.new_zeros((), dtype=torch.float32), z_a[:0])
        z_first, z_second, position = patch_pairs
        logits = self.position_logits(z_first, z_second)
        return self._joined(position_loss(logits, position, validate=False), position)

    def _joined(self, mean: Tensor, rows: Tensor) -> Tensor:
        """The mean over the rows of all processes, given that over this one's."""
        if not gathers(self.gather_distributed):
            return mean
        return joined_mean(mean[None], torch.tensor([len(rows)], device=mean.device))[0]

    def _warn_of_large_centring(self, terms: LossTerms) -> None:
        """Warn, once, when the weighted term (3) exceeds ten times the sum of the others."""
        weighted = self._weights * torch.stack(terms[1:]).detach().abs()
        centring, others = weighted[0].item(), weighted[1:].sum().item()
        if centring > MOST_CENTRING * others > 0:
            self._warned = True
            remedy = "lower its weight or the learning rate" if self.normalize else "take normalize=True"
            warnings.warn(
                f"the centring term, equation (3), is {centring:.3g} beside {others:.3g} of the other terms: "
                f"the training is about to diverge or to learn nothing else; {remedy}",
                RuntimeWarning,
                stacklevel=3,
            )

    def _check(
        self, z_a: Tensor, z_b: Tensor, labels: Tensor, patch_pairs: PatchPairs | None, features: Features | None
    ) -> None:
        if not self._centres_set:
            raise NotFittedError("the class centres are not set: call fit_centres(embed, batches) or set_centres first")
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


def _check_inside_sphere(centres: Tensor) -> None:
    """Refuse centres that cannot be means of unit vectors."""
    longest = centres.double().norm(dim=1).max().item()
    if longest > 1 + NORM_SLACK:
        raise ValueError(
            f"expected centres of norm <= 1, means of unit vectors, got one of norm {longest:.3g}: estimate them with "
            "fit_centres, or with estimate_centres(..., normalize=True), or make the loss with normalize=False"
        )


def _notice_loaded_centres(criterion: MSACLLoss, incompatible_keys: object) -> None:
    criterion._centres_set = bool(criterion.centres.isfinite().all())
    if criterion._centres_set and criterion.normalize:
        _check_inside_sphere(criterion.centres)
