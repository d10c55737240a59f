"""Weak augmentation, views and patches."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from medmix import (
    CutMixClasses,
    MedMix,
    MultiClassViews,
    NeighbourPatches,
    NoiseClasses,
    PermutationClasses,
    RotationClasses,
    WeakAugmentation,
)
from medmix.views import crop_grid

STRONG = (MedMix, PermutationClasses, RotationClasses, CutMixClasses, NoiseClasses)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_crop_grid_is_affine_grid() -> None:
    crop = WeakAugmentation(8, scale=(0.2, 1)).forward_parameters((5, 3, 20, 30), generator())["crop"]
    expected = F.affine_grid(crop, [5, 1, 7, 9], align_corners=False)
    torch.testing.assert_close(crop_grid(crop, (7, 9)), expected)


@given(st.integers(1, 4), st.sampled_from([1, 2, 3, 5]), st.integers(8, 40), st.integers(8, 40), st.integers(0, 99))
def test_weak_views_keep_range_and_replay(batch, channels, height, width, seed) -> None:
    x = torch.rand(batch, channels, height, width, generator=generator(seed))
    weak = WeakAugmentation((12, 10))
    y = weak(x, generator=generator(seed))
    assert y.shape == (batch, channels, 12, 10)
    assert y.min() >= 0
    assert y.max() <= 1
    params = weak.forward_parameters(x.shape, generator=generator(seed))
    assert torch.equal(y, weak(x, params=params))


def test_without_any_change_the_image_stays() -> None:
    x = torch.rand(3, 3, 16, 16)
    weak = WeakAugmentation(16, scale=(1, 1), ratio=(1, 1), flip_p=0, jitter_p=0, grayscale_p=0)
    torch.testing.assert_close(weak(x), x)


def test_flip_alone_is_a_flip() -> None:
    x = torch.rand(3, 3, 16, 16)
    weak = WeakAugmentation(16, scale=(1, 1), ratio=(1, 1), flip_p=1, jitter_p=0, grayscale_p=0)
    torch.testing.assert_close(weak(x), x.flip(3))


def test_weak_views_are_the_same_under_autocast() -> None:
    x = torch.rand(8, 3, 16, 16)
    expected = WeakAugmentation(16)(x, generator=generator())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(WeakAugmentation(16)(x, generator=generator()), expected)


def test_grayscale_is_grey_in_all_channels() -> None:
    y = WeakAugmentation(16, grayscale_p=1)(torch.rand(3, 3, 16, 16))
    torch.testing.assert_close(y[:, 0], y[:, 1])


@pytest.mark.parametrize("strong", STRONG)
def test_views_hold_each_class_of_each_image(strong) -> None:
    view_a, view_b, labels = MultiClassViews(strong, WeakAugmentation(16))(torch.rand(3, 3, 16, 16))
    assert view_a.shape == view_b.shape == (12, 3, 16, 16)
    assert labels.tolist() == [0, 1, 2, 3] * 3


@pytest.mark.parametrize("strong", STRONG)
def test_both_views_are_of_one_strongly_augmented_image(strong) -> None:
    still = WeakAugmentation(16, scale=(1, 1), ratio=(1, 1), flip_p=0, jitter_p=0, grayscale_p=0)
    x = torch.rand(3, 3, 16, 16)
    view_a, view_b, labels = MultiClassViews(strong, still)(x)
    assert torch.equal(view_a, view_b)
    torch.testing.assert_close(view_a[labels == 0], x)
    assert (view_a[labels > 0] != x.repeat_interleave(3, 0)).flatten(1).any(1).all()


@pytest.mark.parametrize("strong", STRONG)
def test_strong_augmentations_called_alone(strong) -> None:
    x = torch.rand(8, 3, 16, 16)
    images, labels, masks = strong()(x, generator=generator())
    assert labels.sort().values.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert torch.equal(images[labels == 0], x[labels == 0])
    assert torch.equal(masks.flatten(1).any(1), labels > 0)


def test_permutation_swaps_halves() -> None:
    x = torch.arange(16.0).view(1, 1, 4, 4) / 16
    top_bottom = PermutationClasses().augment_as(x, 2)
    assert torch.equal(top_bottom[0, 0, :2], x[0, 0, 2:])
    left_right = PermutationClasses().augment_as(x, 1)
    assert torch.equal(left_right[0, 0, :, :2], x[0, 0, :, 2:])


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
