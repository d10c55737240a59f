"""The contrastive term, equations (4) to (7)."""

from typing import Literal

import torch
from torch import Tensor

from msacl_loss.checks import Validate, check_contrastive_options, check_switch, check_views
from msacl_loss.dense import dense_log_negatives
from msacl_loss.distributed import GatherDistributed, gathers, joined_mean, other_rows
from msacl_loss.streaming import streaming_log_negatives
from msacl_loss.vectors import at_least_float32, centred_directions

Positive = Literal["paper", "nll", "decoupled"]
Implementation = Literal["auto", "dense", "streaming"]
DENSE_ENTRIES_CPU = 384**2  # the dense form is the faster one up to a matrix of this size: benchmarks/loss.py
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
        validate: Check values too (labels in range, finite embeddings), which reads them back from an accelerator;
            "auto" does so on a CPU and outside torch.compile. Shapes and types are always checked.
        eps: A row at most this far from its centre has no direction: it counts as zero and gets no gradient.

    Returns:
        A scalar, float32 (float64 for float64 embeddings). With ``positive="paper"`` it may be negative, down to
        -(1 - 1 / alpha) / tau.

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
    gather = gathers(gather_distributed)
    check_views(z_a, z_b, labels, centres, validate=validate, smallest=1 if gather else 2)
    kappa_same, kappa_other = 1 / (alpha * temperature), 1 / temperature
    with torch.autocast(z_a.device.type, enabled=False):
        z = at_least_float32(torch.stack((z_a, z_b), dim=1))  # (B, 2, D)
        pairs = centred_directions(z, centres[labels].unsqueeze(1), eps)
        negatives = log_negatives(pairs, labels, kappa_same, kappa_other, implementation, gather)  # (B, 2)
        first, second = pairs.unbind(dim=1)
        similarity = (first * second).sum(dim=1, keepdim=True)  # (B, 1)
        denominator = {
            "paper": lambda: torch.logaddexp(negatives, similarity * kappa_same),
            "nll": lambda: torch.logaddexp(negatives, similarity * kappa_other),
            "decoupled": lambda: negatives,
        }[positive]()
        loss = (denominator - similarity * kappa_other).mean()
        return joined_mean(loss[None], labels.new_tensor([len(labels)]))[0] if gather else loss


def log_negatives(
    pairs: Tensor, labels: Tensor, kappa_same: float, kappa_other: float, implementation: Implementation, gather: bool
) -> Tensor:
    """Log of equation (5)'s denominator without the positive: (B, 2, D), (B,) -> (B, 2)."""
    others, other_labels = pairs.new_empty(0, pairs.shape[2]), labels[:0]
    if gather:
        others = other_rows(pairs).flatten(0, 1)  # (M, D)
        other_labels = other_rows(labels).repeat_interleave(2)  # (M,)
    arguments = (pairs, labels, others, other_labels, kappa_same, kappa_other)
    if is_dense(pairs, others, implementation):
        return dense_log_negatives(*arguments)
    streamed: Tensor = streaming_log_negatives(*arguments)[0]
    return streamed


def is_dense(pairs: Tensor, others: Tensor, implementation: Implementation) -> bool:
    """Whether to take the dense form."""
    if implementation == "auto":
        rows = 2 * pairs.shape[0]
        most = DENSE_ENTRIES_CPU if pairs.device.type == "cpu" else DENSE_ENTRIES_ACCELERATOR
        return rows * (rows + others.shape[0]) <= most
    return implementation == "dense"
