"""Choose the levels' grids for maps of given sizes, and the index that brings the maps into them."""

from collections.abc import Sequence
from itertools import pairwise
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
    distinct = sorted(set(sizes), key=lambda size: size[0] * size[1])
    padded = padded_sizes(distinct)
    nests = padded is not None and (bool(nested) or equals_nearest(distinct, padded))
    if nested is False or padded is None or not nests:
        everything = list(range(len(sizes)))
        return Grids([everything], [distinct[-1]], distinct[-1], upsample=True)
    groups = [[number for number, own in enumerate(sizes) if own == size] for size in distinct]
    return Grids(groups, padded, distinct[-1], upsample=False)


def padded_sizes(sizes: Sequence[Size]) -> list[Size] | None:
    """Grids of at least these sizes, coarse to fine, each a whole multiple of the one before; None if they cross."""
    rows, columns = sizes[0]
    grids = [sizes[0]]
    for (coarse_rows, coarse_columns), (fine_rows, fine_columns) in pairwise(sizes):
        if fine_rows < coarse_rows or fine_columns < coarse_columns:
            return None
        rows *= -(-fine_rows // coarse_rows)
        columns *= -(-fine_columns // coarse_columns)
        grids.append((rows, columns))
    return grids


def equals_nearest(sizes: Sequence[Size], grids: Sequence[Size]) -> bool:
    """Whether each cell of the finest map has, on every coarser one, the ancestor that nearest upsampling gives it."""
    for size, grid in zip(sizes, grids, strict=True):
        for axis in (0, 1):
            fine = sizes[-1][axis]
            ratio = grids[-1][axis] // grid[axis]
            ancestors = torch.arange(fine) // ratio
            if not torch.equal(nearest_index(size[axis], fine), ancestors):
                return False
    return True


def nearest_index(size: int, out_size: int) -> Tensor:
    """Source of each of `out_size` values in `F.interpolate(mode="nearest")` from `size` values."""
    source = torch.arange(size, dtype=torch.float64)
    return F.interpolate(source[None, None], size=out_size, mode="nearest")[0, 0].long()


def source_index(sizes: Sequence[Size], counts: Sequence[int], grids: Grids, levels: Sequence[Level]) -> Tensor:
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
    for number, (group, size) in enumerate(zip(grids.groups, grids.sizes, strict=True)):
        fitted = [fit_to_grid(numbered[k], size, grids.upsample) for k in group]
        level = torch.cat(fitted, 1)  # (1, C, rows, columns)
        trees.append(to_tree(level, levels, number).flatten())
    return torch.cat(trees).long()


def target_index(levels: Sequence[Level], finest: Size) -> Tensor:
    """Where in tree order each position of the finest map lies, row by row; padding is left out."""
    last = len(levels) - 1
    numbers = torch.arange(levels[last].cells, dtype=torch.float64)[:, None]
    rows, columns = finest
    return from_tree(numbers, levels, last)[0, :rows, :columns].flatten().long()


def fit_to_grid(values: Tensor, size: Size, upsample: bool) -> Tensor:
    """Bring a map to the size of its level."""
    rows, columns = values.shape[2:]
    if (rows, columns) == size:
        return values
    if values.numel() == 0:  # no channel of this map is kept
        return values.new_empty(1, 0, *size)
    if upsample:
        return F.interpolate(values, size=size, mode="nearest")
    return F.pad(values, (0, size[1] - columns, 0, size[0] - rows), mode="replicate")
