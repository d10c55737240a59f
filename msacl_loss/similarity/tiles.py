"""Views sorted by class, and the tiles of their symmetric similarity matrix.

Sorted by class, kappa is constant on a few blocks of a tile. With the two views of an image adjacent, what a row must
not see (itself and its positive) lies in 2 x 2 blocks on the diagonal.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

TILE_CPU = 512  # rows and columns: 1 MiB of float32 stays in a processor's cache
TILE_ACCELERATOR = 2048


class SortedViews(NamedTuple):
    """Unit vectors ordered by class: the B own pairs first, then the M others (of other processes)."""

    vectors: Tensor  # (2B + M, D)
    labels: Tensor  # (2B + M,)
    own_order: Tensor  # (B,)
    other_order: Tensor  # (M,)

    @property
    def num_own(self) -> int:
        """Number of own rows, 2B."""
        return 2 * len(self.own_order)


class Chunk(NamedTuple):
    """A run of sorted views, and the part of it each class takes (None where to read that is a host sync)."""

    span: slice
    classes: dict[int, slice] | None

    @property
    def size(self) -> int:
        """Number of views."""
        return int(self.span.stop - self.span.start)


class Tile(NamedTuple):
    """A rectangle of the similarity matrix."""

    rows: Chunk
    columns: Chunk

    @property
    def size(self) -> int:
        """Number of entries."""
        return self.rows.size * self.columns.size

    @property
    def on_diagonal(self) -> bool:
        """Whether the tile holds pairs of a point with itself."""
        return self.rows.span == self.columns.span


def sort_views(
    pairs: Tensor,
    labels: Tensor,
    others: Tensor,
    other_labels: Tensor,
) -> SortedViews:
    """Order own pairs (B, 2, D) and others (M, D) by class."""
    own_order = labels.argsort()
    other_order = other_labels.argsort()
    vectors = pairs[own_order].flatten(0, 1)  # (2B, D)
    ordered_labels = labels[own_order].repeat_interleave(2)
    if len(others):
        vectors = torch.cat((vectors, others[other_order]))
        ordered_labels = torch.cat((ordered_labels, other_labels[other_order]))
    return SortedViews(vectors, ordered_labels, own_order, other_order)


def upper_tiles(views: SortedViews) -> Iterator[Tile]:
    """Tiles that hold each pair of own rows once (twice on the diagonal) and each own row with each other."""
    size = TILE_CPU if views.labels.device.type == "cpu" else TILE_ACCELERATOR
    rows = chunks(views.labels, slice(0, views.num_own), size)
    behind_own = slice(views.num_own, len(views.labels))
    others = chunks(views.labels, behind_own, size)
    for index, row in enumerate(rows):
        halves = chunks(views.labels, row.span, size // 2)  # less below the diagonal is computed in vain
        for i, half in enumerate(halves):
            yield from (Tile(half, column) for column in halves[i:])
        yield from (Tile(row, column) for column in rows[index + 1 :] + others)


def chunks(labels: Tensor, span: slice, size: int) -> list[Chunk]:
    """Cut sorted views into runs of even length, at most `size`, as equal as they can be."""
    # Whole images stay together, so edges are counted in images; the count of runs is rounded up.
    num_views = span.stop - span.start
    num_images = num_views // 2
    count = -(-num_views // max(size, 2))
    edges = [span.start + num_images * i // count * 2 for i in range(count)]
    edges.append(span.stop)
    spans = [slice(start, end) for start, end in pairwise(edges)]
    return [Chunk(span, class_runs(labels[span])) for span in spans]


def class_runs(ordered_labels: Tensor) -> dict[int, slice] | None:
    """Where each class lies in ordered labels."""
    if ordered_labels.device.type != "cpu":
        return None
    changes = ordered_labels.diff().nonzero().flatten() + 1
    edges = [0, *changes.tolist(), len(ordered_labels)]
    runs = {}
    for start, end in pairwise(edges):
        label = int(ordered_labels[start])
        runs[label] = slice(start, end)
    return runs


def scale_same_class(values: Tensor, tile: Tile, views: SortedViews, factor: float) -> None:
    """Multiply those entries of a tile, in place, whose row and column are of one class."""
    if tile.rows.classes is None or tile.columns.classes is None:
        of_rows = views.labels[tile.rows.span]
        of_columns = views.labels[tile.columns.span]
        same = of_rows[:, None] == of_columns
        values.mul_(torch.where(same, values.new_full((), factor), 1.0))
        return
    for label in tile.rows.classes.keys() & tile.columns.classes.keys():
        rows = tile.rows.classes[label]
        columns = tile.columns.classes[label]
        values[rows, columns].mul_(factor)


def fill_own_image(values: Tensor, tile: Tile, value: float) -> None:
    """Overwrite, in place, the entries of a diagonal tile whose row and column are views of one image."""
    if tile.on_diagonal:
        images = len(values) // 2
        by_image = values.view(images, 2, images, 2)
        by_image.diagonal(dim1=0, dim2=2).fill_(value)
