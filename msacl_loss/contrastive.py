"""The contrastive term, equations (4) to (7)."""

import math
from typing import Literal

import torch
from torch import Tensor

from msacl_loss.checks import Validate, check_contrastive_options, check_switch, check_views
from msacl_loss.distributed import GatherDistributed, is_distributed, joined_mean, other_rows
from msacl_loss.similarity.dense import dense_log_negatives
from msacl_loss.similarity.kappas import Kappas
from msacl_loss.similarity.streaming import streaming_log_negatives
from msacl_loss.vectors import at_least_float32, centred_directions

Positive = Literal["paper", "nll", "decoupled"]
Implementation = Literal["auto", "dense", "streaming"]
DENSE_ENTRIES_CPU = 384**2  # the dense form is the faster one up to a matrix of this size: benchmarks/bench_loss.py
DENSE_ENTRIES_ACCELERATOR = 4096**2  # 64 MiB; not measured


def calibrated_contrastive_loss(
    z_a: Tensor,
    z_b: Tensor,
    labels: Tensor,
    centres: Tensor,
    *,
    temperature: float = 0.2,
    alpha: float = 2.0,
    positive: Positive = "paper",
    implementation: Implementation = "auto",
    gather_distributed: GatherDistributed = "auto",
    validate: Validate = "auto",
    eps: float = 1e-6,
) -> Tensor:
    """Temperature-calibrated contrastive loss of the centred embeddings, equations (4) to (7).

    Row i of both views is one strongly augmented image; every other row of either view repels it, those of its own
    class with temperature ``alpha * temperature``.

    Args:
        z_a: Embeddings of the first views, (B, D), taken as they are: equation (6) alone normalises.
        z_b: Embeddings of the second views, (B, D).
        labels: Class of each row, (B,), int64 in 0..C-1.
        centres: Class centres of equation (2), (C, D).
        temperature: tau of equation (7), > 0.
        alpha: Scaling of the temperature within a class, >= 1; 1 repels all alike, 10 nearly collapses a class.
        positive: How the positive enters the denominator: "paper" with 1 / (alpha tau), as printed; "nll" with
            1 / tau, a softmax cross-entropy >= 0; "decoupled" not at all.
        implementation: "dense" holds the similarity matrix; "streaming" visits it in tiles, memory O(B D), with equal
            values and gradients; "auto" takes the faster one. Second derivatives always take the dense form.
        gather_distributed: Contrast with the rows of all processes of torch.distributed; the value is then that of
            the joined batch, and so is the gradient once the processes' gradients are averaged. Batch sizes may differ.
        validate: Check values too, which reads them back from an accelerator; "auto": on a CPU, outside torch.compile.
        eps: A row at most this far from its centre has no direction: it counts as zero and gets no gradient.

    Returns:
        A scalar, float32 (float64 for float64 embeddings); with ``positive="paper"`` >= -(1 - 1 / alpha) / tau. At tau
        = .05 float32 is within 4e-6 of float64, and each row's gradient within 5e-6 of its length, for embeddings of
        lengths from 1e-2 to 1e5 and up to 100 times as far from 0 as from their centre.

    Raises:
        TypeError: An argument is not a tensor or has another dtype.
        ValueError: Shapes, counts, options or checked values are off.

    Example:
        >>> z_a, z_b = torch.eye(4), torch.eye(4)
        >>> calibrated_contrastive_loss(z_a, z_b, torch.tensor([0, 0, 1, 1]), torch.zeros(2, 4))
        tensor(-2.0995)
    """
    check_contrastive_options(temperature, alpha, positive, implementation)
    check_switch("gather_distributed", gather_distributed)
    if not 0 <= eps < math.inf:
        raise ValueError(f"expected a finite eps >= 0, got {eps}: 1e-6 is usual")
    gather = is_distributed(gather_distributed)
    check_views(z_a, z_b, labels, centres, validate=validate, smallest=1 if gather else 2)
    kappas = Kappas.calibrated(temperature, alpha)
    return contrastive_term(z_a, z_b, labels, centres, kappas, positive, implementation, gather, eps)


def contrastive_term(
    z_a: Tensor,
    z_b: Tensor,
    labels: Tensor,
    centres: Tensor,
    kappas: Kappas,
    positive: Positive,
    implementation: Implementation,
    gather: bool,
    eps: float = 1e-6,
) -> Tensor:
    """`calibrated_contrastive_loss` of arguments that were checked."""
    with torch.autocast(z_a.device.type, enabled=False):
        # Directions near a centre need more bits than half precision has.
        z = at_least_float32(torch.stack((z_a, z_b), dim=1))  # (B, 2, D)
        pairs = centred_directions(z, centres[labels].unsqueeze(1), eps)
        negatives = _log_negatives(pairs, labels, kappas, implementation, gather)  # (B, 2)

        # Both views of an image have the same positive product; equation (5) always attracts with 1 / tau.
        first, second = pairs.unbind(dim=1)
        similarity = (first * second).sum(dim=1, keepdim=True)  # (B, 1)
        denominator = _add_positive(negatives, similarity, kappas, positive)
        loss = (denominator - similarity * kappas.other).mean()
        return joined_mean(loss, len(labels)) if gather else loss


def _add_positive(negatives: Tensor, similarity: Tensor, kappas: Kappas, positive: Positive) -> Tensor:
    """Log of equation (5)'s denominator: (B, 2), (B, 1) -> (B, 2)."""
    if positive == "decoupled":
        return negatives
    kappa = kappas.same if positive == "paper" else kappas.other
    return torch.logaddexp(negatives, similarity * kappa)


def _log_negatives(
    pairs: Tensor, labels: Tensor, kappas: Kappas, implementation: Implementation, gather: bool
) -> Tensor:
    """Log of equation (5)'s denominator without the positive: (B, 2, D), (B,) -> (B, 2)."""
    others = pairs.new_empty(0, pairs.shape[2])
    other_labels = labels[:0]
    if gather:
        others = other_rows(pairs).flatten(0, 1)  # (M, D)
        other_labels = other_rows(labels).repeat_interleave(2)  # (M,)
    form = dense_log_negatives if _is_dense(pairs, others, implementation) else streaming_log_negatives
    return form(pairs, labels, others, other_labels, kappas)


def _is_dense(pairs: Tensor, others: Tensor, implementation: Implementation) -> bool:
    """Whether to take the dense form."""
    if implementation != "auto":
        return implementation == "dense"
    rows = 2 * pairs.shape[0]
    entries = rows * (rows + others.shape[0])
    most = DENSE_ENTRIES_CPU if pairs.device.type == "cpu" else DENSE_ENTRIES_ACCELERATOR
    return entries <= most
