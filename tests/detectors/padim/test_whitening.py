"""Chunks of the factorisation."""

import pytest
import torch
from torch import Tensor

from detectors.padim import whitening
from detectors.padim.tree import Level, moments_size

LEVELS = [Level(2, 3, 2), Level(4, 6, 3)]


@pytest.mark.parametrize(
    ("levels", "roots"),
    [
        ([Level(9, 9, 1)], 1_000_000),
        ([Level(2, 2, 0)], 1_000_000),
        ([Level(10, 10, 2), Level(20, 20, 3)], 1_000_000 // (4 * 3 * 5)),
        ([Level(1, 1, 2000)], 1),
    ],
)
def test_a_chunk_holds_a_million_numbers_and_a_root_at_least(levels: list[Level], roots: int) -> None:
    assert whitening._roots_at_once(levels) == roots


@pytest.mark.parametrize(("elements", "most"), [(1, 1), (4 * 3 * 5 * 2, 2), (4 * 3 * 5 * 4, 4), (10**6, 6)])
def test_chunks_change_nothing(elements: int, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    moments = torch.zeros(moments_size(LEVELS))
    whole = whitening.factorise(moments, 2.0, 0.25, LEVELS)
    sizes = []
    rows = whitening.whitening_rows

    def recorded(covariances: list[Tensor], weights: list[list[Tensor]]) -> tuple[list[Tensor], Tensor]:
        sizes.append(len(covariances[-1]))
        return rows(covariances, weights)

    monkeypatch.setattr(whitening, "CHUNK_ELEMENTS", elements)
    monkeypatch.setattr(whitening, "whitening_rows", recorded)
    assert torch.equal(whitening.factorise(moments, 2.0, 0.25, LEVELS), whole)
    assert max(sizes) == 4 * most
    assert sum(sizes) == 6 + 24  # every cell of both levels once
    assert whole.unique().tolist() == [0.0, 2.0]  # eps alone: a standard deviation of 1/2
