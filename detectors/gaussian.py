"""Nested streaming Gaussians: one per position of the finest of several grids, without ever upsampling a grid.

The Gaussian at fine position p describes the vector [f_0(p_0), f_1(p_1), ..., f_L(p)], p_l being p's ancestor on grid l.
All fine positions below p_l share the marginal of its first l blocks, so the chain rule
d^2(p) = d^2[f_0](p_0) + d^2[f_1 | f_0](p_1) + ... gives each term at the resolution of its own grid. State is kept in
tree order (see `tree.py`), which makes every grouping a free view and every step a handful of batched products.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod

import torch
import torch.distributed
from torch import Tensor
from typing_extensions import Self

from detectors.late_buffers import LateBuffers
from detectors.tree import Level, from_tree, position, to_tree

CHUNK_ELEMENTS = 4_000_000  # of the float64 working set in the factorisation: 32 MB per matrix held


class NestedGaussian(LateBuffers):
    """Gaussians at every position of nested grids, updated batch by batch, with Mahalanobis distances.

    Maps are given coarse to fine; each grid is a whole multiple of the one before it. Memory does not depend on the
    number of samples. Buffers keep their precision under `.half()`.

    Args:
        eps: Added to the diagonal of each covariance.

    Raises:
        ValueError: If eps is negative.

    Example:
        >>> gaussian = NestedGaussian(eps=0.01)
        >>> maps = [torch.rand(8, 3, 2, 2), torch.rand(8, 2, 4, 4)]
        >>> gaussian.update(maps).finalize().squared_distance(maps).shape
        torch.Size([8, 4, 4])
    """

    layout: Tensor | None  # (L, 3) rows, columns, channels of each level
    count: Tensor | None  # samples seen, float64
    mean: Tensor | None  # flat float64: (cells, channels) of each level
    moments: Tensor | None  # flat float32: (cells_l, channels_l, channels_j) for each l and each j <= l
    whitening: Tensor | None  # same layout: rows of the inverse Cholesky factor

    def __init__(self, eps: float = 0.01) -> None:
        super().__init__()
        if eps < 0:
            raise ValueError(f"expected eps >= 0, got {eps}")
        self.eps = eps
        self.levels: list[Level] = []
        for name in ("layout", "count", "mean", "moments", "whitening"):
            self.register_late_buffer(name)

    def reset(self, levels: Sequence[Level], device: torch.device | str = "cpu") -> None:
        """Forget all samples and set the grids, coarse to fine."""
        check_nested(levels)
        self.levels = list(levels)
        self.layout = torch.tensor(self.levels, device=device)
        self.count = torch.zeros((), dtype=torch.float64, device=device)
        self.mean = torch.zeros(sum(mean_sizes(self.levels)), dtype=torch.float64, device=device)
        self.moments = torch.zeros(sum(prod(shape) for shape in block_shapes(self.levels)), device=device)
        self.whitening = None

    def clear(self) -> None:
        """Forget samples and grids."""
        self.levels = []
        self.layout = self.count = self.mean = self.moments = self.whitening = None

    @torch.no_grad()
    def update(self, maps: Sequence[Tensor]) -> Self:
        """Take in samples: maps (B, channels, rows, columns), coarse to fine (Chan's update, centred per batch)."""
        if self.count is None:
            self.reset([Level(m.shape[2], m.shape[3], m.shape[1]) for m in maps], maps[0].device)
        count, mean, moments = self.statistics()
        check_maps(maps, self.levels)
        batch = len(maps[0])
        share = batch / (count + batch)  # of the new samples among all
        columns = []
        for level, (values, old) in enumerate(zip(maps, split_mean(mean, self.levels), strict=True)):
            tree = to_tree(values, self.levels, level)
            block = torch.empty(*old.shape, batch + 1, device=mean.device)  # (cells, channels, B + 1)
            samples = block[..., :batch]
            samples.view(tree.shape).copy_(tree)
            new = samples.mean(-1, dtype=torch.float64)
            samples.sub_(new[..., None])
            block[..., batch] = (new - old) * (count * share).sqrt()
            old += (new - old) * share
            columns.append(block)
        add_products(moments, columns, self.levels)
        count += batch
        self.whitening = None
        return self

    @torch.no_grad()
    def merge(self, other: "NestedGaussian") -> Self:
        """Take in all samples of another Gaussian on the same grids."""
        if other.levels != self.levels:
            raise ValueError(f"expected a Gaussian on the same grids {self.levels}, got one on {other.levels}")
        count, mean, moments = self.statistics()
        new_count, new_mean, new_moments = (tensor.to(mean.device) for tensor in other.statistics())
        share = new_count / (count + new_count).clamp(min=1)
        shift = new_mean - mean
        moments += new_moments
        add_products(moments, self.as_columns(shift * (count * share).sqrt()), self.levels)
        mean += shift * share
        count += new_count
        self.whitening = None
        return self

    @torch.no_grad()
    def all_reduce(self) -> Self:
        """Join the samples of all processes of the default group; all of them end with the same state."""
        count, mean, moments = self.statistics()
        own_count, own_mean = count.clone(), mean.clone()
        torch.distributed.all_reduce(count)
        mean *= own_count / count
        torch.distributed.all_reduce(mean)
        add_products(moments, self.as_columns((own_mean - mean) * own_count.sqrt()), self.levels)
        torch.distributed.all_reduce(moments)
        self.whitening = None
        return self

    @torch.no_grad()
    def finalize(self) -> Self:
        """Factorise the covariances, divisor N - 1, in float64; `squared_distance` works from then on.

        Raises:
            ValueError: If fewer than two samples were seen, or a covariance is not positive definite.
        """
        count, _, moments = self.statistics()
        if count < 2:
            raise ValueError(f"expected at least 2 samples for a covariance, got {int(count)}: fit on more images")
        self.whitening = torch.empty_like(moments)
        factorise(moments, self.whitening, float(count), self.eps, self.levels)
        return self

    def squared_distance(self, maps: Sequence[Tensor]) -> Tensor:
        """Return squared Mahalanobis distances (B, rows, columns) on the finest grid.

        Args:
            maps: (B, channels, rows, columns) of each level, coarse to fine.
        """
        check_maps(maps, self.levels)
        assert self.mean is not None and self.whitening is not None
        centred = []
        for level, (values, mean) in enumerate(zip(maps, split_mean(self.mean, self.levels), strict=True)):
            tree = to_tree(values, self.levels, level).reshape(*mean.shape, -1)
            centred.append((tree - mean[..., None]).float())  # in float64: |mean| may be far above the spread
        weights = split_blocks(self.whitening, self.levels)
        total = centred[0].new_zeros(1, 1)
        for level, values in enumerate(centred):
            white = torch.bmm(weights[level, level], values)
            for j, coarse in enumerate(centred[:level]):
                white = white + grouped(weights[level, j], len(coarse)).bmm(coarse).view_as(white)
            own = white.square().sum(1)  # (cells, B)
            total = (own.view(len(total), -1, own.shape[-1]) + total[:, None]).flatten(0, 1)
        return from_tree(total, self.levels, len(self.levels) - 1)

    def statistics(self) -> tuple[Tensor, Tensor, Tensor]:
        """Count, mean and moments; raises where there are none yet."""
        if self.count is None or self.mean is None or self.moments is None:
            raise ValueError("expected a Gaussian that has seen samples, got an empty one: call update first")
        return self.count, self.mean, self.moments

    def as_columns(self, flat: Tensor) -> list[Tensor]:
        """A flat vector laid out as the mean, as float32 columns (cells, channels, 1) of each level."""
        return [part.float()[..., None] for part in split_mean(flat, self.levels)]

    def after_load(self) -> None:
        """Restore the levels; refuse a state whose sizes do not fit them."""
        self.levels = [] if self.layout is None else [Level(*row) for row in self.layout.tolist()]
        check_state(self)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Follow `.to(device)`, but keep each buffer's precision: float16 holds neither mean nor moments."""
        return super()._apply(lambda tensor: tensor.to(fn(tensor).device), recurse)  # type: ignore[no-any-return]


def add_products(moments: Tensor, columns: list[Tensor], levels: list[Level]) -> None:
    """Add the products of columns (cells, channels, K) of every level with those of it and each coarser one."""
    for (level, j), block in split_blocks(moments, levels).items():
        coarse = columns[j]
        fine = columns[level].view(len(coarse), -1, coarse.shape[-1])  # children grouped by their ancestor
        grouped(block, len(coarse)).baddbmm_(fine, coarse.mT)


def factorise(moments: Tensor, whitening: Tensor, count: float, eps: float, levels: list[Level]) -> None:
    """Write the rows of the inverse block-Cholesky factors of all covariances, a chunk of coarse cells at a time."""
    blocks, out = split_blocks(moments, levels), split_blocks(whitening, levels)
    roots, finest = levels[0].cells, levels[-1]
    chunk = max(1, CHUNK_ELEMENTS // (finest.cells // roots * finest.channels * sum(v.channels for v in levels)))
    for start in range(0, roots, chunk):
        stop = min(start + chunk, roots)
        above = moments.new_zeros(stop - start, 0, 0, dtype=torch.float64)
        for level, grid in enumerate(levels):
            cells = slice(start * (grid.cells // roots), stop * (grid.cells // roots))
            rows = [blocks[level, j][cells].double() / (count - 1) for j in range(level + 1)]
            cross, own, info = whiten(torch.cat(rows[:-1], 2) if level else None, rows[-1], above, eps)
            if info.any():
                raise factorisation_error(levels, level, cells.start + int(info.nonzero()[0]), eps)
            for j, part in enumerate([*cross.split([v.channels for v in levels[:level]], 2), own]):
                out[level, j][cells] = part
            if level + 1 < len(levels):
                above = stack_below(above, cross, own)


def whiten(cross: Tensor | None, own: Tensor, above: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Whitening rows of one level, given those of all coarser ones.

    Args:
        cross: Covariance (cells, c, k) with all coarser channels; None at the coarsest level.
        own: Covariance (cells, c, c) of the level.
        above: Whitening (parents, k, k) of all coarser channels.
        eps: Added to the diagonal.

    Returns:
        Rows for the coarser channels (cells, c, k), for the level's own (cells, c, c), LAPACK's info (cells,).
    """
    identity = torch.eye(own.shape[1], dtype=own.dtype, device=own.device)
    own = own + eps * identity
    if cross is not None:
        regression = grouped(cross, len(above)) @ above.mT  # (parents, children * c, k): the factor's rows
        factor = regression.view_as(cross)
        own = own - factor @ factor.mT
    lower, info = torch.linalg.cholesky_ex(own)
    inverse = torch.linalg.solve_triangular(lower, identity.expand_as(own), upper=False)
    if cross is None:
        return own.new_zeros(*own.shape[:2], 0), inverse, info
    return -inverse @ (regression @ above).view_as(cross), inverse, info


def stack_below(above: Tensor, cross: Tensor, own: Tensor) -> Tensor:
    """Join [above, 0; cross, own] for every cell of a level: (cells, k + c, k + c)."""
    cells, channels, k = cross.shape
    whole = own.new_zeros(cells, k + channels, k + channels)
    whole[:, :k, :k] = above.repeat_interleave(cells // len(above), 0)
    whole[:, k:, :k], whole[:, k:, k:] = cross, own
    return whole


def grouped(block: Tensor, ancestors: int) -> Tensor:
    """View (cells, rows, columns) as (ancestors, cells / ancestors * rows, columns)."""
    return block.view(ancestors, -1, block.shape[-1])


def mean_sizes(levels: Sequence[Level]) -> list[int]:
    """Numbers of each level's cells times channels."""
    return [v.cells * v.channels for v in levels]


def block_shapes(levels: Sequence[Level]) -> list[tuple[int, int, int]]:
    """Shapes (cells_l, channels_l, channels_j) for each level l and each j <= l."""
    return [(v.cells, v.channels, w.channels) for level, v in enumerate(levels) for w in levels[: level + 1]]


def split_mean(flat: Tensor, levels: Sequence[Level]) -> list[Tensor]:
    """Views (cells, channels) of each level into a flat vector."""
    parts = flat.split(mean_sizes(levels))
    return [part.view(v.cells, v.channels) for part, v in zip(parts, levels, strict=True)]


def split_blocks(flat: Tensor, levels: Sequence[Level]) -> dict[tuple[int, int], Tensor]:
    """Views (cells_l, channels_l, channels_j) into a flat vector, by (l, j)."""
    shapes = block_shapes(levels)
    keys = [(level, j) for level in range(len(levels)) for j in range(level + 1)]
    parts = flat.split([prod(shape) for shape in shapes])
    return {key: part.view(shape) for key, part, shape in zip(keys, parts, shapes, strict=True)}


def check_nested(levels: Sequence[Level]) -> None:
    """Refuse grids of which one is no whole multiple of the one before it."""
    for coarse, fine in pairwise(levels):
        if fine.rows % coarse.rows or fine.columns % coarse.columns:
            raise ValueError(
                f"expected each grid to divide the next finer one, got {coarse.rows} x {coarse.columns} below "
                f"{fine.rows} x {fine.columns}: pad the finer one, or join them on one grid"
            )


def check_maps(maps: Sequence[Tensor], levels: Sequence[Level]) -> None:
    """Refuse maps that do not lie on the levels' grids."""
    expected = [(v.channels, v.rows, v.columns) for v in levels]
    got = [tuple(m.shape[1:]) for m in maps]
    if got != expected:
        raise ValueError(f"expected maps (B, C, H, W) with (C, H, W) = {expected}, coarse to fine, got {got}")


def check_state(gaussian: NestedGaussian) -> None:
    """Refuse a loaded state whose parts do not belong together."""
    levels = gaussian.levels
    if any(min(v) < 1 for v in levels):
        raise ValueError(f"expected grids with at least one row, column and channel in the state, got {levels}")
    check_nested(levels)
    blocks = sum(prod(shape) for shape in block_shapes(levels))
    expected = {"mean": sum(mean_sizes(levels)), "moments": blocks, "whitening": blocks}
    for name, size in expected.items():
        tensor = getattr(gaussian, name)
        if tensor is not None and tensor.shape != (size,):
            raise ValueError(f"expected {name} of shape ({size},) for {levels} in the state, got {tuple(tensor.shape)}")


def factorisation_error(levels: Sequence[Level], level: int, cell: int, eps: float) -> ValueError:
    """Say where a covariance is not positive definite, and what to do."""
    row, column = position(levels, level, cell)
    grid = levels[level]
    return ValueError(
        f"expected positive definite covariances, but that at row {row}, column {column} of the {grid.rows} x "
        f"{grid.columns} grid is not: choose eps above {eps}, fit on more images, or look for non-finite features"
    )
