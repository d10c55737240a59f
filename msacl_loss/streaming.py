"""The memory-linear form of equation (5)'s denominator, a custom operator.

The forward pass visits the similarity matrix tile by tile and keeps one number per row; the backward pass computes the
tiles again. So memory grows with N D instead of N squared, and only half of the symmetric matrix is computed.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from msacl_loss.dense import dense_gradients
from msacl_loss.tiles import Points, Tile, arrange, fill_own_image, scale_same_class, upper_tiles

LARGEST_PLAIN_KAPPA = 40.0  # exp(+-40) and its sums are normal float32 numbers, so they need no shift
LOG2_E = math.log2(math.e)  # 2^x is faster than e^x


@torch.library.custom_op("msacl::log_negatives", mutates_args=())
def streaming_log_negatives(
    pairs: Tensor, labels: Tensor, others: Tensor, other_labels: Tensor, kappa_same: float, kappa_other: float
) -> Tensor:
    """Log of the sum over the negatives of each row; see `dense_log_negatives`, which has equal values."""
    points = arrange(pairs, labels, others, other_labels)
    log_sums = running_log_sums if is_large(kappa_same, kappa_other) else plain_log_sums
    with torch.autocast(pairs.device.type, enabled=False):
        ordered = log_sums(points, kappa_same, kappa_other)[: points.num_own]
    result = torch.empty_like(ordered).view(-1, 2)
    result[points.own_order] = ordered.view(-1, 2)
    return result


@torch.library.custom_op("msacl::log_negatives_backward", mutates_args=())
def streaming_log_negatives_backward(
    grad: Tensor,
    log_sums: Tensor,
    pairs: Tensor,
    labels: Tensor,
    others: Tensor,
    other_labels: Tensor,
    kappa_same: float,
    kappa_other: float,
) -> tuple[Tensor, Tensor]:
    """Gradients of `streaming_log_negatives` by the pairs and by the others."""
    points = arrange(pairs, labels, others, other_labels)
    # Others are columns only: an infinite sum makes their own share of each entry zero.
    grad = F.pad(grad[points.own_order].flatten(), (0, len(others)))
    log_sums = F.pad(log_sums[points.own_order].flatten(), (0, len(others)), value=math.inf)
    gradients = running_gradients if is_large(kappa_same, kappa_other) else plain_gradients
    with torch.autocast(pairs.device.type, enabled=False):
        ordered = gradients(grad, log_sums, points, kappa_same, kappa_other)
    grad_pairs, grad_others = torch.empty_like(pairs), torch.empty_like(others)
    grad_pairs[points.own_order] = ordered[: points.num_own].view(pairs.shape)
    grad_others[points.other_order] = ordered[points.num_own :]
    return grad_pairs, grad_others


@streaming_log_negatives.register_fake
def _fake_forward(pairs: Tensor, *rest: Any) -> Tensor:
    return pairs.new_empty(pairs.shape[:2])


@streaming_log_negatives_backward.register_fake
def _fake_backward(
    grad: Tensor, log_sums: Tensor, pairs: Tensor, labels: Tensor, others: Tensor, *rest: Any
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(pairs), torch.empty_like(others)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.kappa_same, ctx.kappa_other = inputs
    ctx.save_for_backward(*tensors, output)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    pairs, labels, others, other_labels, log_sums = ctx.saved_tensors
    rest = (pairs, labels, others, other_labels, ctx.kappa_same, ctx.kappa_other)
    if torch.is_grad_enabled():  # create_graph=True: second derivatives need a form that autograd sees through
        by_pairs, by_others = dense_gradients(grad, *rest)
    else:
        by_pairs, by_others = streaming_log_negatives_backward(grad, log_sums, *rest)
    return by_pairs, None, by_others, None, None, None


streaming_log_negatives.register_autograd(_backward, setup_context=_keep)


def is_large(kappa_same: float, kappa_other: float) -> bool:
    """Whether exp(kappa) needs a running maximum."""
    return max(kappa_same, kappa_other) > LARGEST_PLAIN_KAPPA


def plain_log_sums(points: Points, kappa_same: float, kappa_other: float) -> Tensor:
    """Sum exponentials as they are: (2B + M,), of which the own rows count."""
    sums = points.vectors.new_zeros(len(points.vectors))
    for tile, values in upper_logits(points, kappa_same * LOG2_E, kappa_other * LOG2_E):
        values.exp2_()
        fill_own_image(values, tile, 0.0)
        sums[tile.rows.span] += values.sum(dim=1)
        if not tile.on_diagonal:
            sums[tile.columns.span] += values.sum(dim=0)
    return sums.log_()


def running_log_sums(points: Points, kappa_same: float, kappa_other: float) -> Tensor:
    """Sum exponentials relative to a running maximum: (2B + M,), of which the own rows count."""
    log_sums = points.vectors.new_full((len(points.vectors),), -math.inf)
    for tile, values in upper_logits(points, kappa_same, kappa_other):
        fill_own_image(values, tile, -math.inf)
        rows, columns = tile.rows.span, tile.columns.span
        log_sums[rows] = log_sums[rows].logaddexp(values.logsumexp(dim=1))
        if not tile.on_diagonal:
            log_sums[columns] = log_sums[columns].logaddexp(values.logsumexp(dim=0))
    return log_sums


def plain_gradients(grad: Tensor, log_sums: Tensor, points: Points, kappa_same: float, kappa_other: float) -> Tensor:
    """Gradient by each ordered vector: (2B + M,), (2B + M,) -> (2B + M, D)."""
    result = torch.zeros_like(points.vectors)
    weights = grad * log_sums.neg().exp_()
    buffer = points.vectors.new_empty(0)
    for tile, values in upper_logits(points, kappa_same * LOG2_E, kappa_other * LOG2_E):
        if buffer.numel() < values.numel():
            buffer = torch.empty_like(values).flatten()
        both = buffer[: values.numel()].view(values.shape)
        torch.add(weights[tile.rows.span, None], weights[tile.columns.span], out=both)
        values.exp2_().mul_(both)
        add_products(result, values, tile, points, kappa_same, kappa_other)
    return result


def running_gradients(grad: Tensor, log_sums: Tensor, points: Points, kappa_same: float, kappa_other: float) -> Tensor:
    """The same where exp(logit) and the sums may leave float32's range but their ratio does not."""
    result = torch.zeros_like(points.vectors)
    for tile, values in upper_logits(points, kappa_same, kappa_other):
        rows, columns = tile.rows.span, tile.columns.span
        by_columns = (values - log_sums[columns]).exp_().mul_(grad[columns])
        values.sub_(log_sums[rows, None]).exp_().mul_(grad[rows, None]).add_(by_columns)
        add_products(result, values, tile, points, kappa_same, kappa_other)
    return result


def upper_logits(points: Points, kappa_same: float, kappa_other: float) -> Iterator[tuple[Tile, Tensor]]:
    """Each upper tile with kappa times its products, in a buffer that the next tile overwrites."""
    tiles = list(upper_tiles(points))
    buffer = points.vectors.new_empty(max(tile.rows.size * tile.columns.size for tile in tiles))
    for tile in tiles:
        rows, columns = points.vectors[tile.rows.span], points.vectors[tile.columns.span]
        values = buffer[: len(rows) * len(columns)].view(len(rows), len(columns))
        torch.addmm(values, rows, columns.T, beta=0, alpha=kappa_other, out=values)
        scale_same_class(values, tile, points, kappa_same / kappa_other)
        yield tile, values


def add_products(
    result: Tensor, values: Tensor, tile: Tile, points: Points, kappa_same: float, kappa_other: float
) -> None:
    """Add a tile's part of the gradient by its rows and, above the diagonal, by its columns."""
    fill_own_image(values, tile, 0.0)
    scale_same_class(values, tile, points, kappa_same / kappa_other)
    rows, columns = tile.rows.span, tile.columns.span
    result[rows].addmm_(values, points.vectors[columns], alpha=kappa_other)
    if not tile.on_diagonal:
        result[columns].addmm_(values.T, points.vectors[rows], alpha=kappa_other)
