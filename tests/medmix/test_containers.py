"""MedMix in kornia's containers."""

import kornia.augmentation as K
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kornia.constants import DataKey
from torch import Tensor

from medmix import (
    MedMix,
)

SIZES = st.sampled_from([(1 / 16, 1 / 4), (1 / 4, 1 / 2.3), (0.05, 0.6), (0.3, 0.3), (0.01, 0.02), (0.5, 1.0)])


SHAPES = st.sampled_from(["blob", "ellipse", "rectangle"])


SEEDS = st.integers(0, 2**31)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@st.composite
def mixes(draw: st.DrawFn) -> MedMix:
    """MedMix with any of its options."""
    return MedMix(
        draw(st.sampled_from([(0, 1, 2, 3), 1, 3, 5, (2,), (0, 4)])),
        size=draw(SIZES),
        shape=draw(SHAPES),
        blending=draw(st.sampled_from(["hard", "feathered", "seamless"])),
        softness=draw(st.sampled_from([0.0, 0.35, 1.0])),
        color_jitter=draw(st.sampled_from([(0.4, 0.4, 0.4, 0.1), (0, 0, 0, 0)])),
        noise=draw(st.sampled_from([(0.0, 0.1), (0.0, 0.0), (0.5, 0.5)])),
        nonlinear=draw(st.sampled_from(["bezier", "genesis", None])),
        deformation=draw(st.sampled_from([None, "fisheye", "wave"])),
        p=draw(st.sampled_from([0.0, 0.5, 1.0])),
        same_on_batch=draw(st.booleans()),
    )


@st.composite
def batches(draw: st.DrawFn, largest: int = 48) -> Tensor:
    """Images (B, C, H, W) of random content."""
    shape = (
        draw(st.integers(1, 5)),
        draw(st.sampled_from([1, 2, 3, 4])),
        draw(st.integers(16, largest)),
        draw(st.integers(16, largest)),
    )
    return torch.rand(shape, generator=generator(draw(SEEDS)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool])
def test_in_a_container_masks_are_joined(dtype: torch.dtype) -> None:
    mix = MedMix(2, data_keys=["input", "mask"])
    container = K.AugmentationSequential(K.RandomHorizontalFlip(p=1.0), mix, data_keys=["input", "mask"])
    x, mask = torch.rand(3, 3, 32, 32), torch.zeros(3, 1, 32, 32)
    mask[:, :, :4, :4] = 1
    images, joined = container(x, mask.to(dtype))
    changed = (images != x.flip(3)).any(1, keepdim=True)
    assert changed.flatten(1).any(1).all()
    assert (joined[:, :, :4, -4:] == 1).all()
    assert (joined[changed] == 1).all()


def test_one_image_with_keepdim() -> None:
    x, everywhere = torch.rand(3, 32, 32), torch.ones(1, 32, 32, dtype=torch.bool)
    mix = MedMix((2, 3), keepdim=True)
    image, label, mask = mix(x, foreground=everywhere)
    assert (image.shape, mask.shape) == (x.shape, everywhere.shape)
    assert int(label) in (1, 2, 3)
    assert mix(x, data_keys=["input"]).shape == x.shape
    image, mask = MedMix(2, keepdim=True, data_keys=["input", "mask"])(x, everywhere)
    assert image.shape == x.shape
    assert torch.equal(mask, everywhere)
    container = K.AugmentationSequential(
        MedMix(2, data_keys=["input", "mask"]), data_keys=["input", "mask"], keepdim=True
    )
    image, mask = container(x, torch.zeros(1, 32, 32))
    assert (image.shape, mask.shape) == (x.shape, everywhere.shape)
    assert mask.any()


def test_kornias_own_names_of_data_keys() -> None:
    mix = MedMix(2, data_keys=[DataKey.INPUT, DataKey.MASK])
    assert mix(torch.rand(2, 3, 32, 32), torch.zeros(2, 1, 32, 32))[1].flatten(1).any(1).all()


@given(mixes(), batches(), SEEDS)
def test_a_mask_alone_is_replayed(mix: MedMix, x: Tensor, seed: int) -> None:
    expected = mix(x, generator=generator(seed)).masks
    given_mask = torch.rand(expected.shape, generator=generator(seed)) < 0.1
    actual = mix(given_mask, params=mix._params, data_keys=["mask"])
    assert torch.equal(actual, expected | given_mask)
