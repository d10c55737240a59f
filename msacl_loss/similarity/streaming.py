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

from msacl_loss.similarity.dense import dense_gradients
from msacl_loss.similarity.kappas import Kappas
from msacl_loss.similarity.tiles import (
    TILE_CPU,
    SortedViews,
    Tile,
    fill_own_image,
    scale_same_class,
    sort_views,
    upper_tiles,
)

MOST_KEPT = 2**22  # entries, 16 MB of float32; an accelerator's dense form takes such sizes
LOG2_E = math.log2(math.e)  # 2^x is faster than e^x


def streaming_log_negatives(
    pairs: Tensor, labels: Tensor, others: Tensor, other_labels: Tensor, kappas: Kappas
) -> Tensor:
    """Log of the sum over the negatives of each row; `dense_log_negatives` explains it and has equal values."""
    outputs: tuple[Tensor, Tensor] = _forward_operator(pairs, labels, others, other_labels, *kappas)
    return outputs[0]


@torch.library.custom_op("msacl::log_negatives", mutates_args=())
def _forward_operator(
    pairs: Tensor,
    labels: Tensor,
    others: Tensor,
    other_labels: Tensor,
    kappa_same: float,
    kappa_other: float,
) -> tuple[Tensor, Tensor]:
    """Log sums, and the tiles' exponentials for the backward pass, or nothing."""
    views = sort_views(pairs, labels, others, other_labels)
    kappas = Kappas(kappa_same, kappa_other)
    kept = pairs.new_empty(_num_kept(pairs, others, kappas))
    with torch.autocast(pairs.device.type, enabled=False):
        plain = not kappas.are_large
        log_sums = _plain_log_sums(views, kappas, kept) if plain else _running_log_sums(views, kappas)

    # Back from the order of classes to the order of the batch.
    ordered = log_sums[: views.num_own].view(-1, 2)
    result = torch.empty_like(ordered)
    result[views.own_order] = ordered
    return result, kept


@torch.library.custom_op("msacl::log_negatives_backward", mutates_args=())
def _backward_operator(
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
    """Gradients of the log sums by the pairs and by the others."""
    views = sort_views(pairs, labels, others, other_labels)
    kappas = Kappas(kappa_same, kappa_other)
    # Others are columns only: an infinite sum makes their own share of each entry zero.
    grad = F.pad(grad[views.own_order].flatten(), (0, len(others)))
    log_sums = F.pad(log_sums[views.own_order].flatten(), (0, len(others)), value=math.inf)
    with torch.autocast(pairs.device.type, enabled=False):
        if kappas.are_large:
            ordered = _running_gradients(grad, log_sums, views, kappas)
        else:
            ordered = _plain_gradients(grad, log_sums, views, kappas, kept)

    # Back from the order of classes to the order of the batch.
    grad_pairs = torch.empty_like(pairs)
    grad_others = torch.empty_like(others)
    grad_pairs[views.own_order] = ordered[: views.num_own].view(pairs.shape)
    grad_others[views.other_order] = ordered[views.num_own :]
    return grad_pairs, grad_others


@_forward_operator.register_fake
def _fake_forward(
    pairs: Tensor, labels: Tensor, others: Tensor, other_labels: Tensor, kappa_same: float, kappa_other: float
) -> tuple[Tensor, Tensor]:
    kept = _num_kept(pairs, others, Kappas(kappa_same, kappa_other))
    return pairs.new_empty(pairs.shape[:2]), pairs.new_empty(kept)


@_backward_operator.register_fake
def _fake_backward(
    grad: Tensor, log_sums: Tensor, kept: Tensor, pairs: Tensor, labels: Tensor, others: Tensor, *rest: Any
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(pairs), torch.empty_like(others)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, kappa_same, kappa_other = inputs
    ctx.kappas = Kappas(kappa_same, kappa_other)
    ctx.save_for_backward(*tensors, *output)
    ctx.set_materialize_grads(False)  # none ever comes for the kept tiles


def _backward(ctx: Any, grad: Tensor | None, grad_kept: None) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 6
    pairs, labels, others, other_labels, log_sums, kept = ctx.saved_tensors
    if torch.is_grad_enabled():  # create_graph=True: second derivatives need a form that autograd sees through
        by_pairs, by_others = dense_gradients(grad, pairs, labels, others, other_labels, ctx.kappas)
    else:
        saved = (log_sums, kept, pairs, labels, others, other_labels)
        by_pairs, by_others = _backward_operator(grad, *saved, *ctx.kappas)
    return by_pairs, None, by_others, None, None, None


_forward_operator.register_autograd(_backward, setup_context=_setup_context)


def _num_kept(pairs: Tensor, others: Tensor, kappas: Kappas) -> int:
    """Room for the exponentials of all tiles, or 0 where the backward pass computes them again."""
    rows = 2 * pairs.shape[0]
    # Half of the own matrix with its diagonal tiles, and all products with other processes.
    entries = rows * (rows + TILE_CPU) // 2 + rows * others.shape[0]
    is_small = pairs.device.type == "cpu" and entries <= MOST_KEPT
    return entries if is_small and not kappas.are_large else 0


def _plain_log_sums(views: SortedViews, kappas: Kappas, kept: Tensor) -> Tensor:
    """Sum exponentials as they are: (2B + M,), of which the own rows count. Fills `kept` if it has room."""
    sums = views.vectors.new_zeros(len(views.vectors))
    for tile, values in _upper_logits(views, kappas.times(LOG2_E), kept):
        # By symmetry, a tile above the diagonal gives to its rows and to its columns.
        values.exp2_()
        fill_own_image(values, tile, 0.0)
        sums[tile.rows.span] += values.sum(dim=1)
        if not tile.on_diagonal:
            sums[tile.columns.span] += values.sum(dim=0)
    # An operator's output must not be left to chance.
    used = sum(tile.size for tile in upper_tiles(views))
    kept[used:] = 0
    return sums.log_()


def _running_log_sums(views: SortedViews, kappas: Kappas) -> Tensor:
    """Sum exponentials relative to a running maximum: (2B + M,), of which the own rows count."""
    log_sums = views.vectors.new_full((len(views.vectors),), -math.inf)
    for tile, values in _upper_logits(views, kappas, views.vectors.new_empty(0)):
        fill_own_image(values, tile, -math.inf)
        rows = tile.rows.span
        columns = tile.columns.span
        log_sums[rows] = log_sums[rows].logaddexp(values.logsumexp(dim=1))
        if not tile.on_diagonal:
            log_sums[columns] = log_sums[columns].logaddexp(values.logsumexp(dim=0))
    return log_sums


def _plain_gradients(grad: Tensor, log_sums: Tensor, views: SortedViews, kappas: Kappas, kept: Tensor) -> Tensor:
    """Gradient by each ordered vector: (2B + M,), (2B + M,) -> (2B + M, D)."""
    result = torch.zeros_like(views.vectors)
    # An entry's gradient is exp(logit) times the sum of its row's and its column's grad / sum.
    weights = grad * log_sums.neg().exp_()
    buffer = views.vectors.new_empty(0)
    for tile, values in _exponentials(views, kappas, kept):
        if buffer.numel() < values.numel():
            buffer = torch.empty_like(values).flatten()
        both = buffer[: values.numel()].view(values.shape)
        by_rows = weights[tile.rows.span, None]
        by_columns = weights[tile.columns.span]
        torch.add(by_rows, by_columns, out=both)
        _add_products(result, both.mul_(values), tile, views, kappas)
    return result


def _running_gradients(grad: Tensor, log_sums: Tensor, views: SortedViews, kappas: Kappas) -> Tensor:
    """The same where exp(logit) and the sums may leave float32's range but their ratio does not."""
    result = torch.zeros_like(views.vectors)
    for tile, values in _upper_logits(views, kappas, views.vectors.new_empty(0)):
        rows = tile.rows.span
        columns = tile.columns.span
        # Subtract before exp: the ratio of exp(logit) and the sum is in range where they are not.
        by_columns = (values - log_sums[columns]).exp_().mul_(grad[columns])
        values.sub_(log_sums[rows, None]).exp_()
        values.mul_(grad[rows, None]).add_(by_columns)
        _add_products(result, values, tile, views, kappas)
    return result


def _exponentials(views: SortedViews, kappas: Kappas, kept: Tensor) -> Iterator[tuple[Tile, Tensor]]:
    """Each upper tile with exp(logits): as the forward pass kept them, or computed again."""
    if len(kept):
        tiles = list(upper_tiles(views))
        yield from zip(tiles, _tile_views(kept, tiles), strict=True)
        return
    for tile, values in _upper_logits(views, kappas.times(LOG2_E), kept):
        yield tile, values.exp2_()


def _upper_logits(views: SortedViews, kappas: Kappas, kept: Tensor) -> Iterator[tuple[Tile, Tensor]]:
    """Each upper tile with kappa times its products: in `kept`, or in a buffer that the next tile overwrites."""
    tiles = list(upper_tiles(views))
    buffers = _tile_views(kept, tiles) if len(kept) else _same_buffer(views.vectors, tiles)
    for tile, values in zip(tiles, buffers, strict=True):
        rows = views.vectors[tile.rows.span]
        columns = views.vectors[tile.columns.span]
        torch.addmm(values, rows, columns.T, beta=0, alpha=kappas.other, out=values)
        scale_same_class(values, tile, views, kappas.same / kappas.other)
        yield tile, values


def _tile_views(kept: Tensor, tiles: list[Tile]) -> Iterator[Tensor]:
    """Room for each tile, one behind the other."""
    start = 0
    for tile in tiles:
        yield kept[start : start + tile.size].view(tile.rows.size, tile.columns.size)
        start += tile.size


def _same_buffer(vectors: Tensor, tiles: list[Tile]) -> Iterator[Tensor]:
    """The same room for each tile."""
    buffer = vectors.new_empty(max(tile.size for tile in tiles))
    for tile in tiles:
        yield buffer[: tile.size].view(tile.rows.size, tile.columns.size)


def _add_products(result: Tensor, values: Tensor, tile: Tile, views: SortedViews, kappas: Kappas) -> None:
    """Add a tile's part of the gradient by its rows and, above the diagonal, by its columns."""
    fill_own_image(values, tile, 0.0)
    scale_same_class(values, tile, views, kappas.same / kappas.other)
    rows = tile.rows.span
    columns = tile.columns.span
    result[rows].addmm_(values, views.vectors[columns], alpha=kappas.other)
    if not tile.on_diagonal:
        result[columns].addmm_(values.T, views.vectors[rows], alpha=kappas.other)
