"""Views for contrastive learning."""

import pytest
import torch

from medmix import (
    CutMixClasses,
    MedMix,
    MultiClassViews,
    NoiseClasses,
    PermutationClasses,
    RotationClasses,
    WeakAugmentation,
)

STRONG = (MedMix, PermutationClasses, RotationClasses, CutMixClasses, NoiseClasses)


@pytest.mark.parametrize("strong", STRONG)
def test_views_hold_each_class_of_each_image(strong) -> None:
    view_a, view_b, labels = MultiClassViews(strong, WeakAugmentation(16))(torch.rand(3, 3, 16, 16))
    assert view_a.shape == view_b.shape == (12, 3, 16, 16)
    assert labels.tolist() == [0, 1, 2, 3] * 3


@pytest.mark.parametrize("strong", STRONG)
def test_both_views_are_of_one_strongly_augmented_image(strong) -> None:
    still = WeakAugmentation(16, scale=(1, 1), ratio=(1, 1), flip_p=0, jitter_p=0, grayscale_p=0)
    x = torch.rand(3, 3, 16, 16)
    view_a, view_b, labels = MultiClassViews(strong, still)(x)
    assert torch.equal(view_a, view_b)
    torch.testing.assert_close(view_a[labels == 0], x)
    assert (view_a[labels > 0] != x.repeat_interleave(3, 0)).flatten(1).any(1).all()
