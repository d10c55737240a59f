"""What each class of a strong augmentation holds."""

import pytest
import scipy.ndimage
import torch

from medmix import (
    CutMixClasses,
    MedMix,
    NoiseClasses,
    PermutationClasses,
    RotationClasses,
)
from medmix.comparisons import _Classes


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def number_of_changes(before: torch.Tensor, after: torch.Tensor) -> int:
    """Connected components of the pixels that differ between two images (C, H, W)."""
    return scipy.ndimage.label((before != after).any(dim=0).numpy())[1]


STRONG = (MedMix, PermutationClasses, RotationClasses, CutMixClasses, NoiseClasses)


@pytest.mark.parametrize(
    "strong",
    [MedMix(softness=0, color_jitter=(0, 0, 0, 0), noise=(0, 0), nonlinear=None), MedMix(p=0.5), CutMixClasses()],
    ids=["MedMix", "half of the images", "CutMix"],
)
def test_class_n_has_n_lesions(strong: MedMix) -> None:
    x = torch.linspace(0.1, 0.9, 12)[:, None, None, None].expand(-1, 3, 48, 48)
    for label in range(4):
        images = strong.augment_as(x, label, generator=generator(label))
        counts = [number_of_changes(a, b) for a, b in zip(x, images, strict=True)]
        if strong.p == 1:
            assert counts == [label] * 12
            donor = (images - 0.1) * 11 / 0.8
            assert (donor - donor.round()).abs().max() < 1e-3  # no pixel between two images' constants
        assert all((count > 0) == (label > 0) for count in counts)  # jitter may tear a lesion's pixels apart


def test_class_n_is_n_quarter_turns() -> None:
    x = torch.rand(2, 3, 8, 8, generator=generator(0))
    for label in range(4):
        turned = RotationClasses().augment_as(x, label)
        assert torch.equal(torch.rot90(turned, 4 - label, dims=(2, 3)), x)
    assert not torch.equal(RotationClasses().augment_as(x, 1), RotationClasses().augment_as(x, 2))


def test_permutations_swap_halves() -> None:
    x = torch.arange(4.0).view(1, 1, 2, 2).repeat_interleave(3, 2).repeat_interleave(3, 3) / 4
    quarters = [(4 * PermutationClasses().augment_as(x, n)[0, 0, ::3, ::3]).long().tolist() for n in range(4)]
    assert quarters == [[[0, 1], [2, 3]], [[1, 0], [3, 2]], [[2, 3], [0, 1]], [[3, 2], [1, 0]]]


def test_noise_grows_with_the_class() -> None:
    x = torch.full((16, 3, 32, 32), 0.5)
    for label in range(4):
        std = (NoiseClasses(0.05).augment_as(x, label, generator=generator(label)) - x).std()
        assert abs(std - 0.05 * label) < 0.005


@pytest.mark.parametrize("strong", STRONG)
def test_strong_augmentations_called_alone(strong) -> None:
    x = torch.rand(8, 3, 16, 16)
    images, labels, masks = strong()(x, generator=generator())
    assert labels.sort().values.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert torch.equal(images[labels == 0], x[labels == 0])
    assert torch.equal(masks.flatten(1).any(1), labels > 0)


def test_permutation_swaps_halves() -> None:
    x = torch.arange(16.0).view(1, 1, 4, 4) / 16
    top_bottom = PermutationClasses().augment_as(x, 2)
    assert torch.equal(top_bottom[0, 0, :2], x[0, 0, 2:])
    left_right = PermutationClasses().augment_as(x, 1)
    assert torch.equal(left_right[0, 0, :, :2], x[0, 0, :, 2:])


def test_a_strong_augmentation_without_classes_says_so() -> None:
    with pytest.raises(NotImplementedError):
        _Classes()(torch.rand(1, 3, 8, 8))
