"""Parameters: nested over the number of lesions, and moved to the images."""

import kornia.augmentation as K
import pytest
import torch
from hypothesis import given
from medmix_cases import SEEDS, batches, generator, mixes
from torch import Tensor

from medmix import (
    MedMix,
)


def test_parameters_follow_the_images_to_their_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kornia's containers draw without a device; "meta" stands for an accelerator."""
    monkeypatch.setattr(
        "medmix.lesions.alterations.apply_colour", lambda images, *rest: images
    )  # autocast knows no "meta"
    monkeypatch.setattr("medmix._checks.check_tensor", lambda images: None)  # which refuses "meta" itself
    mix, x = MedMix(2, data_keys=["input", "mask"]), torch.rand(2, 3, 32, 32, device="meta")
    images, mask = K.AugmentationSequential(mix, data_keys=["input", "mask"])(x, torch.zeros_like(x[:, :1]))
    assert images.device == mask.device == x.device
    assert mix(x, x[:, :1], params=mix.forward_parameters(x.shape))[0].device == x.device


@given(mixes(), batches(), SEEDS)
def test_one_draw_nests_its_lesions(mix: MedMix, x: Tensor, seed: int) -> None:
    """The image with n lesions holds the lesions of the image with n - 1, pixel by pixel."""
    params = mix.forward_parameters(x.shape, generator=generator(seed))
    fewer, smaller = x, torch.zeros_like(x[:, :1], dtype=torch.bool)
    for n in range(max(mix.num_lesions) + 1):
        images, _, masks = mix(x, params=params | {"num_lesions": torch.full((len(x),), n)})
        assert (masks | ~smaller).all()
        assert torch.equal(images.masked_select(smaller), fewer.masked_select(smaller))
        fewer, smaller = images, masks


@given(batches(), SEEDS)
def test_classes_of_one_draw_are_nested(x: Tensor, seed: int) -> None:
    """The lesions of class n are n of those of class 3, so that none of them tells the class by itself."""
    mix = MedMix()
    most = mix.augment_as(x, 3, generator(seed))
    for n in (1, 2):
        images = mix.augment_as(x, n, generator(seed))
        changed = (images != x).any(dim=1, keepdim=True)
        assert torch.equal(images.masked_select(changed), most.masked_select(changed))
