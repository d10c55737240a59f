import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from detectors.igd.losses import (
    centre_and_sigma,
    classification_loss,
    critic_loss,
    interpolate_codes,
    interpolation_loss,
    normality,
    reconstruction_error,
    residual_map,
)
from detectors.igd.model import CodeMoments, IGDModel
from detectors.igd.patches import average_patches, cut_patches, patches_per_image
from detectors.ms_ssim import ms_ssim, scales_for


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


def small_model(**options) -> IGDModel:
    torch.manual_seed(0)
    model = IGDModel(32, 1, num_features=6, code_dim=4, width=1 / 32, rho=0.15, data_range=1.0, **options)
    model.set_gaussian(torch.zeros(4), torch.tensor(1.0))
    return model


def test_critic_loss_of_the_model_is_per_sample():
    """With an alpha per sample the loss is the mean of B squares, not of the B x B that (B,) - (B, 1) would give."""
    model, images = small_model(), torch.rand(5, 1, 32, 32)
    batch = model.training_pass(images, torch.randn(5, 6), torch.Generator().manual_seed(0))
    assert batch.alpha.shape == (5,)
    assert ((batch.alpha >= 0) & (batch.alpha <= 0.5)).all()
    assert len(batch.alpha.unique()) == 5
    interpolated = [model.critic(x[None]).item() for x in batch.interpolations]
    blends = batch.reconstructions + 0.2 * (images - batch.reconstructions)
    anchored = [model.critic(x[None]).item() for x in blends]
    expected = sum((d - a) ** 2 for d, a in zip(interpolated, batch.alpha.tolist(), strict=True)) / 5
    expected += sum(d**2 for d in anchored) / 5
    assert model.critic_loss(batch).item() == pytest.approx(expected, rel=1e-4)


def test_losses_of_the_model_by_hand():
    model, images = small_model(), torch.rand(3, 1, 32, 32)
    batch = model.training_pass(images, torch.randn(3, 6), None)
    losses = model.losses(batch)
    torch.testing.assert_close(losses.interpolation, 0.1 * model.critic(batch.interpolations).square().mean())
    torch.testing.assert_close(losses.classification, classification_loss(batch.codes, model.centre, model.sigma))
    expected = reconstruction_error(images, batch.reconstructions, rho=0.15, data_range=1.0).mean()
    torch.testing.assert_close(losses.reconstruction, expected)
    torch.testing.assert_close(losses.total, sum(losses[1:]))


def test_each_loss_reaches_its_own_parameters_only():
    model = small_model()
    batch = model.training_pass(torch.rand(3, 1, 32, 32), torch.randn(3, 6), None)
    model.losses(batch).total.backward()
    assert all(p.grad is None for p in model.critic.parameters())
    assert all(p.grad is not None for p in model.generator_parameters())
    model.zero_grad(set_to_none=True)
    model.critic_loss(batch).backward()
    assert all(p.grad is None for p in model.generator_parameters())
    assert all(p.grad is not None for p in model.critic.parameters())


def numpy_refresh(codes: np.ndarray) -> tuple[np.ndarray, float]:
    centre = codes.mean(0)
    centre = np.where((np.abs(centre) < 0.1) & (centre < 0), -0.1, centre)
    centre = np.where((np.abs(centre) < 0.1) & (centre >= 0), 0.1, centre)
    return centre, max(1.0, ((codes - centre) ** 2).sum(1).mean())


@given(
    codes=hnp.arrays(np.float64, st.tuples(st.integers(1, 12), st.integers(1, 5)), elements=st.floats(-3, 3)),
    parts=st.integers(1, 4),
)
def test_refresh_equals_numpy(codes, parts):
    moments = CodeMoments()
    for part in torch.from_numpy(codes).tensor_split(parts):
        if len(part):
            moments.update(part)
    centre, sigma = centre_and_sigma(*moments.result())
    expected_centre, expected_sigma = numpy_refresh(codes)
    near_zero = np.abs(codes.mean(0)) < 1e-12  # there the sign is decided by rounding
    np.testing.assert_allclose(np.where(near_zero, 0, centre), np.where(near_zero, 0, expected_centre), atol=1e-12)
    if not near_zero.any():
        np.testing.assert_allclose(sigma, expected_sigma, rtol=1e-9)


def test_moments_need_codes():
    with pytest.raises(ValueError, match="got none"):
        CodeMoments().result()


@pytest.mark.parametrize(("size", "count"), [(32, 1), (64, 9), (128, 49), (256, 225)])
def test_patches_are_windows_and_average_back(size, count):
    images = torch.rand(2, 1, size, size)
    patches = cut_patches(images)
    assert patches_per_image(size) == count
    assert patches.shape == (2 * count, 1, 32, 32)
    if size > 32:
        torch.testing.assert_close(patches[count + 1], images[1, :, :32, 16:48])
    torch.testing.assert_close(average_patches(patches, size), images)


def test_overlaps_are_averaged_not_summed():
    patches = torch.arange(9.0)[:, None, None, None].expand(9, 1, 32, 32)
    averaged = average_patches(patches, 64)[0, 0]
    assert averaged[0, 0] == 0
    assert averaged[20, 20] == (0 + 1 + 3 + 4) / 4
    assert averaged[63, 63] == 8
