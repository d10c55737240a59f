"""MedMix in kornia's containers of random make: which keys, in which order, beside which other transforms."""

import kornia.augmentation as K
import torch
from hypothesis import given
from hypothesis import strategies as st
from kornia.constants import DataKey
from torch import Tensor, nn

from medmix import MedMix

MOVES = {  # of an image and its mask alike, pixel by pixel
    "horizontal flip": lambda: K.RandomHorizontalFlip(p=1.0),
    "vertical flip": lambda: K.RandomVerticalFlip(p=1.0),
    "some flips": lambda: K.RandomHorizontalFlip(p=0.5),
    "quarter turn": lambda: K.RandomRotation90((1, 1), p=1.0),
}
KEYS = st.sampled_from([  # kornia wants the image first
    ("input",), ("input", "mask"), ("image", "mask"), ("input", "mask", "mask"), (DataKey.INPUT, DataKey.MASK),
])  # fmt: skip
DTYPES = st.sampled_from([torch.bool, torch.uint8, torch.int64, torch.float32])


@st.composite
def containers(draw: st.DrawFn) -> list[nn.Module]:
    """Up to three moves, with a MedMix of white lesions somewhere among them."""
    names = draw(st.lists(st.sampled_from(sorted(MOVES)), max_size=3))
    mix = MedMix(
        draw(st.sampled_from([1, 2, (0, 1, 2)])),
        shape=draw(st.sampled_from(["blob", "ellipse", "rectangle"])),
        blending="hard",
        color_jitter=(0, 0, 0, 0),
        noise=(0, 0),
        nonlinear=None,
        p=draw(st.sampled_from([0.5, 1.0])),
        same_on_batch=draw(st.booleans()),
        data_keys=["input", "mask"],
    )
    steps: list[nn.Module] = [MOVES[name]() for name in names]
    steps.insert(draw(st.integers(0, len(steps))), mix)
    return steps


def white_on_black(count: int, side: int) -> Tensor:
    """Every second image white: on the black ones, lesions are what is white, and the other way round."""
    images = torch.zeros(count, 3, side, side)
    images[1::2] = 1
    return images


@given(
    made=containers(),
    keys=KEYS,
    dtype=DTYPES,
    count=st.integers(2, 5),
    side=st.sampled_from([16, 24, 33]),
    seed=st.integers(0, 2**31),
    on_batch=st.booleans(),
)
def test_images_and_masks_agree(
    made: list[nn.Module],
    keys: tuple[object, ...],
    dtype: torch.dtype,
    count: int,
    side: int,
    seed: int,
    on_batch: bool,
) -> None:
    """Nothing outside the mask is changed, whatever the container does before and after."""
    steps = made
    torch.manual_seed(seed)
    options = {"random_apply": False, "same_on_batch": True} if on_batch else {}
    container = K.AugmentationSequential(*steps, data_keys=list(keys), **options)
    images = white_on_black(count, side)
    mask = torch.zeros(count, 1, side, side, dtype=dtype)
    outputs = container(images, *[mask] * (len(keys) - 1))
    mixed, *masks = outputs if len(keys) > 1 else [outputs]

    before = images[:, :, :1, :1]  # one colour each: moves change nothing
    changed = (mixed - before).abs().amax(1, keepdim=True) > 0.5
    assert mixed.shape == images.shape
    for joined in masks:
        assert joined.shape == mask.shape
        assert set(joined.unique().tolist()) <= {0, 1}
        assert not (changed & (joined == 0)).any()


@given(made=containers(), keys=KEYS, count=st.integers(2, 5), seed=st.integers(0, 2**31))
def test_a_replay_of_the_container_gives_the_same(
    made: list[nn.Module], keys: tuple[object, ...], count: int, seed: int
) -> None:
    torch.manual_seed(seed)
    container = K.AugmentationSequential(*made, data_keys=list(keys))
    inputs = [white_on_black(count, 24), *[torch.zeros(count, 1, 24, 24)] * (len(keys) - 1)]
    first = container(*inputs)
    again = container(*inputs, params=container._params)
    if len(keys) == 1:
        first, again = [first], [again]
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
