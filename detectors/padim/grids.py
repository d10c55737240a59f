"""Choose the levels' grids for maps of given sizes, and the index that brings the maps into them."""

from collections.abc import Sequence
from itertools import pairwise
from math import ceil, prod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from detectors.padim.tree import Level, from_tree, to_tree

Size = tuple[int, int]


class Grids(NamedTuple):
    """The levels of some maps, coarse to fine."""

    groups: list[list[int]]  # numbers of the maps of each level
    sizes: list[Size]  # rows and columns of each level, after padding
    finest: Size  # rows and columns of the finest map, before padding
    upsample: bool  # smaller maps are repeated by nearest neighbour; else padded at their lower right border


def choose_grids(sizes: Sequence[Size], nested: bool | None) -> Grids:
    """Group maps of these sizes into levels.

    Args:
        sizes: Rows and columns of each map.
        nested: None nests where that equals nearest upsampling; True nests wherever it is possible, False nowhere.
    """
    distinct = sorted(set(sizes), key=prod)
    finest = distinct[-1]
    padded = padded_sizes(distinct)
    if nested is None:
        nested = padded is not None and equals_nearest(distinct, padded)
    if padded is None or not nested:
        everything = list(range(len(sizes)))
        return Grids([everything], [finest], finest, upsample=True)
    groups: dict[Size, list[int]] = {size: [] for size in distinct}
    for number, size in enumerate(sizes):
        groups[size].append(number)
    return Grids(list(groups.values()), padded, finest, upsample=False)


def padded_sizes(sizes: Sequence[Size]) -> list[Size] | None:
    """Grids of at least these sizes, coarse to fine, each a whole multiple of the one before; None if they cross."""
    rows, columns = sizes[0]
    grids = [(rows, columns)]
    for coarse, fine in pairwise(sizes):
        row_ratio = fine[0] / coarse[0]
        column_ratio = fine[1] / coarse[1]
        if min(row_ratio, column_ratio) < 1:
            return None
        rows *= ceil(row_ratio)
        columns *= ceil(column_ratio)
        grids.append((rows, columns))
    return grids


def equals_nearest(sizes: Sequence[Size], grids: Sequence[Size]) -> bool:
    """Whether each cell of the finest map has, on every coarser one, the ancestor that nearest upsampling gives it."""
    finest_size = sizes[-1]
    finest_grid = grids[-1]
    for size, grid in zip(sizes, grids, strict=True):
        for axis in (0, 1):
            fine = finest_size[axis]
            ratio = finest_grid[axis] // grid[axis]
            ancestors = torch.arange(fine) // ratio
            nearest = nearest_index(size[axis], fine)
            if not torch.equal(nearest, ancestors):
                return False
    return True


def nearest_index(size: int, out_size: int) -> Tensor:
    """Source of each of `out_size` values in `F.interpolate(mode="nearest")` from `size` values."""
    source = torch.arange(size, dtype=torch.float64)
    signal = source.view(1, 1, size)  # one image of one channel
    nearest = F.interpolate(signal, size=out_size, mode="nearest")
    return nearest.flatten().long()


def source_index(
    sizes: Sequence[Size],
    counts: Sequence[int],
    grids: Grids,
    levels: Sequence[Level],
) -> Tensor:
    """Where, in all maps laid side by side, each value of the levels comes from, level by level in tree order.

    Args:
        sizes: Rows and columns of each map.
        counts: Kept channels of each map.
        grids: Where each map goes.
        levels: The grids with their numbers of channels.
    """
    # What happens to the values' numbers is the index of what is to happen to the values.
    numbered = []
    first = 0
    for count, (rows, columns) in zip(counts, sizes, strict=True):
        end = first + count * rows * columns
        numbers = torch.arange(first, end, dtype=torch.float64)  # exact up to 2^53
        numbered.append(numbers.view(1, count, rows, columns))
        first = end
    trees = []
    for number, group in enumerate(grids.groups):
        size = grids.sizes[number]
        own = [numbered[k] for k in group]
        fitted = [fit_to_grid(one, size, grids.upsample) for one in own]
        level = torch.cat(fitted, 1)  # (1, C, rows, columns)
        tree = to_tree(level, levels, number)
        trees.append(tree.flatten())
    return torch.cat(trees).long()


def target_index(levels: Sequence[Level], finest: Size) -> Tensor:
    """Where in tree order each position of the finest map lies, row by row; padding is left out."""
    last = len(levels) - 1
    cells = levels[last].cells
    numbers = torch.arange(cells, dtype=torch.float64)
    grid = from_tree(numbers.view(cells, 1), levels, last)  # (1, rows, columns), padding included
    rows, columns = finest
    index = grid[0, :rows, :columns]
    return index.flatten().long()


def fit_to_grid(values: Tensor, size: Size, upsample: bool) -> Tensor:
    """Bring a map to the size of its level."""
    rows, columns = values.shape[2:]
    if (rows, columns) == size:
        return values
    if values.numel() == 0:  # no channel of this map is kept
        return values.new_empty(1, 0, *size)
    if upsample:
        return F.interpolate(values, size=size, mode="nearest")
    below = size[0] - rows
    right = size[1] - columns
    return F.pad(values, (0, right, 0, below), mode="replicate")
