"""Tiles: each pair of views once, and the runs of a class in them."""

import pytest
import torch

from msacl_loss.similarity import tiles
from msacl_loss.similarity.tiles import Chunk, chunks, class_runs, sort_views, upper_tiles


def test_runs_of_classes() -> None:
    runs = class_runs(torch.tensor([0, 0, 0, 2, 2, 5]))
    assert runs == {0: slice(0, 3), 2: slice(3, 5), 5: slice(5, 6)}
    assert class_runs(torch.empty(4, dtype=torch.int64, device="meta")) is None  # reading them would wait


@pytest.mark.parametrize(
    ("start", "stop", "size"), [(0, 8, 8), (0, 10, 8), (4, 18, 6), (0, 2, 8), (0, 0, 8), (0, 12, 1)]
)
def test_chunks_are_even_and_equal(start: int, stop: int, size: int) -> None:
    labels = torch.zeros(stop, dtype=torch.int64)
    found = chunks(labels, slice(start, stop), size)
    assert [place for chunk in found for place in range(chunk.span.start, chunk.span.stop)] == list(range(start, stop))
    sizes = [chunk.size for chunk in found]
    assert all(number % 2 == 0 for number in sizes)
    assert max(sizes, default=0) - min(sizes, default=0) <= 2
    assert len(found) == -(-(stop - start) // max(size, 2))


@pytest.mark.parametrize(("images", "others"), [(1, 0), (3, 0), (7, 0), (7, 4), (5, 9)])
def test_tiles_hold_every_pair_once(images: int, others: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """And both orders of a pair in the tiles on the diagonal."""
    monkeypatch.setattr(tiles, "TILE_CPU", 4)
    labels, other_labels = torch.arange(images) % 3, torch.arange(others) % 2
    views = sort_views(torch.rand(images, 2, 2), labels, torch.rand(others, 2), other_labels)
    assert views.num_own == 2 * images
    assert views.labels.tolist() == sorted([*labels.tolist(), *labels.tolist()]) + sorted(other_labels.tolist())
    count = torch.zeros(len(views.labels), len(views.labels))
    for tile in upper_tiles(views):
        assert tile.size == tile.rows.size * tile.columns.size
        assert tile.on_diagonal == (tile.rows == tile.columns)
        assert tile.rows.span.start <= tile.columns.span.start
        count[tile.rows.span, tile.columns.span] += 1
        if not tile.on_diagonal:
            count[tile.columns.span, tile.rows.span] += 1
    own = views.num_own
    assert (count[:own] == 1).all()
    assert (count[own:, own:] == 0).all()


def test_tiles_on_the_diagonal_are_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies below the diagonal is computed in vain: the smaller they are, the less."""
    monkeypatch.setattr(tiles, "TILE_CPU", 8)
    rows = torch.rand(8, 2, 1)
    labels = torch.zeros(8, dtype=torch.int64)
    found = [
        (tile.rows.span.start, tile.rows.size, tile.columns.size)
        for tile in upper_tiles(sort_views(rows, labels, rows[:0, 0], labels[:0]))
    ]
    assert found == [(0, 4, 4), (0, 4, 4), (4, 4, 4), (0, 8, 8), (8, 4, 4), (8, 4, 4), (12, 4, 4)]


def test_accelerators_get_larger_tiles() -> None:
    rows = torch.empty(2049, 2, 1, device="meta")
    labels = torch.empty(2049, dtype=torch.int64, device="meta")
    views = sort_views(rows, labels, rows[:0, 0], labels[:0])
    sizes = {tile.columns.size for tile in upper_tiles(views) if tile.rows.size > 1024}
    assert sizes == {1366}  # 4098 rows in three chunks: two would be of 2049
    assert Chunk(slice(2, 7), None).size == 5
