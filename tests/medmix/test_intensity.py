"""The random Bezier intensity curve: against the curve drawn point by point, and as a kornia augmentation."""

import kornia.augmentation as K
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medmix import RandomNonlinearIntensity
from medmix.appearance import bend_intensity, curve_coefficients

CURVES = st.sampled_from(["bezier", "genesis"])
SEEDS = st.integers(0, 2**31)


def images(seed: int, shape=(3, 2, 9, 7), dtype=torch.float64) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def drawn_curve(curve: str, uniform: np.ndarray, points: int) -> tuple[np.ndarray, np.ndarray]:
    """Abscissas and ordinates of one Bezier curve from its control points."""
    x1, y1, y2, invert, *x2 = uniform
    if curve == "bezier":
        h = min(0.025 + 0.975 * x1, 0.999)
        x1, x2 = 2 * h / 3, [2 * h / 3 + 1 / 3]
    t = np.linspace(0, 1, points)
    s = 1 - t
    x = 3 * s**2 * t * x1 + 3 * s * t**2 * x2[0] + t**3
    y = 3 * s**2 * t * y1 + 3 * s * t**2 * y2 + t**3
    return x, y[::-1] if invert < 0.5 else y


@given(CURVES, SEEDS)
def test_is_the_curve_of_the_control_points(curve: str, seed: int) -> None:
    x = images(seed)
    uniform = images(seed + 1, (3, 4 if curve == "bezier" else 5))
    bent = bend_intensity(x, curve, curve_coefficients(curve, uniform))
    points, tolerance = (20_000, 1e-4) if curve == "bezier" else (1000, 1e-9)  # Models Genesis takes 1,000
    for image, row, result in zip(x, uniform, bent, strict=True):
        expected = np.interp(image.numpy(), *drawn_curve(curve, row.numpy(), points))
        np.testing.assert_allclose(result.numpy(), expected, atol=tolerance)


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


def test_saturated_pixels_under_the_steepest_curve() -> None:
    """At x1 -> 1 the curve has no derivative at 1, where rounding could make the root of a negative number."""
    x = torch.linspace(0.999, 1, 2000).view(1, 1, 40, 50)
    for x1 in torch.linspace(0.99, 1, 50):
        coefficients = curve_coefficients("bezier", torch.tensor([[x1, 0.5, 0.5, 1.0]]))
        assert torch.isfinite(bend_intensity(x, "bezier", coefficients)).all()


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


@pytest.mark.parametrize("curve", ["bezier", "genesis"])
def test_gradcheck(curve: str) -> None:
    uniform = images(3, (2, 5))[:, : 4 if curve == "bezier" else 5]
    x = (0.1 + 0.8 * images(2, (2, 1, 4, 4))).requires_grad_()
    coefficients = curve_coefficients(curve, uniform)
    assert torch.autograd.gradcheck(lambda v: bend_intensity(v, curve, coefficients), x)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="curve"):
        RandomNonlinearIntensity("gamma")
    with pytest.raises(ValueError, match="probability"):
        RandomNonlinearIntensity(p=2)
    with pytest.raises(ValueError, match="divide 8-bit values by 255"):
        RandomNonlinearIntensity()(torch.rand(2, 3, 8, 8) * 255)
