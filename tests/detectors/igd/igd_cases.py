"""Small detectors and images for the tests of IGD."""

import torch
from torch import Tensor, nn

from detectors import IGD

SMALL = {"width": 1 / 32, "code_dim": 16}


def tiny_backbone(channels: int = 3) -> nn.Module:
    """Feature maps (B, 24, h, w) with batch-norm, so that modes matter."""
    return nn.Sequential(nn.Conv2d(channels, 24, 4, stride=4), nn.BatchNorm2d(24), nn.ReLU())


def colours() -> nn.Module:
    """Mean colours of 8 x 8 squares: features that tell images apart without training."""
    return nn.Sequential(nn.AvgPool2d(8), nn.Flatten())


def smooth_images(count: int, size: int = 32, channels: int = 3, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    small = torch.rand(count, channels, 4, 4, generator=generator)
    return nn.functional.interpolate(small, size=(size, size), mode="bilinear")


def small_detector(size: int = 32, scales: str = "both", seed: int = 0, **options) -> IGD:
    torch.manual_seed(seed)
    channels = options.get("channels", 3)
    return IGD(tiny_backbone(channels), size, scales, **SMALL | options)


def fitted(size: int = 32, scales: str = "both", epochs: int = 1, **options) -> IGD:
    detector = small_detector(size, scales, **options)
    return detector.fit([smooth_images(4, size, options.get("channels", 3))], epochs, progress=False)
