"""How a backbone's maps become nested grids: which layers share a grid, what is padded, what is joined."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Size = tuple[int, int]
Shape = tuple[int, int, int]


class GridPlan(NamedTuple):
    """What becomes of each map.

    Attributes:
        groups: Numbers of the maps of each level, coarse to fine.
        sizes: Rows and columns of each level's grid, after padding.
        size: Rows and columns of the finest map.
        starts: First channel of each map, counted through all maps.
        counts: Selected channels of each map.
        upsample: Whether smaller maps are repeated by nearest neighbour, or padded at their lower right border.
    """

    groups: list[list[int]]
    sizes: list[Size]
    size: Size
    starts: list[int]
    counts: list[int]
    upsample: bool

    def levels_of(self, maps: Sequence[Tensor], channels: Tensor) -> list[Tensor]:
        """Select channels and join the maps of each level: (B, c, rows, columns), coarse to fine."""
        own = [part - start for part, start in zip(torch.split(channels, self.counts), self.starts, strict=True)]
        return [
            torch.cat([self.fit(maps[k].index_select(1, own[k]), size) for k in group], 1)
            for group, size in zip(self.groups, self.sizes, strict=True)
        ]

    def fit(self, values: Tensor, size: Size) -> Tensor:
        """Bring a map to the size of its level."""
        rows, columns = values.shape[2:]
        if (rows, columns) == size:
            return values
        if self.upsample:
            return F.interpolate(values, size=size, mode="nearest")
        return F.pad(values, (0, size[1] - columns, 0, size[0] - rows), mode="replicate")


def plan_grids(shapes: Sequence[Shape], channels: Tensor, nested: bool | None) -> GridPlan:
    """Plan for maps of these shapes (C, rows, columns) and these selected channels, sorted.

    Args:
        shapes: Of each map, in the order in which channels are counted.
        channels: Selected channels, counted through all maps, ascending.
        nested: None nests where that equals nearest upsampling; True nests wherever it is possible, False nowhere.
    """
    ends = torch.tensor([c for c, _, _ in shapes]).cumsum(0)
    counts = torch.bucketize(channels.cpu(), ends, right=True).bincount(minlength=len(shapes)).tolist()
    starts = [0, *ends.tolist()[:-1]]
    own = [(rows, columns) for _, rows, columns in shapes]
    distinct = sorted(set(own), key=lambda size: size[0] * size[1])
    sizes = padded(distinct)
    if nested is False or sizes is None or not (nested or equals_nearest(distinct, sizes)):
        return GridPlan([list(range(len(own)))], [distinct[-1]], distinct[-1], starts, counts, upsample=True)
    groups = [[k for k, size in enumerate(own) if size == level] for level in distinct]
    return GridPlan(groups, sizes, distinct[-1], starts, counts, upsample=False)


def padded(sizes: list[Size]) -> list[Size] | None:
    """Grids of at least these sizes, coarse to fine, each a whole multiple of the one before; None if they cross."""
    rows, columns = sizes[0]
    grids = [sizes[0]]
    for (coarse_rows, coarse_columns), (fine_rows, fine_columns) in pairwise(sizes):
        if fine_rows < coarse_rows or fine_columns < coarse_columns:
            return None
        rows, columns = rows * -(-fine_rows // coarse_rows), columns * -(-fine_columns // coarse_columns)
        grids.append((rows, columns))
    return grids


def equals_nearest(sizes: list[Size], grids: list[Size]) -> bool:
    """Whether each cell of the finest map has, on every coarser one, the ancestor that nearest upsampling gives it."""
    finest, grid = sizes[-1], grids[-1]
    return all(
        bool((nearest_index(size[axis], finest[axis]) == torch.arange(finest[axis]) // (grid[axis] // own[axis])).all())
        for size, own in zip(sizes, grids, strict=True)
        for axis in (0, 1)
    )


def nearest_index(size: int, out_size: int) -> Tensor:
    """Source of each of `out_size` values in `F.interpolate(mode="nearest")` from `size` values."""
    source = torch.arange(size, dtype=torch.float64)
    return F.interpolate(source[None, None], size=out_size, mode="nearest")[0, 0].long()
