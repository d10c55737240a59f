import copy

import pytest
import torch
from igd_cases import SMALL, small_detector, smooth_images, tiny_backbone
from torch import Tensor, nn
from torchvision.models import resnet18

from detectors import IGD


@pytest.mark.parametrize("channels", [1, 3])
def test_torchvision_resnet_is_a_backbone(channels):
    backbone = resnet18()
    before = copy.deepcopy(backbone.state_dict())
    detector = IGD(backbone, 32, "global", channels=channels, **SMALL)
    assert detector.scales["global"].model.project.in_features == 512
    detector.fit([torch.rand(2, channels, 32, 32)], 1, progress=False)
    assert isinstance(backbone.fc, nn.Linear)  # the caller's module is left alone
    torch.testing.assert_close(backbone.state_dict(), before)


def test_frozen_backbone_does_not_change_and_a_trained_one_does():
    for freeze in (True, False):
        detector = small_detector(freeze_backbone=freeze)
        before = copy.deepcopy(detector.backbones.state_dict())
        assert len(detector.backbones) == (1 if freeze else 2)
        detector.fit([smooth_images(4)], 1, progress=False)
        after = detector.backbones.state_dict()
        assert all(torch.equal(before[k], after[k]) for k in before) == freeze
        assert detector.train().scales["global"].backbone.module.training is not freeze


def test_wrong_backbones_are_refused():
    with pytest.raises(TypeError, match="got int"):
        IGD(3)
    with pytest.raises(ValueError, match=r"pooled features \(B, F\), got \(1, 3, 1024\)"):
        IGD(nn.Flatten(2), 32)
    with pytest.raises(ValueError, match="2 x 32 x 32 images, but it failed"):
        IGD(tiny_backbone(), 32, channels=2)


class Viewing(nn.Module):
    """Flattens its maps by `view`, which the channels_last layout does not allow."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 8, stride=8)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.convolution(images)
        return maps.view(len(maps), -1)


@torch.no_grad()
@pytest.mark.parametrize("backbone", [tiny_backbone(), Viewing(), resnet18()])
def test_features_are_those_of_the_backbone_in_any_memory_layout(backbone):
    detector, images = IGD(backbone, 32, "global", **SMALL), smooth_images(3)
    backbone.eval()
    maps = nn.Sequential(*list(backbone.children())[:-1]) if hasattr(backbone, "fc") else backbone
    features = maps(images)
    features = features.mean((2, 3)) if features.ndim == 4 else features
    torch.testing.assert_close(detector.scales["global"].backbone(images), features, atol=1e-5, rtol=1e-5)
