"""Lesions that stay inside the anatomy: `foreground=`."""

import scipy.ndimage
import torch
from hypothesis import given
from hypothesis import strategies as st
from medmix_cases import SHAPES, SIZES, generator

from medmix import MedMix


def components(mask: torch.Tensor) -> int:
    """Number of components of a mask (H, W), the same whether corners connect or not."""
    with_corners, without = (scipy.ndimage.label(mask.numpy(), shape)[1] for shape in ([[1] * 3] * 3, None))
    assert with_corners == without
    return with_corners


def square(batch: int, side: int) -> torch.Tensor:
    """A square foreground (B, 1, 48, 48)."""
    foreground = torch.zeros(batch, 1, 48, 48, dtype=torch.bool)
    foreground[:, :, 4 : 4 + side, 4 : 4 + side] = True
    return foreground


@given(st.integers(2, 6), SIZES, SHAPES, st.floats(0.05, 0.5), st.integers(0, 2**31))
def test_lesions_stay_inside_the_foreground(batch, size, shape, radius, seed) -> None:
    """Discs of any size, and an empty foreground in row 0: the label is the true number of lesions."""
    rows, columns = torch.meshgrid(torch.arange(48), torch.arange(40), indexing="ij")
    centre = 12 + 16 * torch.rand(batch, 2, generator=generator(seed))
    distance = (rows - centre[:, :1, None]) ** 2 + (columns - centre[:, 1:, None]) ** 2
    foreground = (distance <= (40 * radius) ** 2)[:, None]
    foreground[0] = False
    mix = MedMix(3, size=size, shape=shape)
    x = torch.rand(batch, 3, 48, 40, generator=generator(seed))
    images, labels, masks = mix(x, generator=generator(seed), foreground=foreground)
    assert not (masks & ~foreground).any()
    assert labels[0] == 0
    assert torch.equal(images[0], x[0])
    assert [components(mask[0]) for mask in masks] == labels.tolist()


def test_a_foreground_with_room_gets_all_lesions() -> None:
    foreground = torch.zeros(32, 1, 128, 128, dtype=torch.bool)
    foreground[:, :, 20:110, 30:120] = True
    labels = MedMix(3, size=(1 / 16, 1 / 8))(torch.rand(32, 3, 128, 128), foreground=foreground).labels
    assert (labels == 3).all()


def test_a_small_foreground_gets_fewer_lesions() -> None:
    seen = set()
    for side in (1, 4, 12, 20, 24):
        x = torch.rand(200, 1, 48, 48)
        _, labels, masks = MedMix(3)(x, generator=generator(0), foreground=square(200, side))
        assert (labels > 0).all()
        assert [components(mask[0]) for mask in masks] == labels.tolist()
        seen.update(labels.tolist())
    assert seen == {1, 2, 3}


def test_fewer_lesions_than_there_is_room_for() -> None:
    """An image gets as many as it was to have, or as fit: an only lesion is not the one that was left out."""
    mix, x = MedMix(), torch.rand(400, 1, 48, 48)
    for side in (4, 12, 16, 20, 24):
        labels = mix(x, generator=generator(side), foreground=square(400, side)).labels
        fitting = (mix._params["radius"] > 0).sum(dim=1)
        assert torch.equal(labels, torch.minimum(mix._params["num_lesions"], fitting))
        assert (fitting > 0).all()


def test_larger_foregrounds_get_more_lesion() -> None:
    areas = []
    for side in (4, 8, 12, 16, 24, 32, 40):
        masks = MedMix(3)(torch.rand(300, 1, 48, 48), generator=generator(0), foreground=square(300, side)).masks
        areas.append(masks.float().sum())
    assert areas == sorted(areas)


def test_lesions_in_a_disc_lie_anywhere_and_are_not_small() -> None:
    axis = torch.arange(64) - 32
    disc = (axis[:, None] ** 2 + axis**2 < 28**2).expand(300, 1, 64, 64)
    params = MedMix(3).forward_parameters((300, 3, 64, 64), generator=generator(0), foreground=disc)
    _, counts = params["centre"].flatten(0, 1).unique(dim=0, return_counts=True)
    assert counts.max() < 20  # of 900
    assert params["radius"].mean() > 64 / 2 * 0.22


def test_two_disjoint_lungs_both_get_lesions() -> None:
    foreground = torch.zeros(64, 1, 64, 64, dtype=torch.bool)
    foreground[:, :, 8:56, 6:28] = True
    foreground[:, :, 8:56, 36:58] = True
    masks = MedMix(2, size=(1 / 16, 1 / 8))(torch.rand(64, 1, 64, 64), foreground=foreground).masks
    assert masks[..., :32].any()
    assert masks[..., 32:].any()
    assert not (masks & ~foreground).any()
