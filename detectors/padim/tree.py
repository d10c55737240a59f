"""Tree order: the cells of nested grids laid out so that all cells below a coarser one are contiguous.

Level 0 is the coarsest grid. Cell (y, x) of a level with ratios (r, s) has the parent (y // r, x // s). In tree order
the cells of level l, viewed as (cells of level j, rest), are grouped by their ancestors of level j at no cost.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor


class Level(NamedTuple):
    """One grid and the number of its channels."""

    rows: int
    columns: int
    channels: int

    @property
    def cells(self) -> int:
        """Number of positions."""
        return self.rows * self.columns


def to_tree(values: Tensor, levels: Sequence[Level], level: int) -> Tensor:
    """Bring maps (B, C, rows, columns) of a level to (cells in tree order, C, B)."""
    batch, channels, rows, columns = values.shape
    row_factors, column_factors = factors(levels, level)
    depth = len(row_factors)
    if values.is_contiguous():  # two copies, but both along long rows: twice as fast as one
        values = values.flatten(1).t().contiguous().view(channels, rows, columns, batch).permute(3, 0, 1, 2)
    split = values.reshape(batch, channels, *row_factors, *column_factors)
    order = [axis for k in range(depth) for axis in (2 + k, 2 + depth + k)]
    return split.permute(*order, 1, 0).reshape(rows * columns, channels, batch).contiguous()


def from_tree(values: Tensor, levels: Sequence[Level], level: int) -> Tensor:
    """Bring (cells in tree order, B) of a level to (B, rows, columns)."""
    row_factors, column_factors = factors(levels, level)
    depth = len(row_factors)
    split = values.reshape(*(f for pair in zip(row_factors, column_factors, strict=True) for f in pair), -1)
    order = [2 * depth, *range(0, 2 * depth, 2), *range(1, 2 * depth, 2)]
    return split.permute(order).reshape(-1, prod(row_factors), prod(column_factors))


def factors(levels: Sequence[Level], level: int) -> tuple[list[int], list[int]]:
    """Rows of the coarsest grid and the ratios down to the level; the same for columns."""
    rows, columns = [levels[0].rows], [levels[0].columns]
    for parent, child in pairwise(levels[: level + 1]):
        rows.append(child.rows // parent.rows)
        columns.append(child.columns // parent.columns)
    return rows, columns


def position(levels: Sequence[Level], level: int, cell: int) -> tuple[int, int]:
    """Row and column of a cell given by its place in tree order."""
    grid = levels[level]
    order = to_tree(torch.arange(grid.cells).reshape(1, 1, grid.rows, grid.columns), levels, level).reshape(-1)
    return divmod(int(order[cell]), grid.columns)


def grouped(block: Tensor, ancestors: int) -> Tensor:
    """View (cells, rows, columns) as (ancestors, cells / ancestors * rows, columns)."""
    return block.view(ancestors, len(block) // ancestors * block.shape[1], block.shape[2])


def mean_sizes(levels: Sequence[Level]) -> list[int]:
    """Numbers of each level's cells times channels."""
    return [v.cells * v.channels for v in levels]


def block_shapes(levels: Sequence[Level]) -> list[tuple[int, int, int]]:
    """Shapes (cells_l, channels_l, channels_j) for each level l and each j <= l."""
    return [(v.cells, v.channels, w.channels) for level, v in enumerate(levels) for w in levels[: level + 1]]


def split_mean(flat: Tensor, levels: Sequence[Level]) -> list[Tensor]:
    """Views (cells, channels) of each level into a flat vector."""
    parts = torch.split(flat, mean_sizes(levels))
    return [part.view(v.cells, v.channels) for part, v in zip(parts, levels, strict=True)]


def split_columns(flat: Tensor, levels: Sequence[Level]) -> list[Tensor]:
    """Views (cells, channels, B) of each level into (all cells' channels, B)."""
    parts = torch.split(flat, mean_sizes(levels))
    return [part.view(v.cells, v.channels, flat.shape[1]) for part, v in zip(parts, levels, strict=True)]


def split_blocks(flat: Tensor, levels: Sequence[Level]) -> dict[tuple[int, int], Tensor]:
    """Views (cells_l, channels_l, channels_j) into a flat vector, by (l, j)."""
    shapes = block_shapes(levels)
    keys = [(level, j) for level in range(len(levels)) for j in range(level + 1)]
    parts = torch.split(flat, [prod(shape) for shape in shapes])
    return {key: part.view(shape) for key, part, shape in zip(keys, parts, shapes, strict=True)}


def check_nested(levels: Sequence[Level]) -> None:
    """Refuse grids of which one is no whole multiple of the one before it."""
    for coarse, fine in pairwise(levels):
        if fine.rows % coarse.rows or fine.columns % coarse.columns:
            raise ValueError(
                f"expected each grid to divide the next finer one, got {coarse.rows} x {coarse.columns} below "
                f"{fine.rows} x {fine.columns}: pad the finer one, or join them on one grid"
            )
