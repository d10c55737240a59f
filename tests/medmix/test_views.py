"""Views for contrastive learning."""

from collections.abc import Callable

import kornia.augmentation as K
import pytest
import torch
from torchvision.transforms import v2

from medmix import (
    CutMixClasses,
    MedMix,
    MultiClassViews,
    NoiseClasses,
    PermutationClasses,
    RotationClasses,
    WeakAugmentation,
)
from medmix.views import StrongAugmentation

STRONG = (MedMix, PermutationClasses, RotationClasses, CutMixClasses, NoiseClasses)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


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


WEAK = {
    "kornia": K.RandomHorizontalFlip(p=0.5),
    "kornia chain": K.AugmentationSequential(K.RandomResizedCrop((16, 16)), K.RandomHorizontalFlip()),
    "torchvision v2": v2.Compose([v2.RandomResizedCrop(16), v2.RandomHorizontalFlip()]),
    "function": lambda x: x + 0.1 * torch.rand(len(x), 1, 1, 1),
}


@pytest.mark.parametrize("weak", WEAK.values(), ids=WEAK.keys())
def test_any_augmentation_makes_weak_views(weak: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Drawn anew for each image and each view, from the generator, which leaves the global one alone."""
    views = MultiClassViews(MedMix(p=0), weak, num_classes=1)
    x = torch.rand(1, 3, 16, 16).expand(24, -1, -1, -1)
    before = torch.get_rng_state()
    first = views(x, generator=generator(3))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first, views(x, generator=generator(3)), strict=True))
    view_a, view_b, _ = first
    assert view_a.shape == (24, 3, 16, 16)
    assert not torch.equal(view_a, view_b)
    assert not torch.equal(view_a, view_a[:1].expand_as(view_a))
    assert views(x)[0].shape == view_a.shape


@pytest.mark.parametrize("strong", [torch.nn.Identity(), torch.nn.Identity, K.RandomHorizontalFlip(), 3], ids=str)
def test_a_strong_augmentation_needs_augment_as(strong: object) -> None:
    with pytest.raises(TypeError, match="augment_as"):
        MultiClassViews(strong, WeakAugmentation(16))


def test_a_weak_augmentation_gives_one_view_per_image() -> None:
    with pytest.raises(TypeError, match="weak as a function"):
        MultiClassViews(MedMix, 3)
    for weak in (lambda x: x[:1], lambda x: [x]):
        with pytest.raises(TypeError, match="one view per image"):
            MultiClassViews(MedMix, weak)(torch.rand(2, 3, 16, 16))


STILL = WeakAugmentation(64, scale=(1, 1), ratio=(1, 1), flip_p=0, jitter_p=0, grayscale_p=0)


def test_a_foreground_reaches_the_views() -> None:
    """Where all classes still hold their number."""
    foreground = torch.zeros(3, 1, 64, 64, dtype=torch.bool)
    foreground[:, :, 8:56, 8:56] = True
    views, x = MultiClassViews(MedMix(size=(1 / 16, 1 / 8)), STILL), torch.rand(3, 3, 64, 64)
    view_a, _, labels = views(x, foreground=foreground, generator=generator())
    changed = (view_a - x.repeat_interleave(4, 0)).abs().amax(dim=1, keepdim=True) > 1e-4
    assert not (changed & ~foreground.repeat_interleave(4, 0)).any()
    assert torch.equal(changed.flatten(1).any(dim=1), labels > 0)


def test_a_foreground_too_small_for_every_class_is_refused() -> None:
    foreground = torch.zeros(3, 1, 64, 64, dtype=torch.bool)
    foreground[:, :, 8:56, 8:56] = True
    foreground[1] = False
    with pytest.raises(ValueError, match="room for 1 lesions in every image, got room for 0 in image 1"):
        MultiClassViews(MedMix, STILL)(torch.rand(3, 3, 64, 64), foreground=foreground)
    with pytest.raises(TypeError, match="takes a foreground, got RotationClasses"):
        MultiClassViews(RotationClasses, STILL)(torch.rand(3, 3, 64, 64), foreground=foreground)


@pytest.mark.parametrize("strong", [MedMix(), CutMixClasses(), RotationClasses()], ids=["MedMix", "CutMix", "rotation"])
def test_views_are_those_of_the_parts_called_one_by_one(strong: StrongAugmentation) -> None:
    x, weak, source = torch.rand(5, 3, 32, 32), WeakAugmentation(16), generator(7)
    actual = MultiClassViews(strong, weak)(x, generator=generator(7))
    classes = torch.stack([strong.augment_as(x, label, generator=source) for label in range(4)], dim=1).flatten(0, 1)
    for view in actual[:2]:
        assert torch.equal(view, weak(classes, generator=source))


def test_views_have_a_gradient() -> None:
    x = torch.rand(2, 3, 32, 32)
    views = MultiClassViews(MedMix, WeakAugmentation(16))
    expected = views(x, generator=generator())
    x.requires_grad_()
    actual = views(x, generator=generator())
    for got, want in zip(actual[:2], expected[:2], strict=True):
        torch.testing.assert_close(got, want)
    actual[0].sum().backward()
    assert x.grad.abs().sum() > 0


class Spoilt(RotationClasses):
    """Gives values outside [0, 1]."""

    def augment_as(self, images: torch.Tensor, label: int, generator: torch.Generator | None = None) -> torch.Tensor:
        return images + label


def test_strong_images_outside_the_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        MultiClassViews(Spoilt(), WeakAugmentation(16))(torch.rand(2, 3, 16, 16))


def test_repr_tells_the_number_of_classes() -> None:
    assert "num_classes=2" in repr(MultiClassViews(MedMix(), WeakAugmentation(16), num_classes=2))
