"""Tree order: the cells of nested grids laid out so that all cells below a coarser one are contiguous.

Level 0 is the coarsest grid. Cell (y, x) of a level with ratios (r, s) has the parent (y // r, x // s). In tree order
the cells of level l, viewed as (cells of level j, rest), are grouped by their ancestors of level j at no cost.
"""

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


def to_tree(values: Tensor, levels: list[Level], level: int) -> Tensor:
    """View (B, C, rows, columns) of a level as (tree of the level's cells ..., C, B); reshape(-1, C, B) copies."""
    row_factors, column_factors = factors(levels, level)
    split = values.reshape(*values.shape[:2], *row_factors, *column_factors)
    depth = len(row_factors)
    order = [axis for k in range(depth) for axis in (2 + k, 2 + depth + k)]
    return split.permute(*order, 1, 0)


def from_tree(values: Tensor, levels: list[Level], level: int) -> Tensor:
    """Bring (cells in tree order, B) of a level to (B, rows, columns)."""
    row_factors, column_factors = factors(levels, level)
    depth = len(row_factors)
    split = values.reshape(*(f for pair in zip(row_factors, column_factors, strict=True) for f in pair), -1)
    order = [2 * depth, *range(0, 2 * depth, 2), *range(1, 2 * depth, 2)]
    return split.permute(order).reshape(-1, prod(row_factors), prod(column_factors))


def factors(levels: list[Level], level: int) -> tuple[list[int], list[int]]:
    """Rows of the coarsest grid and the ratios down to the level; the same for columns."""
    rows, columns = [levels[0].rows], [levels[0].columns]
    for parent, child in zip(levels[:level], levels[1 : level + 1], strict=True):
        rows.append(child.rows // parent.rows)
        columns.append(child.columns // parent.columns)
    return rows, columns


def position(levels: list[Level], level: int, cell: int) -> tuple[int, int]:
    """Row and column of a cell given by its place in tree order."""
    grid = levels[level]
    order = to_tree(torch.arange(grid.cells).reshape(1, 1, grid.rows, grid.columns), levels, level).reshape(-1)
    return divmod(int(order[cell]), grid.columns)
