"""The dense form of equation (5)'s denominator: the whole similarity matrix, differentiable any number of times."""

import torch
from torch import Tensor


def dense_log_negatives(
    pairs: Tensor, labels: Tensor, others: Tensor, other_labels: Tensor, kappa_same: float, kappa_other: float
) -> Tensor:
    """Log of the sum over the negatives of each row: equation (5)'s denominator without the positive.

    Args:
        pairs: Unit vectors of both views of this process's images, (B, 2, D).
        labels: Class of each image, (B,).
        others: Unit vectors of the other processes, (M, D); M may be 0.
        other_labels: Their classes, (M,).
        kappa_same: Factor of a product within a class, equation (7).
        kappa_other: Factor of a product between classes.

    Returns:
        Log sums, (B, 2); -inf for a row without negatives.
    """
    rows = pairs.flatten(0, 1)  # (2B, D): the views of an image are neighbours
    columns = torch.cat((rows, others))  # (2B + M, D)
    row_labels = labels.repeat_interleave(2)
    same = row_labels[:, None] == torch.cat((row_labels, other_labels))  # (2B, 2B + M)
    kappa = torch.where(same, rows.new_full((), kappa_same), rows.new_full((), kappa_other))
    logits = rows @ columns.T * kappa
    image = torch.arange(len(columns), device=rows.device) // 2
    own = image[: len(rows), None] == image
    return logits.masked_fill(own, -torch.inf).logsumexp(dim=1).view(pairs.shape[:2])


def dense_gradients(
    grad: Tensor,
    pairs: Tensor,
    labels: Tensor,
    others: Tensor,
    other_labels: Tensor,
    kappa_same: float,
    kappa_other: float,
) -> tuple[Tensor, Tensor]:
    """Gradients of `dense_log_negatives` by the pairs and the others, themselves differentiable."""
    pairs, others = (x if x.requires_grad else x.detach().requires_grad_() for x in (pairs, others))
    value = dense_log_negatives(pairs, labels, others, other_labels, kappa_same, kappa_other)
    by_pairs, by_others = torch.autograd.grad(value, (pairs, others), grad, create_graph=True)
    return by_pairs, by_others
