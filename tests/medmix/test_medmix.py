"""Properties of MedMix that hold for every shape, size, number of lesions and option."""

import numpy as np
import pytest
import scipy.ndimage
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from medmix import MedMix, RotationClasses
from medmix.outlines import lesion_alpha

SIZES = st.sampled_from([(1 / 16, 1 / 4), (1 / 4, 1 / 2.3), (0.05, 0.6), (0.3, 0.3), (0.01, 0.02), (0.5, 1.0)])
SHAPES = st.sampled_from(["blob", "ellipse", "rectangle"])
SEEDS = st.integers(0, 2**31)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def components(mask: Tensor) -> tuple[int, int]:
    """Numbers of 4-connected and of 8-connected components of a mask (H, W)."""
    array = mask.numpy()
    return scipy.ndimage.label(array)[1], scipy.ndimage.label(array, np.ones((3, 3)))[1]


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


@given(mixes(), batches(), SEEDS)
def test_changes_only_the_mask_stays_in_range_and_leaves_its_input(mix: MedMix, x: Tensor, seed: int) -> None:
    before = x.clone()
    images, labels, masks = mix(x, generator=generator(seed))
    assert torch.equal(x, before)
    assert images.shape == x.shape
    assert masks.shape == (len(x), 1, *x.shape[2:])
    assert labels.shape == (len(x),)
    assert (labels.dtype, masks.dtype) == (torch.int64, torch.bool)
    assert torch.equal(images.masked_select(~masks), x.masked_select(~masks))
    assert images.min() >= 0
    assert images.max() <= 1
    assert torch.equal(masks.flatten(1).any(dim=1), labels > 0)
    assert torch.equal(images[labels == 0], x[labels == 0])


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


@given(
    st.integers(1, 7), st.integers(16, 90), st.integers(16, 90), SIZES, SHAPES, st.sampled_from([1, 3, 9]),
    st.booleans(), SEEDS,
)  # fmt: skip
def test_no_window_is_too_small_for_its_lesion(batch, height, width, size, shape, num_lesions, same, seed) -> None:
    """The mask is that of the lesions drawn on the whole image."""
    mix = MedMix(num_lesions, size=size, shape=shape, same_on_batch=same)
    masks = mix(torch.zeros(batch, 1, height, width), generator=generator(seed)).masks
    whole = torch.zeros_like(masks)
    for slot in range(num_lesions):
        centre, radius, outline = (mix._params[name][:, slot] for name in ("centre", "radius", "outline"))
        rows, columns = (torch.arange(n) - centre[:, i, None] for i, n in enumerate((height, width)))
        whole |= lesion_alpha(shape, 0, (rows[:, :, None], columns[:, None]), radius, outline)[1]
    assert torch.equal(masks, whole)


@given(mixes(), batches(), SEEDS)
def test_replay_equals(mix: MedMix, x: Tensor, seed: int) -> None:
    first = mix(x, generator=generator(seed))
    for second in (
        mix(x, params=mix._params),
        mix(x, generator=generator(seed)),
        mix(x, params=mix.forward_parameters(x.shape, generator=generator(seed))),
    ):
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@given(mixes(), batches(), SEEDS)
def test_a_mask_alone_is_replayed(mix: MedMix, x: Tensor, seed: int) -> None:
    expected = mix(x, generator=generator(seed)).masks
    given_mask = torch.rand(expected.shape, generator=generator(seed)) < 0.1
    actual = mix(given_mask, params=mix._params, data_keys=["mask"])
    assert torch.equal(actual, expected | given_mask)


@given(mixes(), batches(), SEEDS)
def test_a_generator_leaves_the_global_one_alone(mix: MedMix, x: Tensor, seed: int) -> None:
    before = torch.get_rng_state()
    mix(x, generator=generator(seed))
    assert torch.equal(torch.get_rng_state(), before)


def test_without_a_generator_the_global_one_counts() -> None:
    x = torch.rand(4, 3, 32, 32)
    outputs = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        outputs.append(MedMix(3)(x).images)
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


@given(mixes(), batches(), SEEDS, st.integers(0, 4))
def test_a_row_depends_on_itself_and_its_donors_only(mix: MedMix, x: Tensor, seed: int, row: int) -> None:
    row = row % len(x)
    params = mix.forward_parameters(x.shape, generator=generator(seed))
    donors = (row + params["source"][row]) % len(x)
    other = [i for i in range(len(x)) if i != row and i not in donors.tolist()]
    assume(other)
    changed = x.clone()
    changed[other] = 1 - changed[other]
    a, b = mix(x, params=params), mix(changed, params=params)
    assert torch.equal(a.images[row], b.images[row])
    assert torch.equal(a.masks, b.masks)


@given(batches(), SEEDS)
def test_patches_come_from_other_images(x: Tensor, seed: int) -> None:
    source = MedMix(3).forward_parameters(x.shape, generator=generator(seed))["source"]
    assert ((source % len(x) != 0) | (len(x) == 1)).all()


def test_unaltered_patches_are_pieces_of_the_donor() -> None:
    """With every alteration off, a lesion on black images shows the constant of the image it was cut from."""
    x = torch.arange(6.0)[:, None, None, None].expand(6, 1, 32, 32) / 5
    mix = MedMix(2, softness=0, color_jitter=(0, 0, 0, 0), noise=(0, 0), nonlinear=None)
    images, _, masks = mix(x)
    donors = (torch.arange(6)[:, None] + mix._params["source"]) % 6
    for i in range(6):
        values = images[i].masked_select(masks[i])
        assert torch.isin(values, donors[i] / 5).all()


@given(st.floats(0, 1, width=32), mixes(), SEEDS)
def test_constant_images_stay_finite(value: float, mix: MedMix, seed: int) -> None:
    images = mix(torch.full((2, 3, 24, 24), value), generator=generator(seed)).images
    assert torch.isfinite(images).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("deformation", [None, "wave"])
def test_dtype_and_memory_format_are_kept(dtype, memory_format, deformation) -> None:
    x = torch.rand(4, 3, 40, 40).to(dtype).to(memory_format=memory_format)
    mix = MedMix(3, deformation=deformation)
    images, _, masks = mix(x)
    assert images.dtype == dtype
    assert images.is_contiguous(memory_format=memory_format)
    reference = mix(x.double().contiguous(), params=mix._params)
    assert torch.equal(masks, reference.masks)
    assert torch.equal(images.masked_select(~masks), x.masked_select(~masks))
    assert images.min() >= 0
    assert images.max() <= 1
    tolerance = {torch.float16: 2e-3, torch.bfloat16: 1e-2}.get(dtype, 1e-4)
    assert (images.double() - reference.images).abs().max() <= tolerance


@given(mixes(), batches(), SEEDS)
def test_autocast_changes_nothing(mix: MedMix, x: Tensor, seed: int) -> None:
    expected = mix(x, generator=generator(seed))
    with torch.autocast("cpu", torch.bfloat16):
        actual = mix(x, generator=generator(seed))
    assert all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True))


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


@given(batches(), SEEDS)
def test_classes_of_one_draw_are_nested(x: Tensor, seed: int) -> None:
    """The lesions of class n are n of those of class 3, so that none of them tells the class by itself."""
    mix = MedMix()
    most = mix.augment_as(x, 3, generator(seed))
    for n in (1, 2):
        images = mix.augment_as(x, n, generator(seed))
        changed = (images != x).any(dim=1, keepdim=True)
        assert torch.equal(images.masked_select(changed), most.masked_select(changed))


def test_probability_zero_is_the_identity_and_half_gates_rows() -> None:
    x = torch.rand(200, 1, 16, 16)
    images, labels, masks = MedMix(3, p=0)(x)
    assert torch.equal(images, x)
    assert not labels.any()
    assert not masks.any()
    labels = MedMix(3, p=0.5)(x).labels
    assert set(labels.tolist()) == {0, 3}
    assert 60 < (labels == 0).sum() < 140


@pytest.mark.parametrize("strong", [MedMix(), MedMix(same_on_batch=True), RotationClasses()])
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_every_class_comes_to_every_row(strong: MedMix, batch: int) -> None:
    """Also where a batch is smaller than the number of classes."""
    x = torch.rand(batch, 1, 16, 16)
    labels = torch.stack([strong(x, generator=generator(seed)).labels for seed in range(400)])
    for row in labels.T:
        assert (row.bincount(minlength=4) > 60).all()


def test_same_on_batch_puts_the_same_lesions_everywhere() -> None:
    _, labels, masks = MedMix(3, same_on_batch=True)(torch.rand(5, 3, 32, 32))
    assert labels.tolist() == [3] * 5
    assert torch.equal(masks, masks[:1].expand_as(masks))


def test_lesions_are_visible_and_as_large_as_asked() -> None:
    torch.manual_seed(0)
    x = torch.rand(64, 3, 8, 8).repeat_interleave(16, 2).repeat_interleave(16, 3)
    for shape in ("blob", "ellipse", "rectangle"):
        images, _, masks = MedMix(1, size=(0.25, 0.25), shape=shape)(x)
        rows, columns = masks.any(dim=3).sum(dim=2), masks.any(dim=2).sum(dim=2)
        longest = torch.maximum(rows, columns)
        assert (longest <= 33).all()
        assert (longest >= 15).all()
        change = ((images - x).abs() * masks).sum(dim=(1, 2, 3)) / masks.sum(dim=(1, 2, 3)) / 3
        assert change.mean() > 0.05
