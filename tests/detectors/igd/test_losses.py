import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from detectors.igd.losses import (
    classification_loss,
    critic_loss,
    interpolate_codes,
    interpolation_loss,
    normality,
    reconstruction_error,
    residual_map,
)
from detectors.igd.ms_ssim import ms_ssim, scales_for


def test_reconstruction_error_by_hand():
    x, y = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    window, weights = scales_for(32)
    similarity = ms_ssim(x, y, window_size=window, weights=weights)
    expected = [0.2 * (x[i] - y[i]).abs().mean() + 0.8 * (1 - similarity[i]) for i in range(2)]
    torch.testing.assert_close(reconstruction_error(x, y, rho=0.2, data_range=1.0), torch.stack(expected))


def test_reconstruction_error_of_constant_images():
    # No structure: contrast is 1; luminance of .2 and .6 is (2 * .12 + 1e-4) / (.04 + .36 + 1e-4), on the last scale.
    x, y = torch.full((1, 1, 32, 32), 0.2), torch.full((1, 1, 32, 32), 0.6)
    weight = scales_for(32)[1][-1]
    expected = 0.15 * 0.4 + 0.85 * (1 - (0.2401 / 0.4001) ** weight)
    assert reconstruction_error(x, y, rho=0.15, data_range=1.0).item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("function", [reconstruction_error, residual_map])
def test_errors_do_not_depend_on_the_unit_of_pixels(function):
    x, y = torch.rand(2, 1, 32, 32), torch.rand(2, 1, 32, 32)
    scaled = function(x * 255, y * 255, rho=0.15, data_range=255.0)
    torch.testing.assert_close(scaled, function(x, y, rho=0.15, data_range=1.0), atol=1e-4, rtol=1e-4)


def test_residual_map_of_a_brighter_image_is_flat_by_hand():
    x, y = torch.full((1, 1, 32, 32), 0.2), torch.full((1, 1, 32, 32), 0.6)
    residual = residual_map(x, y, rho=0.15, data_range=1.0)
    expected = torch.full_like(residual, 0.15 * 0.4 + 0.85 * (1 - 0.2401 / 0.4001))
    torch.testing.assert_close(residual, expected, atol=1e-4, rtol=0)


def test_classification_by_hand():
    codes, centre, sigma = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([1.0, 0.0]), torch.tensor(2.0)
    expected = [math.exp(-4 / 2), math.exp(-1 / 2)]
    assert normality(codes, centre, sigma).tolist() == pytest.approx(expected)
    assert classification_loss(codes, centre, sigma).item() == pytest.approx(1 - sum(expected) / 2)


@given(
    codes=hnp.arrays(np.float32, (3, 4), elements=st.floats(-1e4, 1e4, width=32)),
    sigma=st.floats(1, 100),
)
def test_normality_is_in_0_to_1(codes, sigma):
    h = normality(torch.from_numpy(codes), torch.full((4,), 0.1), torch.tensor(sigma))
    assert ((h > 0) & (h <= 1)).all()


def test_interpolations_by_hand():
    codes, alpha = torch.tensor([[0.0, 4.0], [1.0, 0.0], [2.0, 8.0]]), torch.tensor([0.25, 0.5, 0.0])
    mixed = interpolate_codes(codes, alpha)
    assert mixed.tolist() == [[1.5, 7.0], [1.0, 0.0], [0.0, 4.0]]


def test_interpolation_and_critic_loss_by_hand():
    estimates, alpha, anchors = torch.tensor([0.5, 0.1]), torch.tensor([0.3, 0.2]), torch.tensor([0.2, -0.4])
    assert interpolation_loss(estimates).item() == pytest.approx((0.25 + 0.01) / 2)
    expected = (0.04 + 0.01) / 2 + (0.04 + 0.16) / 2
    assert critic_loss(estimates, alpha, anchors).item() == pytest.approx(expected)


def test_critic_loss_refuses_what_would_broadcast():
    estimates, alpha, anchors = torch.rand(4), torch.rand(4), torch.rand(4)
    for wrong in ((estimates, alpha[:, None], anchors), (estimates[:, None], alpha, anchors)):
        with pytest.raises(ValueError, match="one number per sample"):
            critic_loss(*wrong)
