"""The random intensity curve as a kornia augmentation."""

import kornia.augmentation as K
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from medmix_cases import SEEDS

from medmix import RandomNonlinearIntensity

CURVES = st.sampled_from(["bezier", "genesis"])


def images(seed: int, shape=(3, 2, 9, 7), dtype=torch.float64) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@given(CURVES, SEEDS, st.booleans())
def test_is_monotone_from_corner_to_corner(curve: str, seed: int, inverted: bool) -> None:
    ramp = torch.linspace(0, 1, 256, dtype=torch.float64).view(1, 1, 16, 16)  # float32 rounds to 1e-5 here
    torch.manual_seed(seed)
    bent = RandomNonlinearIntensity(curve, invert_p=float(inverted))(ramp).flatten()
    rising = bent.flip(0) if inverted else bent
    assert (rising.diff() >= -2e-6).all()
    torch.testing.assert_close(rising[[0, -1]], torch.tensor([0.0, 1.0], dtype=torch.float64), atol=2e-6, rtol=0)


@given(CURVES, SEEDS, st.sampled_from([0.0, 1.0, 0.5]))
def test_stays_finite_and_in_range(curve: str, seed: int, value: float) -> None:
    torch.manual_seed(seed)
    for x in (torch.full((8, 1, 4, 4), value), images(seed, dtype=torch.float32)):
        bent = RandomNonlinearIntensity(curve)(x)
        assert bent.min() >= 0
        assert bent.max() <= 1


def test_values_that_rounding_took_out_of_range() -> None:
    bent = RandomNonlinearIntensity()(torch.full((500, 1, 2, 2), 1.0005))
    assert ((bent >= 0) & (bent <= 1)).all()


@pytest.mark.parametrize("curve", ["bezier", "genesis"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtype_shape_and_input_are_kept(curve: str, dtype: torch.dtype) -> None:
    x = images(0, (4, 3, 8, 6)).to(dtype)
    before = x.clone()
    bent = RandomNonlinearIntensity(curve)(x)
    assert (bent.dtype, bent.shape) == (dtype, x.shape)
    assert torch.equal(x, before)


@pytest.mark.parametrize("curve", ["bezier", "genesis"])
def test_in_a_container_the_mask_stays_and_a_replay_equals(curve: str) -> None:
    container = K.AugmentationSequential(
        RandomNonlinearIntensity(curve, p=0.5), K.RandomHorizontalFlip(p=1.0), data_keys=["input", "mask"]
    )
    x, mask = torch.rand(16, 1, 8, 8), (torch.rand(16, 1, 8, 8) > 0.5).float()
    bent, flipped = container(x, mask)
    assert torch.equal(flipped, mask.flip(3))
    changed = (bent != x.flip(3)).flatten(1).any(dim=1)
    assert 0 < changed.sum() < 16
    again, _ = container(x, mask, params=container._params)
    assert torch.equal(bent, again)


def test_probability_batch_and_one_image() -> None:
    x = torch.rand(5, 3, 8, 8)
    assert torch.equal(RandomNonlinearIntensity(p=0.0)(x), x)
    same = RandomNonlinearIntensity(same_on_batch=True)(x[:1].expand(5, -1, -1, -1))
    assert torch.equal(same, same[:1].expand_as(same))
    assert RandomNonlinearIntensity(keepdim=True)(x[0]).shape == (3, 8, 8)
    text = repr(RandomNonlinearIntensity("genesis", invert_p=0.25, p=0.5))
    assert "curve=genesis" in text
    assert "invert_p=0.25" in text
    assert "p=0.5" in text


def test_all_channels_follow_one_curve() -> None:
    x = torch.rand(4, 1, 8, 8).expand(-1, 3, -1, -1)
    bent = RandomNonlinearIntensity()(x)
    assert torch.equal(bent[:, 0], bent[:, 2])


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="curve"):
        RandomNonlinearIntensity("gamma")
    with pytest.raises(ValueError, match="probability"):
        RandomNonlinearIntensity(p=2)
    with pytest.raises(ValueError, match="divide 8-bit values by 255"):
        RandomNonlinearIntensity()(torch.rand(2, 3, 8, 8) * 255)
