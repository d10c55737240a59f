"""The whole objective of MSACL pre-training, equation (1)."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Self

import torch
from torch import Tensor

from msacl_loss.centres import estimate_centres
from msacl_loss.checks import (
    NotFittedError,
    Validate,
    check_centres,
    check_contrastive_options,
    check_features,
    check_finite,
    check_inside_sphere,
    check_loss_options,
    check_patch_pairs,
    check_views,
    checks_values,
)
from msacl_loss.contrastive import Implementation, Positive, contrastive_term
from msacl_loss.distributed import GatherDistributed, is_distributed, joined_mean
from msacl_loss.heads import ClassifierHeads, PositionInput
from msacl_loss.similarity.kappas import Kappas
from msacl_loss.terms import LossTerms, augmentation_loss, centring_loss, position_loss, warn_of_large_centring
from msacl_loss.vectors import unit_vectors

PatchPairs = tuple[Tensor, Tensor, Tensor]
Features = tuple[Tensor, Tensor]


class MSACLLoss(ClassifierHeads):
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
        gather_distributed: Whether all four terms are those of all processes' joined batch; "auto": when
            torch.distributed is initialised.
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
        position_input: PositionInput = "difference",
        normalize: bool = True,
    ) -> None:
        check_contrastive_options(temperature, alpha, positive, implementation)
        check_loss_options(gather_distributed, validate, position_input, normalize)
        super().__init__(embedding_dim, num_classes, augmentation_dim, position_input, normalize)
        self.temperature = temperature
        self.alpha = alpha
        self.positive = positive
        self.implementation = implementation
        self.gather_distributed = gather_distributed
        self.validate = validate
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
        """Estimate the class centres of equation (2) as this loss sees embeddings, and freeze them; returns itself.

        Args:
            embed: Maps images (N, C, H, W) to embeddings (N, D); see `estimate_centres`.
            batches: Pairs of images (N, C, H, W) and labels (N,), int64 in 0..C-1.
        """
        gather = self.gather_distributed
        centres = estimate_centres(
            embed, batches, num_classes=len(self.centres), gather_distributed=gather, normalize=self.normalize
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
            check_inside_sphere(centres)
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
            NotFittedError: The centres were never set (also a RuntimeError, ValueError and AttributeError).
            TypeError: An argument is not a tensor or has another dtype.
            ValueError: Shapes, counts or checked values are off.
        """
        self._check(z_a, z_b, labels, patch_pairs, features)
        with torch.autocast(z_a.device.type, enabled=False):
            z = torch.cat((z_a, z_b))
            classes = torch.cat((labels, labels))
            u = unit_vectors(z) if self.normalize else z
            u_a, u_b = u.chunk(2) if self.normalize else (z_a, z_b)
            seen = z if features is None else torch.cat(features)

            centring = self._centring(u, classes)  # (3)
            contrastive = self._contrastive(u_a, u_b, labels)  # (4) to (7)
            augmentation = self._augmentation(seen, classes)  # (8)
            position = self._position(patch_pairs)  # (9)
            total = (self._weights * torch.stack((centring, contrastive, augmentation, position))).sum()  # (1)
        # In float64 the heads still compute in the precision of their weights; the terms come in one.
        every = (total, centring, contrastive, augmentation, position)
        terms = LossTerms(*(term.to(total.dtype) for term in every))
        if checks_values(self.validate, z_a) and not self._warned:
            self._warned = warn_of_large_centring(terms, self.weights, self.normalize)
        return terms

    def _centring(self, z: Tensor, classes: Tensor) -> Tensor:
        return self._joined(centring_loss(z, classes, self.centres, validate=False), len(z))

    def _contrastive(self, z_a: Tensor, z_b: Tensor, labels: Tensor) -> Tensor:
        kappas = Kappas.calibrated(self.temperature, self.alpha)
        gather = is_distributed(self.gather_distributed)
        return contrastive_term(z_a, z_b, labels, self.centres, kappas, self.positive, self.implementation, gather)

    def _augmentation(self, seen: Tensor, classes: Tensor) -> Tensor:
        logits = self.augmentation_logits(seen)
        return self._joined(augmentation_loss(logits, classes, validate=False), len(classes))

    def _position(self, patch_pairs: PatchPairs | None) -> Tensor:
        if patch_pairs is None:  # other processes may have some
            return self._joined(self.centres.new_zeros(()), 0)
        z_first, z_second, position = patch_pairs
        logits = self.position_logits(z_first, z_second)
        return self._joined(position_loss(logits, position, validate=False), len(position))

    def _joined(self, mean: Tensor, count: int) -> Tensor:
        """The mean over the rows of all processes, given that over this one's."""
        return joined_mean(mean, count) if is_distributed(self.gather_distributed) else mean

    def _check(
        self, z_a: Tensor, z_b: Tensor, labels: Tensor, patch_pairs: PatchPairs | None, features: Features | None
    ) -> None:
        if not self._centres_set:
            raise NotFittedError("the class centres are not set: call fit_centres(embed, batches) or set_centres first")
        smallest = 1 if is_distributed(self.gather_distributed) else 2
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


def _notice_loaded_centres(criterion: MSACLLoss, incompatible_keys: object) -> None:
    criterion._centres_set = bool(criterion.centres.isfinite().all())
    if criterion._centres_set and criterion.normalize:
        check_inside_sphere(criterion.centres)
