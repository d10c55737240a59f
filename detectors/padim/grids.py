"""How a backbone's maps become nested grids: which layers share a grid, what is padded, what is joined."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from detectors.padim.tree import Level, from_tree, to_tree

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
        shapes: (C, rows, columns) of each map.
    """

    groups: list[list[int]]
    sizes: list[Size]
    size: Size
    starts: list[int]
    counts: list[int]
    upsample: bool
    shapes: list[Shape]

    @property
    def levels(self) -> list[Level]:
        """The grids with their numbers of selected channels, coarse to fine."""
        counts = (sum(self.counts[k] for k in group) for group in self.groups)
        return [Level(*size, count) for size, count in zip(self.sizes, counts, strict=True)]

    def flatten(self, maps: Sequence[Tensor]) -> Tensor:
        """Lay all maps (B, C, rows, columns) side by side: (B, number of values), what `tree_sources` counts."""
        got = [tuple(m.shape[1:]) for m in maps]
        if got != self.shapes:
            raise ValueError(f"expected maps (C, rows, columns) = {self.shapes} from the backbone as in fit, got {got}")
        return torch.cat([m.flatten(1) for m in maps], 1)

    def tree_sources(self, channels: Tensor) -> Tensor:
        """Where in `flatten` each value of the levels comes from, all levels after each other in tree order.

        Selecting, repeating, padding and ordering are all copies, so that one index does them at once.
        """
        maps = []
        first = 0
        for selected, (count, rows, columns) in zip(self.own_channels(channels.cpu()), self.shapes, strict=True):
            numbers = first + selected[:, None] * (rows * columns) + torch.arange(rows * columns)
            maps.append(numbers.double().view(1, -1, rows, columns))  # exact up to 2^53
            first += count * rows * columns
        trees = (to_tree(level, self.levels, k) for k, level in enumerate(self.arrange(maps)))
        return torch.cat([tree.flatten() for tree in trees]).long()

    def tree_places(self) -> Tensor:
        """Where in tree order each position of the finest map lies, row by row; padding is left out."""
        last = len(self.levels) - 1
        numbers = torch.arange(self.levels[last].cells, dtype=torch.float64)[:, None]
        rows, columns = self.size
        return from_tree(numbers, self.levels, last)[0, :rows, :columns].flatten().long()

    def levels_of(self, maps: Sequence[Tensor], channels: Tensor) -> list[Tensor]:
        """Select channels and join the maps of each level: (B, c, rows, columns), coarse to fine."""
        own = self.own_channels(channels)
        return self.arrange([m.index_select(1, selected) for m, selected in zip(maps, own, strict=True)])

    def own_channels(self, channels: Tensor) -> list[Tensor]:
        """The selected channels of each map, counted from its first one."""
        return [part - start for part, start in zip(torch.split(channels, self.counts), self.starts, strict=True)]

    def arrange(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Join the maps of each level, selected channels only: (B, c, rows, columns), coarse to fine."""
        return [
            torch.cat([self.fit(maps[k], size) for k in group], 1)
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

    Raises:
        ValueError: If the maps have no such channels.
    """
    total = sum(c for c, _, _ in shapes)
    if not 0 <= int(channels.min()) <= int(channels.max()) < total:
        raise ValueError(f"expected channels in [0, {total}) in the state, got {channels.tolist()}")
    ends = torch.tensor([c for c, _, _ in shapes]).cumsum(0)
    counts = torch.bucketize(channels.cpu(), ends, right=True).bincount(minlength=len(shapes)).tolist()
    starts = [0, *ends.tolist()[:-1]]
    own = [(rows, columns) for _, rows, columns in shapes]
    distinct = sorted(set(own), key=lambda size: size[0] * size[1])
    sizes = padded(distinct)
    if nested is False or sizes is None or not (nested or equals_nearest(distinct, sizes)):
        return GridPlan([list(range(len(own)))], [distinct[-1]], distinct[-1], starts, counts, True, list(shapes))
    groups = [[k for k, size in enumerate(own) if size == level] for level in distinct]
    return GridPlan(groups, sizes, distinct[-1], starts, counts, False, list(shapes))


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
