"""Strategies that the tests of MedMix share."""

import torch
from hypothesis import strategies as st
from torch import Tensor

from medmix import MedMix

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
