"""The memory-linear form of equation (5)'s denominator, a custom operator.

The forward pass visits the similarity matrix tile by tile and keeps one number per row; the backward pass computes the
tiles again. So memory grows with N D instead of N squared, and only half of the symmetric matrix is computed. Where all
tiles take a few megabytes at most, the backward pass reads them back instead.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from msacl_loss.dense import dense_gradients
from msacl_loss.tiles import TILE_CPU, Points, Tile, arrange, fill_own_image, scale_same_class, upper_tiles

LARGEST_PLAIN_KAPPA = 40.0  # exp(+-40) and its sums are normal float32 numbers, so they need no shift
MOST_KEPT = 2**22  # entries, 16 MB of float32; an accelerator's dense form takes such sizes
LOG2_E = math.log2(math.e)  # 2^x is faster than e^x


@torch.library.custom_op("msacl::log_negatives", mutates_args=())
def streaming_log_negatives(
    pairs: Tensor, labels: Tensor, others: Tensor, other_labels: Tensor, kappa_same: float, kappa_other: float
) -> tuple[Tensor, Tensor]:
    """Log of the sum over the negatives of each row, and the tiles' exponentials for the backward pass, or nothing.

    See `dense_log_negatives`, which has equal values.
    """
    points = arrange(pairs, labels, others, other_labels)
    kept = pairs.new_empty(num_kept(pairs, others, kappa_same, kappa_other))
    with torch.autocast(pairs.device.type, enabled=False):
        if is_large(kappa_same, kappa_other):
            log_sums = running_log_sums(points, kappa_same, kappa_other)
        else:
            log_sums = plain_log_sums(points, kappa_same, kappa_other, kept)
    ordered = log_sums[: points.num_own].view(-1, 2)
    result = torch.empty_like(ordered)
    result[points.own_order] = ordered
    return result, kept


@torch.library.custom_op("msacl::log_negatives_backward", mutates_args=())
def streaming_log_negatives_backward(
    grad: Tensor,
    log_sums: Tensor,
    kept: Tensor,
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
    with torch.autocast(pairs.device.type, enabled=False):
        if is_large(kappa_same, kappa_other):
            ordered = running_gradients(grad, log_sums, points, kappa_same, kappa_other)
        else:
            ordered = plain_gradients(grad, log_sums, points, kappa_same, kappa_other, kept)
    grad_pairs, grad_others = torch.empty_like(pairs), torch.empty_like(others)
    grad_pairs[points.own_order] = ordered[: points.num_own].view(pairs.shape)
    grad_others[points.other_order] = ordered[points.num_own :]
    return grad_pairs, grad_others


@streaming_log_negatives.register_fake
def _fake_forward(
    pairs: Tensor, labels: Tensor, others: Tensor, other_labels: Tensor, *kappas: float
) -> tuple[Tensor, Tensor]:
    return pairs.new_empty(pairs.shape[:2]), pairs.new_empty(num_kept(pairs, others, *kappas))


@streaming_log_negatives_backward.register_fake
def _fake_backward(
    grad: Tensor, log_sums: Tensor, kept: Tensor, pairs: Tensor, labels: Tensor, others: Tensor, *rest: Any
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(pairs), torch.empty_like(others)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.kappa_same, ctx.kappa_other = inputs
    ctx.save_for_backward(*tensors, *output)
    ctx.set_materialize_grads(False)  # none ever comes for the kept tiles


def _backward(ctx: Any, grad: Tensor | None, grad_kept: None) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 6
    pairs, labels, others, other_labels, log_sums, kept = ctx.saved_tensors
    rest = (pairs, labels, others, other_labels, ctx.kappa_same, ctx.kappa_other)
    if torch.is_grad_enabled():  # create_graph=True: second derivatives need a form that autograd sees through
        by_pairs, by_others = dense_gradients(grad, *rest)
    else:
        by_pairs, by_others = streaming_log_negatives_backward(grad, log_sums, kept, *rest)
    return by_pairs, None, by_others, None, None, None


streaming_log_negatives.register_autograd(_backward, setup_context=_keep)


def is_large(kappa_same: float, kappa_other: float) -> bool:
    """Whether exp(kappa) needs a running maximum."""
    return max(kappa_same, kappa_other) > LARGEST_PLAIN_KAPPA


def num_kept(pairs: Tensor, others: Tensor, kappa_same: float, kappa_other: float) -> int:
    """Room for the exponentials of all tiles, or 0 where the backward pass computes them again."""
    rows = 2 * pairs.shape[0]
    entries = rows * (rows + TILE_CPU) // 2 + rows * others.shape[0]  # half the own matrix, and some of the other half
    keep = pairs.device.type == "cpu" and not is_large(kappa_same, kappa_other) and entries <= MOST_KEPT
    return entries if keep else 0


def plain_log_sums(points: Points, kappa_same: float, kappa_other: float, kept: Tensor) -> Tensor:
    """Sum exponentials as they are: (2B + M,), of which the own rows count. Fills `kept` if it has room."""
    sums = points.vectors.new_zeros(len(points.vectors))
    for tile, values in upper_logits(points, kappa_same * LOG2_E, kappa_other * LOG2_E, kept):
        values.exp2_()
        fill_own_image(values, tile, 0.0)
        sums[tile.rows.span] += values.sum(dim=1)
        if not tile.on_diagonal:
            sums[tile.columns.span] += values.sum(dim=0)
    kept[sum(tile.size for tile in upper_tiles(points)) :] = 0  # an operator's output must not be left to chance
    return sums.log_()


def running_log_sums(points: Points, kappa_same: float, kappa_other: float) -> Tensor:
    """Sum exponentials relative to a running maximum: (2B + M,), of which the own rows count."""
    log_sums = points.vectors.new_full((len(points.vectors),), -math.inf)
    for tile, values in upper_logits(points, kappa_same, kappa_other, points.vectors.new_empty(0)):
        fill_own_image(values, tile, -math.inf)
        rows, columns = tile.rows.span, tile.columns.span
        log_sums[rows] = log_sums[rows].logaddexp(values.logsumexp(dim=1))
        if not tile.on_diagonal:
            log_sums[columns] = log_sums[columns].logaddexp(values.logsumexp(dim=0))
    return log_sums


def plain_gradients(
    grad: Tensor, log_sums: Tensor, points: Points, kappa_same: float, kappa_other: float, kept: Tensor
) -> Tensor:
    """Gradient by each ordered vector: (2B + M,), (2B + M,) -> (2B + M, D)."""
    result = torch.zeros_like(points.vectors)
    weights = grad * log_sums.neg().exp_()
    buffer = points.vectors.new_empty(0)
    for tile, values in exponentials(points, kappa_same, kappa_other, kept):
        if buffer.numel() < values.numel():
            buffer = torch.empty_like(values).flatten()
        both = buffer[: values.numel()].view(values.shape)
        torch.add(weights[tile.rows.span, None], weights[tile.columns.span], out=both)
        add_products(result, both.mul_(values), tile, points, kappa_same, kappa_other)
    return result


def running_gradients(grad: Tensor, log_sums: Tensor, points: Points, kappa_same: float, kappa_other: float) -> Tensor:
    """The same where exp(logit) and the sums may leave float32's range but their ratio does not."""
    result = torch.zeros_like(points.vectors)
    for tile, values in upper_logits(points, kappa_same, kappa_other, points.vectors.new_empty(0)):
        rows, columns = tile.rows.span, tile.columns.span
        by_columns = (values - log_sums[columns]).exp_().mul_(grad[columns])
        values.sub_(log_sums[rows, None]).exp_().mul_(grad[rows, None]).add_(by_columns)
        add_products(result, values, tile, points, kappa_same, kappa_other)
    return result


def exponentials(points: Points, kappa_same: float, kappa_other: float, kept: Tensor) -> Iterator[tuple[Tile, Tensor]]:
    """Each upper tile with exp(logits): as the forward pass kept them, or computed again."""
    if len(kept):
        tiles = list(upper_tiles(points))
        yield from zip(tiles, tile_views(kept, tiles), strict=True)
        return
    for tile, values in upper_logits(points, kappa_same * LOG2_E, kappa_other * LOG2_E, kept):
        yield tile, values.exp2_()


def upper_logits(points: Points, kappa_same: float, kappa_other: float, kept: Tensor) -> Iterator[tuple[Tile, Tensor]]:
    """Each upper tile with kappa times its products: in `kept`, or in a buffer that the next tile overwrites."""
    tiles = list(upper_tiles(points))
    rooms = tile_views(kept, tiles) if len(kept) else same_buffer(points.vectors, tiles)
    for tile, values in zip(tiles, rooms, strict=True):
        rows, columns = points.vectors[tile.rows.span], points.vectors[tile.columns.span]
        torch.addmm(values, rows, columns.T, beta=0, alpha=kappa_other, out=values)
        scale_same_class(values, tile, points, kappa_same / kappa_other)
        yield tile, values


def tile_views(kept: Tensor, tiles: list[Tile]) -> Iterator[Tensor]:
    """Room for each tile, one behind the other."""
    start = 0
    for tile in tiles:
        yield kept[start : start + tile.size].view(tile.rows.size, tile.columns.size)
        start += tile.size


def same_buffer(vectors: Tensor, tiles: list[Tile]) -> Iterator[Tensor]:
    """The same room for each tile."""
    buffer = vectors.new_empty(max(tile.size for tile in tiles))
    for tile in tiles:
        yield buffer[: tile.size].view(tile.rows.size, tile.columns.size)


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
