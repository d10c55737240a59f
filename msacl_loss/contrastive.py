"""The contrastive term, equations (4) to (7)."""

from typing import Literal

import torch
from torch import Tensor

from msacl_loss.terms import at_least_float32

Positive = Literal["paper", "nll", "decoupled"]


def calibrated_contrastive_loss(
    z_a: Tensor,
    z_b: Tensor,
    labels: Tensor,
    centres: Tensor,
    *,
    temperature: float = 0.2,
    alpha: float = 2.0,
    positive: Positive = "paper",
    eps: float = 1e-6,
) -> Tensor:
    """Temperature-calibrated contrastive loss of the centred embeddings, equations (4) to (7).

    Row i of both views is one strongly augmented image; every other row of either view repels it, those of its own
    class with temperature ``alpha * temperature``.

    Args:
        z_a: Embeddings of the first views, (B, D), not normalised.
        z_b: Embeddings of the second views, (B, D).
        labels: Class of each row, (B,), int64 in 0..C-1.
        centres: Class centres of equation (2), (C, D).
        temperature: tau of equation (7), > 0.
        alpha: Scaling of the temperature within a class, >= 1.
        positive: How the positive enters the denominator: "paper" with 1 / (alpha tau), as printed; "nll" with
            1 / tau, a softmax cross-entropy >= 0; "decoupled" not at all.
        eps: A row at most this far from its centre has no direction: it counts as zero and gets no gradient.

    Returns:
        A scalar. With ``positive="paper"`` it may be negative, down to -(1 - 1 / alpha) / tau.
    """
    z = at_least_float32(torch.stack((z_a, z_b), dim=1))  # (B, 2, D)
    pairs = centred_directions(z, centres[labels].unsqueeze(1), eps)
    similarity = (pairs[:, 0] * pairs[:, 1]).sum(dim=1, keepdim=True)  # (B, 1)
    negatives = log_negatives(pairs, labels, 1 / (alpha * temperature), 1 / temperature)  # (B, 2)
    if positive == "paper":
        denominator = torch.logaddexp(negatives, similarity / (alpha * temperature))
    elif positive == "nll":
        denominator = torch.logaddexp(negatives, similarity / temperature)
    else:
        denominator = negatives
    return (denominator - similarity / temperature).mean()


def centred_directions(z: Tensor, centres: Tensor, eps: float) -> Tensor:
    """Equation (6): the unit vector from the centre to z; zero, without gradient, where they coincide."""
    offset = z - centres
    squared = offset.square().sum(dim=-1, keepdim=True)
    apart = squared > eps * eps
    return offset * torch.where(apart, squared, 1).rsqrt() * apart


def log_negatives(pairs: Tensor, labels: Tensor, kappa_same: float, kappa_other: float) -> Tensor:
    """Log of the denominator of equation (5) without the positive: (B, 2, D), (B,) -> (B, 2)."""
    rows = pairs.flatten(0, 1)  # (2B, D): the two views of an image are neighbours
    row_labels = labels.repeat_interleave(2)
    same = row_labels[:, None] == row_labels
    logits = rows @ rows.T * torch.where(same, kappa_same, kappa_other)  # (2B, 2B)
    image = torch.arange(len(rows), device=rows.device) // 2
    logits = logits.masked_fill(image[:, None] == image, -torch.inf)
    return logits.logsumexp(dim=1).view(pairs.shape[:2])
