"""What IGD needs of a backbone: pooled features, one row per image."""

import copy

import torch
from torch import Tensor, nn

from detectors.backbones import channels_taken, with_channels


class PooledFeatures(nn.Module):
    """A copy of a backbone whose output is (B, F), for images of one or more channels.

    A last layer named `fc` (torchvision's ResNet) is left out; feature maps (B, F, h, w) are averaged over places;
    1-channel images are repeated where the first convolution takes 3.

    Args:
        backbone: Module that maps images (B, C, H, W) to pooled features (B, F) or feature maps (B, F, h, w).
        frozen: Keep its parameters, and its batch-norm statistics, as they are.

    Raises:
        TypeError: If the backbone is not a module.
    """

    def __init__(self, backbone: nn.Module, frozen: bool) -> None:
        super().__init__()
        if not isinstance(backbone, nn.Module):
            raise TypeError(f"expected backbone to be a torch.nn.Module, got {type(backbone).__name__}")
        self.frozen = frozen
        self.module = copy.deepcopy(backbone).requires_grad_(not frozen)
        if isinstance(getattr(self.module, "fc", None), nn.Linear):
            self.module.fc = nn.Identity()
        self.in_channels = channels_taken(self.module)
        self.train(self.training)

    def train(self, mode: bool = True) -> "PooledFeatures":
        """Set the mode; a frozen backbone stays in evaluation mode."""
        super().train(mode)
        self.module.train(mode and not self.frozen)
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, C, H, W) to features (B, F)."""
        features: Tensor = self.module(with_channels(images, self.in_channels))
        return features.mean((2, 3)) if features.ndim == 4 else features


@torch.no_grad()
def feature_width(backbone: PooledFeatures, side: int, channels: int) -> int:
    """Number of features, found by running one black image.

    Raises:
        ValueError: If the backbone does not take such images or does not return (B, F).
    """
    mode = backbone.training
    tensor = next(backbone.parameters(), torch.empty(0))
    black = torch.zeros(1, channels, side, side, device=tensor.device)
    try:
        choose_memory_format(backbone.eval(), black)
        features = backbone(black)
    except RuntimeError as error:
        raise ValueError(
            f"expected a backbone for {channels} x {side} x {side} images, but it failed: {error}"
        ) from error
    finally:
        backbone.train(mode)
    if not isinstance(features, Tensor) or features.ndim != 2:
        got = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise ValueError(f"expected a backbone that returns pooled features (B, F), got {got}: add pooling and flatten")
    return features.shape[1]


def choose_memory_format(backbone: PooledFeatures, images: Tensor) -> None:
    """Keep a frozen backbone's convolutions in channels_last: same features, on the CPU in half the time.

    A backbone that flattens maps by `view` cannot work in that layout and keeps the usual one.
    """
    if not backbone.frozen:
        return
    backbone.module.to(memory_format=torch.channels_last)
    try:
        backbone(images)
    except RuntimeError:
        backbone.module.to(memory_format=torch.contiguous_format)
