"""The terms of equation (1), one pure function each, except the contrastive one (contrastive.py)."""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from msacl_loss.checks import Validate, check_centres, check_device, check_embeddings, check_rows
from msacl_loss.vectors import at_least_float32

MOST_CENTRING = 10.0  # times the other terms: beyond it (3) drives the training, and large steps make it diverge


class LossTerms(NamedTuple):
    """The weighted sum of equation (1) and its four terms before weighting, all scalars."""

    total: Tensor
    centring: Tensor
    contrastive: Tensor
    augmentation: Tensor
    position: Tensor


def centring_loss(z: Tensor, labels: Tensor, centres: Tensor, *, validate: Validate = "auto") -> Tensor:
    """Mean squared distance of each embedding to the centre of its class, equation (3).

    The squared distance is summed over the D components and averaged over the rows.

    Args:
        z: Embeddings, (N, D).
        labels: Class of each row, (N,), int64 in 0..C-1.
        centres: Class centres of equation (2), (C, D).
        validate: Check values too (finite rows, labels in 0..C-1), which reads them back from an accelerator; "auto"
            does so on a CPU and outside torch.compile.

    Returns:
        A scalar >= 0, float32 (float64 for float64 embeddings).

    Raises:
        TypeError: An argument is not a tensor or has another dtype.
        ValueError: Shapes, devices or checked values are off.

    Example:
        >>> import torch
        >>> z = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
        >>> centring_loss(z, torch.tensor([0, 1]), torch.zeros(2, 2))
        tensor(12.5000)
    """
    check_centres(centres)
    check_rows("z", z, "labels", labels, count=len(centres), validate=validate)
    check_embeddings("z", z, dim=centres.shape[1])
    check_device("centres", centres, z)
    return (at_least_float32(z) - centres[labels]).square().sum(dim=1).mean()


def augmentation_loss(logits: Tensor, labels: Tensor, *, validate: Validate = "auto") -> Tensor:
    """Cross-entropy of the predicted strong augmentation, equation (8).

    Args:
        logits: Output of the linear layer f_beta before its softmax, (N, C).
        labels: Strong augmentation of each row, (N,), int64 in 0..C-1.
        validate: As for `centring_loss`.

    Returns:
        A scalar >= 0; ln C where nothing is known.

    Raises:
        TypeError: An argument is not a tensor or has another dtype.
        ValueError: Shapes, devices or checked values are off.

    Example:
        >>> import torch
        >>> augmentation_loss(torch.zeros(2, 4), torch.tensor([0, 3]))
        tensor(1.3863)
    """
    check_rows("logits", logits, "labels", labels, count=logits.shape[-1], validate=validate)
    return F.cross_entropy(at_least_float32(logits), labels)


def position_loss(logits: Tensor, position: Tensor, *, validate: Validate = "auto") -> Tensor:
    """Cross-entropy of the predicted relative position of two patches, equation (9).

    Args:
        logits: Output of the head f_gamma before its softmax, (N, 8).
        position: Neighbour the second patch is, (N,), int64 in 0..7 (row-major, centre skipped).
        validate: As for `centring_loss`.

    Returns:
        A scalar >= 0; ln 8 where nothing is known.

    Raises:
        TypeError: An argument is not a tensor or has another dtype.
        ValueError: Shapes, devices or checked values are off.

    Example:
        >>> import torch
        >>> position_loss(torch.zeros(1, 8), torch.tensor([5]))
        tensor(2.0794)
    """
    check_rows("logits", logits, "position", position, count=logits.shape[-1], validate=validate)
    return F.cross_entropy(at_least_float32(logits), position)


def warn_of_large_centring(terms: LossTerms, weights: Sequence[float], normalize: bool) -> bool:
    """Warn when the weighted term (3) exceeds ten times the sum of the others; returns whether it did."""
    values = [term.item() for term in terms[1:]]
    sizes = [abs(weight * value) for weight, value in zip(weights, values, strict=True)]
    centring = sizes[0]
    others = sum(sizes[1:])
    too_large = centring > MOST_CENTRING * others > 0  # without other terms, it is large on purpose
    if too_large:
        remedy = "lower its weight or the learning rate" if normalize else "take normalize=True"
        warnings.warn(
            f"the centring term, equation (3), is {centring:.3g} beside {others:.3g} of the other terms: "
            f"the training is about to diverge or to learn nothing else; {remedy}",
            RuntimeWarning,
            stacklevel=3,
        )
    return too_large
