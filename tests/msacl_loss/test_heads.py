"""The two heads against their formulas."""

import math

import pytest
import torch

from msacl_loss import MSACLLoss

GENERATOR = torch.Generator().manual_seed(0)
Z_FIRST, Z_SECOND = torch.randn(2, 5, 6, generator=GENERATOR)


@pytest.mark.parametrize("normalize", [True, False])
def test_augmentation_logits(normalize: bool) -> None:
    criterion = MSACLLoss(6, 3, normalize=normalize)
    seen = Z_FIRST / Z_FIRST.norm(dim=1, keepdim=True) * math.sqrt(6) if normalize else Z_FIRST
    head = criterion.augmentation_head
    torch.testing.assert_close(criterion.augmentation_logits(Z_FIRST), seen @ head.weight.T + head.bias)
    assert criterion.augmentation_logits(Z_FIRST).shape == (5, 3)


def test_features_are_seen_as_they_are() -> None:
    criterion = MSACLLoss(2, 3, augmentation_dim=6)
    head = criterion.augmentation_head
    torch.testing.assert_close(criterion.augmentation_logits(Z_FIRST), Z_FIRST @ head.weight.T + head.bias)


@pytest.mark.parametrize("position_input", ["difference", "concat"])
def test_position_logits(position_input: str) -> None:
    criterion = MSACLLoss(6, position_input=position_input, normalize=False)
    seen = Z_FIRST - Z_SECOND if position_input == "difference" else torch.cat((Z_FIRST, Z_SECOND), dim=1)
    first, _, last = criterion.position_head
    hidden = (seen @ first.weight.T + first.bias).clamp(min=0)
    logits = criterion.position_logits(Z_FIRST, Z_SECOND)
    torch.testing.assert_close(logits, hidden @ last.weight.T + last.bias)
    assert logits.shape == (5, 8)


def test_embeddings_of_another_precision() -> None:
    criterion = MSACLLoss(6)
    assert criterion.augmentation_logits(Z_FIRST.double()).dtype == torch.float32
