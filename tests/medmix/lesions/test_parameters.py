"""Parameters: nested over the number of lesions, and moved to the images."""

import kornia.augmentation as K
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
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


def test_parameters_follow_the_images_to_their_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kornia's containers draw without a device; "meta" stands for an accelerator."""
    monkeypatch.setattr(
        "medmix.lesions.alterations.apply_colour", lambda images, *rest: images
    )  # autocast knows no "meta"
    mix, x = MedMix(2, data_keys=["input", "mask"]), torch.rand(2, 3, 32, 32, device="meta")
    images, mask = K.AugmentationSequential(mix, data_keys=["input", "mask"])(x, torch.zeros_like(x[:, :1]))
    assert images.device == mask.device == x.device
    assert mix(x, x[:, :1], params=mix.forward_parameters(x.shape))[0].device == x.device


@given(mixes(), batches(), SEEDS)
def test_one_draw_nests_its_lesions(mix: MedMix, x: Tensor, seed: int) -> None:
    """The image with n lesions holds the lesions of the image with n - 1, pixel by pixel."""
    params = mix.forward_parameters(x.shape, generator=generator(seed))
    fewer, smaller = x, torch.zeros_like(x[:, :1], dtype=torch.bool)
    for n in range(max(mix.num_lesions) + 1):
        images, _, masks = mix(x, params=params | {"num_lesions": torch.full((len(x),), n)})
        assert (masks | ~smaller).all()
        assert torch.equal(images.masked_select(smaller), fewer.masked_select(smaller))
        fewer, smaller = images, masks


@given(batches(), SEEDS)
def test_classes_of_one_draw_are_nested(x: Tensor, seed: int) -> None:
    """The lesions of class n are n of those of class 3, so that none of them tells the class by itself."""
    mix = MedMix()
    most = mix.augment_as(x, 3, generator(seed))
    for n in (1, 2):
        images = mix.augment_as(x, n, generator(seed))
        changed = (images != x).any(dim=1, keepdim=True)
        assert torch.equal(images.masked_select(changed), most.masked_select(changed))
