"""Means of a batch as exact as in float64."""

import torch

from detectors.padim.moments import centre_on_mean


def test_centred_on_the_mean_in_two_steps() -> None:
    """The float32 mean of values far from 0 is off; what it leaves has a mean that is taken away too."""
    values = 1e4 + torch.rand(5, 3, 1000, generator=torch.Generator().manual_seed(0))
    centred = torch.empty_like(values)
    mean = centre_on_mean(values, out=centred)
    exact = values.double().mean(-1)
    assert mean.dtype == torch.float64
    torch.testing.assert_close(mean, exact, rtol=1e-11, atol=0)
    torch.testing.assert_close(centred.double(), values.double() - exact[..., None], rtol=0, atol=1e-6)
