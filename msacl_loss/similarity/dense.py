"""The dense form of equation (5)'s denominator: the whole similarity matrix, differentiable any number of times."""

import torch
from torch import Tensor

from msacl_loss.similarity.kappas import Kappas


def dense_log_negatives(pairs: Tensor, labels: Tensor, others: Tensor, other_labels: Tensor, kappas: Kappas) -> Tensor:
    """Log of the sum over the negatives of each row: equation (5)'s denominator without the positive.

    Args:
        pairs: Unit vectors of both views of this process's images, (B, 2, D).
        labels: Class of each image, (B,).
        others: Unit vectors of the other processes, (M, D); M may be 0.
        other_labels: Their classes, (M,).
        kappas: Factors of the products, equation (7).

    Returns:
        Log sums, (B, 2); -inf for a row without negatives.
    """
    # All rows are columns too; the other processes' rows are columns only.
    rows = pairs.flatten(0, 1)  # (2B, D): the views of an image are neighbours
    columns = torch.cat((rows, others))  # (2B + M, D)

    # kappa depends on nothing but whether both classes are equal.
    row_labels = labels.repeat_interleave(2)  # (2B,)
    column_labels = torch.cat((row_labels, other_labels))  # (2B + M,)
    same_class = row_labels[:, None] == column_labels  # (2B, 2B + M)
    kappa_same = rows.new_full((), kappas.same)
    kappa_other = rows.new_full((), kappas.other)
    kappa = torch.where(same_class, kappa_same, kappa_other)
    logits = rows @ columns.T * kappa

    # A row does not see itself, and its positive is added later: -inf is exp's zero.
    image = torch.arange(len(columns), device=rows.device) // 2
    own_image = image[: len(rows), None] == image
    negatives = logits.masked_fill(own_image, -torch.inf)
    return negatives.logsumexp(dim=1).view(pairs.shape[:2])


def dense_gradients(
    grad: Tensor,
    pairs: Tensor,
    labels: Tensor,
    others: Tensor,
    other_labels: Tensor,
    kappas: Kappas,
) -> tuple[Tensor, Tensor]:
    """Gradients of `dense_log_negatives` by the pairs and the others, themselves differentiable."""
    pairs = pairs if pairs.requires_grad else pairs.detach().requires_grad_()
    others = others if others.requires_grad else others.detach().requires_grad_()
    value = dense_log_negatives(pairs, labels, others, other_labels, kappas)
    by_pairs, by_others = torch.autograd.grad(value, (pairs, others), grad, create_graph=True)
    return by_pairs, by_others
