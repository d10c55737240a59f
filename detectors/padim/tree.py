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
    if values.is_contiguous():
        # Two copies, but both along long rows: twice as fast as one.
        images_last = values.flatten(1).t().contiguous()  # (C rows columns, B)
        images_last = images_last.view(channels, rows, columns, batch)
        values = images_last.permute(3, 0, 1, 2)
    split = values.reshape(batch, channels, *row_factors, *column_factors)
    # Coarsest first: the row within a parent, then the column.
    order: list[int] = []
    for axis in range(2, 2 + depth):
        order += [axis, axis + depth]
    ordered = split.permute(*order, 1, 0)
    cells = ordered.reshape(rows * columns, channels, batch)
    return cells.contiguous()


def from_tree(values: Tensor, levels: Sequence[Level], level: int) -> Tensor:
    """Bring (cells in tree order, B) of a level to (B, rows, columns)."""
    row_factors, column_factors = factors(levels, level)
    shape: list[int] = []
    for pair in zip(row_factors, column_factors, strict=True):
        shape += pair
    split = values.reshape(*shape, -1)
    # Rows of all levels stand at the even axes, columns at the odd ones.
    images = len(shape)
    row_axes = range(0, images, 2)
    column_axes = range(1, images, 2)
    ordered = split.permute([images, *row_axes, *column_axes])
    rows = prod(row_factors)
    columns = prod(column_factors)
    return ordered.reshape(-1, rows, columns)


def factors(levels: Sequence[Level], level: int) -> tuple[list[int], list[int]]:
    """Rows of the coarsest grid and the ratios down to the level; the same for columns."""
    rows = [levels[0].rows]
    columns = [levels[0].columns]
    for parent, child in pairwise(levels[: level + 1]):
        row_ratio = child.rows // parent.rows
        column_ratio = child.columns // parent.columns
        rows.append(row_ratio)
        columns.append(column_ratio)
    return rows, columns


def position(levels: Sequence[Level], level: int, cell: int) -> tuple[int, int]:
    """Row and column of a cell given by its place in tree order."""
    grid = levels[level]
    numbers = torch.arange(grid.cells)
    numbers = numbers.reshape(1, 1, grid.rows, grid.columns)
    tree = to_tree(numbers, levels, level)
    order = tree.flatten()
    number = int(order[cell])
    return divmod(number, grid.columns)


def grouped(block: Tensor, ancestors: int) -> Tensor:
    """View (cells, rows, columns) as (ancestors, cells / ancestors * rows, columns)."""
    cells, rows, columns = block.shape
    per_ancestor = cells // ancestors
    return block.view(ancestors, per_ancestor * rows, columns)


def mean_sizes(levels: Sequence[Level]) -> list[int]:
    """Numbers of each level's cells times channels."""
    return [level.cells * level.channels for level in levels]


def block_shapes(levels: Sequence[Level]) -> list[tuple[int, int, int]]:
    """Shapes (cells_l, channels_l, channels_j) for each level l and each j <= l."""
    shapes = []
    for level, own in enumerate(levels):
        for coarser in levels[: level + 1]:
            shape = (own.cells, own.channels, coarser.channels)
            shapes.append(shape)
    return shapes


def mean_size(levels: Sequence[Level]) -> int:
    """Length of the flat mean."""
    return sum(mean_sizes(levels))


def moments_size(levels: Sequence[Level]) -> int:
    """Length of the flat moments."""
    sizes = [prod(shape) for shape in block_shapes(levels)]
    return sum(sizes)


def split_mean(flat: Tensor, levels: Sequence[Level]) -> list[Tensor]:
    """Views (cells, channels) of each level into a flat vector."""
    parts = torch.split(flat, mean_sizes(levels))
    pairs = zip(parts, levels, strict=True)
    return [part.view(level.cells, level.channels) for part, level in pairs]


def split_columns(flat: Tensor, levels: Sequence[Level]) -> list[Tensor]:
    """Views (cells, channels, B) of each level into (all cells' channels, B)."""
    parts = torch.split(flat, mean_sizes(levels))
    pairs = zip(parts, levels, strict=True)
    images = flat.shape[1]
    return [part.view(level.cells, level.channels, images) for part, level in pairs]


def split_blocks(flat: Tensor, levels: Sequence[Level]) -> dict[tuple[int, int], Tensor]:
    """Views (cells_l, channels_l, channels_j) into a flat vector, by (l, j)."""
    shapes = block_shapes(levels)
    sizes = [prod(shape) for shape in shapes]
    parts = iter(torch.split(flat, sizes))
    blocks = {}
    for level, own in enumerate(levels):
        for j, coarser in enumerate(levels[: level + 1]):
            part = next(parts)
            blocks[level, j] = part.view(own.cells, own.channels, coarser.channels)
    return blocks


def check_nested(levels: Sequence[Level]) -> None:
    """Refuse grids of which one is no whole multiple of the one before it."""
    for coarse, fine in pairwise(levels):
        row_rest = fine.rows % coarse.rows
        column_rest = fine.columns % coarse.columns
        if row_rest or column_rest:
            raise ValueError(
                f"expected each grid to divide the next finer one, got {coarse.rows} x {coarse.columns} below "
                f"{fine.rows} x {fine.columns}: pad the finer one, or join them on one grid"
            )
