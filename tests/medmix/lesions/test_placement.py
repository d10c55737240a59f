"""Places and sizes of lesions, and that the label is their number."""

import numpy as np
import pytest
import scipy.ndimage
import torch
from hypothesis import given
from hypothesis import strategies as st
from medmix_cases import SEEDS, SHAPES, SIZES, generator
from torch import Tensor

from medmix import MedMix


def components(mask: Tensor) -> tuple[int, int]:
    """Numbers of 4-connected and of 8-connected components of a mask (H, W)."""
    array = mask.numpy()
    return scipy.ndimage.label(array)[1], scipy.ndimage.label(array, np.ones((3, 3)))[1]


def test_sizes_are_spread_over_the_range() -> None:
    radius = MedMix(1, size=(0.1, 0.4)).forward_parameters((2000, 1, 100, 100), generator=generator(0))["radius"]
    assert 5 <= radius.min() < 5.2
    assert 19.8 < radius.max() <= 20
    assert abs(radius.mean() - 12.5) < 0.3


def test_sizes_of_one_image_are_independent() -> None:
    """Spread over the batch, not over the image: else the lesions' total area would tell their number."""
    params = MedMix(3, size=(0.05, 0.15)).forward_parameters((3000, 1, 200, 200), generator=generator(0))
    radius = params["radius"]
    assert (torch.corrcoef(radius.T) - torch.eye(3)).abs().max() < 0.06
    for slot in range(3):
        assert (torch.histc(radius[:, slot], 10, 5, 15) - 300).abs().max() <= 12  # the grid's are smaller


@given(
    st.integers(1, 17),
    st.integers(16, 300),
    st.integers(16, 300),
    SIZES,
    SHAPES,
    st.sampled_from([(0, 1, 2, 3), 1, 3, 7, 16]),
    SEEDS,
)
def test_label_is_the_number_of_components(batch, height, width, size, shape, num_lesions, seed) -> None:
    mix = MedMix(num_lesions, size=size, shape=shape, noise=(0, 0), nonlinear=None, color_jitter=(0, 0, 0, 0))
    _, labels, masks = mix(torch.zeros(batch, 1, height, width), generator=generator(seed))
    assert [components(mask[0]) for mask in masks] == [(n, n) for n in labels.tolist()]
    expected = mix.num_lesions if batch % len(mix.num_lesions) == 0 else ()
    assert all((labels == n).sum() == batch // len(expected) for n in expected)


@pytest.mark.parametrize("size", [(1 / 4, 1 / 2.3), (1 / 8, 1 / 4)])
@pytest.mark.parametrize("num_lesions", [2, 3, 5])
def test_a_lesion_lies_anywhere_whatever_its_slot(num_lesions: int, size: tuple[float, float]) -> None:
    """Else the place of one lesion would tell how many there are."""
    batch = 20000
    params = MedMix(num_lesions, size=size).forward_parameters((batch, 1, 64, 64), generator(0))
    half = params["centre"] < 31.5  # (B, K, 2)
    for share in (*half.double().mean(dim=0).T, half.all(dim=2).double().mean(dim=0)):  # (K,) each
        assert (share - share.mean()).abs().max() < 4.5 * 0.5 / batch**0.5
    assert params["radius"].mean(dim=0).std() < 0.02
