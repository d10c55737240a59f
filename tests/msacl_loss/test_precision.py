"""float32 against float64 at temperature .05: the bounds that docstrings state."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from msacl_loss import MSACLLoss, calibrated_contrastive_loss

VALUE = 4e-6  # of equation (5), absolute
GRADIENT = 5e-6  # of each row, relative
TERMS = 1e-6  # of the literal loss, relative


def views(length: float, offset: float, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Two views (128, 64), labels and centres; centres are `offset` times as far away as embeddings are from them."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn(128, 64, generator=generator)
    second = first + 0.3 * torch.randn(128, 64, generator=generator)
    labels = torch.arange(128) % 4
    directions = torch.nn.functional.normalize(torch.randn(4, 64, generator=generator), dim=1)
    centres = directions * offset * 8
    return (first + centres[labels]) * length, (second + centres[labels]) * length, labels, centres * length


@pytest.mark.parametrize("form", ["dense", "streaming"])
@pytest.mark.parametrize(("length", "offset"), [(1, 0), (1e4, 0), (1e-3, 0), (1, 100), (1e4, 100)])
def test_contrastive_value_and_gradient(form: Any, length: float, offset: float) -> None:
    z_a, z_b, labels, centres = views(length, offset, seed=0)
    results = []
    for dtype in (torch.float32, torch.float64):
        first = z_a.to(dtype).requires_grad_()
        loss = calibrated_contrastive_loss(
            first, z_b.to(dtype), labels, centres.to(dtype), temperature=0.05, implementation=form
        )
        results.append((loss.double(), torch.autograd.grad(loss, first)[0].double()))
    (value, gradient), (exact, exact_gradient) = results
    assert abs(value - exact) < VALUE
    error = (gradient - exact_gradient).norm(dim=1) / exact_gradient.norm(dim=1)
    assert error.max() < GRADIENT


@pytest.mark.parametrize("length", [1, 1e3, 1e6])
def test_literal_loss_of_long_embeddings(length: float) -> None:
    z_a, z_b, labels, centres = views(length, 0, seed=1)
    torch.manual_seed(0)
    criterion = MSACLLoss(64, temperature=0.05, normalize=False)
    criterion.set_centres(centres)
    exact = copy.deepcopy(criterion)
    for head in (exact.augmentation_head, exact.position_head):
        head.double()
    pairs = (z_a, z_b, labels)
    with pytest.warns(RuntimeWarning, match="centring term") if length > 1 else pytest.MonkeyPatch.context():
        got = criterion(z_a, z_b, labels, patch_pairs=pairs)
        want = exact(z_a.double(), z_b.double(), labels, patch_pairs=(z_a.double(), z_b.double(), labels))
    for term, exact_term in zip(got, want, strict=True):
        assert abs(term.double() - exact_term) <= TERMS * abs(exact_term)
