"""Properties of MedMix that hold for every shape, size, number of lesions and option."""

import copy
import pickle

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from medmix_cases import SEEDS, batches, generator, mixes
from torch import Tensor

from medmix import (
    MedMix,
)
from medmix.lesions.warps import Deformation


@pytest.mark.parametrize("deformation", [None, "wave"])
def test_a_copied_medmix_is_the_same(deformation: Deformation | None) -> None:
    mix, x = MedMix(2, shape="ellipse", deformation=deformation), torch.rand(4, 3, 32, 32)
    mix(x)
    for other in (copy.deepcopy(mix), pickle.loads(pickle.dumps(mix))):
        assert repr(other) == repr(mix)
        assert torch.equal(other(x, params=mix._params).images, mix(x, params=mix._params).images)


def test_repr_tells_every_option() -> None:
    text = repr(MedMix(2, shape="ellipse", p=0.5))
    for part in (
        "num_lesions=(2,)",
        "shape='ellipse'",
        "softness=",
        "nonlinear='bezier'",
        "p=0.5",
        "keepdim=False",
        "data_keys=['input']",
    ):
        assert part in text


def test_modules_apply_still_works() -> None:
    seen: list[Tensor] = []
    MedMix().apply(lambda module: seen.append(module))
    assert seen


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


@given(mixes(), batches(), SEEDS, st.integers(0, 4))
def test_a_row_depends_on_itself_and_its_donors_only(mix: MedMix, x: Tensor, seed: int, row: int) -> None:
    row = row % len(x)
    params = mix.forward_parameters(x.shape, generator=generator(seed))
    donors = (row + params["donor_offset"][row]) % len(x)
    other = [i for i in range(len(x)) if i != row and i not in donors.tolist()]
    assume(other)
    changed = x.clone()
    changed[other] = 1 - changed[other]
    a, b = mix(x, params=params), mix(changed, params=params)
    assert torch.equal(a.images[row], b.images[row])
    assert torch.equal(a.masks, b.masks)


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


def test_probability_zero_is_the_identity_and_half_gates_rows() -> None:
    x = torch.rand(200, 1, 16, 16)
    images, labels, masks = MedMix(3, p=0)(x)
    assert torch.equal(images, x)
    assert not labels.any()
    assert not masks.any()
    labels = MedMix(3, p=0.5)(x).labels
    assert set(labels.tolist()) == {0, 3}
    assert 60 < (labels == 0).sum() < 140
