"""float32 distances against a float64 oracle, up to a condition number of 1e6: the bounds that docstrings state."""

import numpy as np
import pytest
import torch
from torch import Tensor

from detectors.padim.gaussian import NestedGaussian
from detectors.padim.tree import Level

EPS = 0.01
CHANNELS = 12
BOUNDS = {1e2: 1e-5, 1e4: 5e-4, 1e6: 5e-2}  # relative, by condition number


def samples(count: int, condition: float, offset: float, seed: int) -> Tensor:
    """Correlated values (N, 12) whose covariance + .01 I has eigenvalues from .01 to .01 times the condition number."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(CHANNELS, CHANNELS, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    axes, _ = torch.linalg.qr(mixing)
    eigenvalues = EPS * torch.logspace(0, np.log10(condition), CHANNELS, dtype=torch.float64)
    spread = (eigenvalues - EPS).clamp(min=0).sqrt()
    values = torch.randn(count, CHANNELS, dtype=torch.float64, generator=generator)
    return ((values * spread) @ axes.T + offset).float()


def exact_distances(train: Tensor, test: Tensor) -> np.ndarray:
    covariance = np.cov(train.double().numpy(), rowvar=False) + EPS * np.eye(CHANNELS)
    shift = test.double().numpy() - train.double().numpy().mean(0)
    return np.einsum("ni,ij,nj->n", shift, np.linalg.inv(covariance), shift)


@pytest.mark.parametrize("offset", [0.0, 1e3])
@pytest.mark.parametrize("condition", BOUNDS)
@pytest.mark.parametrize("levels", [(12,), (5, 4, 3)], ids=str)
def test_squared_distances(levels: tuple[int, ...], condition: float, offset: float) -> None:
    train = samples(300, condition, offset, seed=0)
    near = samples(50, condition, offset, seed=1)
    far = near + torch.randn(near.shape, generator=torch.Generator().manual_seed(2))  # where normal images never are
    test = torch.cat([near, far])

    gaussian = NestedGaussian(EPS)
    gaussian.start([Level(1, 1, channels) for channels in levels])
    for batch in train.split(32):
        gaussian.update(batch.T.contiguous())
    got = gaussian.finalize().squared_distance(test.T.contiguous())[0].double().numpy()

    want = exact_distances(train, test)
    error = np.abs(got - want) / want
    print(f"condition {condition:.0e}, mean {offset:.0e}: relative error at most {error.max():.1e}")
    assert error.max() < BOUNDS[condition]
