import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from detectors.igd.losses import centre_and_sigma, classification_loss, reconstruction_error
from detectors.igd.model import CodeMoments, IGDModel


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
