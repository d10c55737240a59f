"""Extract multi-layer feature maps with any backbone: a name, a file, or a module."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

import torch
from torch import Tensor, nn

from detectors.backbones.maps import as_maps, tokens_of
from detectors.backbones.memory_format import prefer_channels_last
from detectors.backbones.named import (
    IMAGENET,
    Statistics,
    backbone_of_file,
    is_name,
    is_published,
    named_backbone,
    published_statistics,
)
from detectors.backbones.taps import TappedBackbone, folded, tapped
from detectors.inputs import Shape, check_images, check_unit_range
from detectors.late_buffers import LateBuffers

Normalisation = Literal["auto", "imagenet"] | Statistics | None


class FeatureExtractor(LateBuffers):
    """The maps that a frozen backbone computes inside, or returns: images (B, C, H, W) to a list of (B, c, h, w).

    Channels-last maps (Swin) and tokens (ViT, DINOv2, DINOv3; class and register tokens dropped) are brought to that
    shape.

    Args:
        backbone: A name of torchvision ("resnet18") or timm ("timm:tf_efficientnet_lite0"), with `weights`; a file
            {"architecture": such a name, "state_dict": ...}; or any module. The extractor keeps a frozen copy in
            evaluation mode.
        layers: Names of the backbone's submodules whose outputs are the maps; only what they need is computed. Where
            the backbone has no such submodules, its forward must return the maps: a dict (these keys, if it has them
            all, else every value), a list, or an output of Hugging Face's. None takes what forward returns. A network
            of timm without the default's layers gives its maps of strides 4, 8 and 16 (a transformer those after a
            quarter, a half and three quarters of its blocks).
        weights: For a name only: "imagenet" (or "DEFAULT", or another name of torchvision's weights; downloaded once),
            the path of a state_dict, or None for random weights.
        normalize: What the images in [0, 1] need before the backbone: (mean, std) per channel, "imagenet", or None
            for nothing. "auto" is what published weights were made for, and None otherwise: your module gets the images
            as they are. The statistics are part of the state_dict, as the weights are.

    Raises:
        TypeError: If the backbone is no name, path or module.
        ValueError: If a name is unknown, a file is unusable, or weights are given with a module.
        RuntimeError: If weights cannot be downloaded.

    Example:
        >>> extract = FeatureExtractor("resnet18", ["layer1", "layer2"], weights=None)
        >>> [tuple(m.shape) for m in extract(torch.rand(1, 3, 32, 32))]
        [(1, 64, 8, 8), (1, 128, 4, 4)]
    """

    mean: Tensor | None
    std: Tensor | None

    def __init__(
        self,
        backbone: str | Path | nn.Module,
        layers: Sequence[str] | None,
        *,
        weights: str | Path | None = "DEFAULT",
        normalize: Normalisation = "auto",
    ) -> None:
        super().__init__()
        if isinstance(layers, str):
            raise TypeError(f"expected a sequence of layer names, got the string {layers!r}: write ({layers!r},)")
        network, self.name = make_backbone(backbone, weights)
        self.layers = None if layers is None else tuple(layers)
        is_named = self.name is not None
        self.backbone = tapped(network, self.layers, named=is_named).requires_grad_(False)
        self.in_channels = channels_taken(self.backbone)
        self._tokens = tokens_of(network)
        if normalize == "auto":
            published = isinstance(backbone, str) and is_name(backbone) and is_published(weights)
            normalize = published_statistics(network) if published else None
        self._set_statistics(IMAGENET if normalize == "imagenet" else normalize)
        self.eval()

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map images (B, C, H, W) to feature maps, in the order of `layers`; grey ones are repeated where 3 are due.

        Raises:
            TypeError: If the images are no floating-point tensor.
            ValueError: If shape, channels or device are wrong or, on the CPU, values are not finite, or far outside
                [0, 1] where they are normalised.
        """
        device = self.device_marker.device
        is_tensor = isinstance(images, Tensor)
        on_cpu = is_tensor and images.device.type == "cpu"
        check_images(images, finite=on_cpu, device=device)
        return self.maps(images)

    def maps(self, images: Tensor) -> list[Tensor]:
        """Do what `forward` does with images that are known to be finite floating-point ones on this device."""
        on_cpu = images.device.type == "cpu"
        if on_cpu and self.mean is not None:
            check_unit_range(images)
        shape = tuple(images.shape)
        images = with_channels(images, self.in_channels)
        try:
            if self.mean is not None and self.std is not None:
                mean = self.mean.to(images.dtype)
                std = self.std.to(images.dtype)
                images = (images - mean) / std
            outputs = self.backbone(images)
        except RuntimeError as error:
            # The first convolution need not be the one that sees the images: only a failure makes its number a reason.
            if shape[1] == self.in_channels or self.in_channels is None:
                raise
            raise ValueError(
                f"expected images (B, {self.in_channels}, H, W) for this backbone, got {shape}: channels come second, "
                "x.permute(0, 3, 1, 2)"
            ) from error
        image_size = (images.shape[2], images.shape[3])
        return as_maps(outputs, self.layers, image_size, self._tokens)

    def choose_memory_format(self, image_shape: Shape) -> None:
        """Compute in channels_last, if images (C, H, W) can go through the backbone in that layout."""
        like = next(self.backbone.parameters(), self.device_marker)
        black = like.new_zeros(1, *image_shape)
        prefer_channels_last(self.backbone, lambda: self.maps(black))

    def fold(self) -> None:
        """Join batch-norms with the convolutions before them: same maps, faster; not where torch.fx cannot trace."""
        if isinstance(self.backbone, TappedBackbone):
            whole = self.backbone
            self.backbone = folded(whole.backbone, whole.layers) or whole

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode: features of an image must not depend on its batch."""
        return super().train(False)

    def _set_statistics(self, statistics: Statistics | None) -> None:
        """Keep mean and standard deviation as (1, C, 1, 1)."""
        check_statistics(statistics)
        self.register_late_buffer("mean")
        self.register_late_buffer("std")
        if statistics is not None:
            mean, std = statistics
            self.mean = torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1)
            self.std = torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1)


def check_statistics(statistics: object) -> None:
    """Refuse what is no mean and standard deviation per channel."""
    if statistics is None:
        return
    try:
        mean, std = torch.tensor(statistics, dtype=torch.float64)  # two rows, or an error
        usable = mean.ndim == 1 and bool(mean.isfinite().all()) and bool(((std > 0) & std.isfinite()).all())
    except (TypeError, ValueError, RuntimeError):
        usable = False
    if not usable:
        raise ValueError(
            f"expected normalize as (mean, std) with a std above 0 per channel, 'imagenet', 'auto' or None, got "
            f"{statistics!r}: ((.485, .456, .406), (.229, .224, .225)) is ImageNet's"
        )


def make_backbone(
    backbone: str | Path | nn.Module, weights: str | Path | None, *, pooled: bool = False
) -> tuple[nn.Module, str | None]:
    """Build, read or copy a backbone.

    Args:
        backbone: A name of torchvision or timm, a file {"architecture": name, "state_dict": ...}, or a module.
        weights: Of a name; see `named_backbone`.
        pooled: Leave out the classifier of timm's networks, so that forward returns pooled features.

    Returns:
        The network, a copy where a module was given, and its name, None where a module was given.

    Raises:
        TypeError: If it is none of these.
        ValueError: If the name is unknown or the file unusable.
    """
    if isinstance(backbone, nn.Module):
        return copy.deepcopy(backbone), None
    if not isinstance(backbone, (str, Path)):
        raise TypeError(f"expected a torchvision name, a path or a module as backbone, got {type(backbone).__name__}")
    has_suffix = bool(Path(backbone).suffix)
    if isinstance(backbone, Path) or (has_suffix and not is_name(backbone)):
        return backbone_of_file(backbone, pooled=pooled)
    return named_backbone(str(backbone), weights, pooled=pooled), str(backbone)


def channels_taken(backbone: nn.Module) -> int | None:
    """How many channels the first convolution takes; None without any."""
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            return module.in_channels
    return None


def with_channels(images: Tensor, channels: int | None) -> Tensor:
    """Grey images (B, 1, H, W) repeated as (B, 3, H, W) where the backbone takes three channels."""
    if channels == 3 and images.shape[1] == 1:
        return images.expand(-1, 3, -1, -1)
    return images
