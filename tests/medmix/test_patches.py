"""Neighbouring patches and their position."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from medmix import (
    NeighbourPatches,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(st.integers(2, 16), st.integers(0, 30), st.integers(0, 99))
def test_neighbours_lie_where_the_label_says(side, extra, seed) -> None:
    """On an image that holds its own coordinates, the offset of the patches can be read off."""
    size = 2 * side + extra
    axis = torch.arange(size) / size
    rows, columns = torch.meshgrid(axis, axis, indexing="ij")
    x = torch.stack([rows, columns]).expand(6, 2, size, size)
    first, second, position = NeighbourPatches(side)(x, generator=generator(seed))
    offset = ((second - first)[:, :, 0, 0] * size).round().long()
    cell = position + (position >= 4)
    direction = torch.stack([cell // 3 - 1, cell % 3 - 1], dim=1)
    assert torch.equal(offset.sign(), direction)
    distance = offset.abs()[direction != 0]
    assert (distance >= 3 * side // 4).all()
    assert (distance <= side).all()


def test_repr_tells_the_patch_size() -> None:
    assert repr(NeighbourPatches(8)) == "NeighbourPatches(patch_size=8)"
