"""The Bezier curve against the curve drawn point by point."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from medmix_cases import SEEDS

from medmix.lesions.curves import bend_intensity, curve_coefficients

CURVES = st.sampled_from(["bezier", "genesis"])


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


def test_saturated_pixels_under_the_steepest_curve() -> None:
    """At x1 -> 1 the curve has no derivative at 1, where rounding could make the root of a negative number."""
    x = torch.linspace(0.999, 1, 2000).view(1, 1, 40, 50)
    for x1 in torch.linspace(0.99, 1, 50):
        coefficients = curve_coefficients("bezier", torch.tensor([[x1, 0.5, 0.5, 1.0]]))
        assert torch.isfinite(bend_intensity(x, "bezier", coefficients)).all()


@pytest.mark.parametrize("curve", ["bezier", "genesis"])
def test_gradcheck(curve: str) -> None:
    uniform = images(3, (2, 5))[:, : 4 if curve == "bezier" else 5]
    x = (0.1 + 0.8 * images(2, (2, 1, 4, 4))).requires_grad_()
    coefficients = curve_coefficients(curve, uniform)
    assert torch.autograd.gradcheck(lambda v: bend_intensity(v, curve, coefficients), x)


@pytest.mark.parametrize("curve", ["bezier", "genesis"])
def test_nothing_comes_from_the_host(curve: str) -> None:
    """On an accelerator, for which "meta" stands, curves are made and looked up there."""
    coefficients = curve_coefficients(curve, torch.rand(2, 5 if curve == "genesis" else 4, device="meta"))
    bent = bend_intensity(torch.rand(2, 3, 4, 4, device="meta"), curve, coefficients)
    assert bent.is_meta
    assert bent.shape == (2, 3, 4, 4)


def test_half_of_the_curves_are_inverted_by_default() -> None:
    uniform = torch.tensor([[0.2, 0.3, 0.6, share] for share in (0.0, 0.49, 0.5, 0.99)])
    starts = curve_coefficients("bezier", uniform)[:, 1]
    assert starts.tolist() == [1.0, 1.0, 0.0, 0.0]
    assert curve_coefficients("bezier", uniform, 0.0)[:, 1].tolist() == [0.0] * 4
    assert curve_coefficients("bezier", uniform, 1.0)[:, 1].tolist() == [1.0] * 4


def test_the_ends_of_the_table() -> None:
    """Values at and beyond 0 and 1 take the curve's ends."""
    coefficients = curve_coefficients("genesis", torch.tensor([[0.2, 0.3, 0.6, 0.9, 0.5]], dtype=torch.float64))
    x = torch.tensor([-1e-3, 0.0, 1.0, 1.001], dtype=torch.float64).view(1, 1, 2, 2)
    assert bend_intensity(x, "genesis", coefficients).flatten().tolist() == [0.0, 0.0, 1.0, 1.0]


def test_the_steepest_curve() -> None:
    """h = 3 x1 / 2 runs from .025 to .999, where the root still has a derivative."""
    uniform = torch.tensor([[x1, 0.5, 0.5, 0.9] for x1 in (0.0, 0.5, 0.9999)])
    torch.testing.assert_close(curve_coefficients("bezier", uniform)[:, 0], torch.tensor([0.025, 0.5125, 0.999]))
