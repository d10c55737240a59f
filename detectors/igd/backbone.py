"""What IGD needs of a backbone: pooled features, one row per image."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from detectors.backbones import channels_taken, make_backbone, with_channels
from detectors.backbones.memory_format import prefer_channels_last
from detectors.backbones.named import is_published, published_statistics
from detectors.inputs import check_unit_range
from detectors.late_buffers import LateBuffers

CLASSIFIERS = ("fc", "classifier", "heads", "head")  # names that torchvision and timm give them


class BackboneOutputError(ValueError):
    """A backbone returns something else than pooled features."""


class PooledFeatures(LateBuffers):
    """A backbone whose output is (B, F), for images of one or more channels.

    The last linear layer of a submodule named `fc`, `classifier`, `heads` or `head` is left out, since what it returns
    are logits of classes; feature maps (B, F, h, w) are averaged over places; 1-channel images are repeated where the
    first convolution takes 3; images are normalised where a name's published weights want it.

    Args:
        backbone: A name of torchvision ("resnet18") or timm ("timm:tf_efficientnet_lite0"), a file of one, or a module,
            of which a copy is taken, that maps images (B, C, H, W) to features (B, F) or maps (B, F, h, w).
        frozen: Keep its parameters, and its batch-norm statistics, as they are.
        weights: Of a name: "imagenet", the path of a state_dict, or None for random ones.

    Raises:
        TypeError: If the backbone is no name, path or module.
        ValueError: If the name is unknown, or the classifier is not one that can be left out.
    """

    mean: Tensor | None
    std: Tensor | None

    def __init__(
        self,
        backbone: str | Path | nn.Module,
        frozen: bool,
        weights: str | Path | None = None,
    ) -> None:
        super().__init__()
        module, self.name = make_backbone(backbone, weights, pooled=True)
        self.frozen = frozen
        self.module = module.requires_grad_(not frozen)
        _leave_out_classifier(self.module)
        self.in_channels = channels_taken(self.module)
        self.register_late_buffer("mean")
        self.register_late_buffer("std")
        if self.name is not None and is_published(weights):
            mean, std = published_statistics(module)
            self.mean = torch.tensor(mean).view(1, -1, 1, 1)
            self.std = torch.tensor(std).view(1, -1, 1, 1)
        self.train(self.training)

    def train(self, mode: bool = True) -> "PooledFeatures":
        """Set the mode; a frozen backbone stays in evaluation mode."""
        super().train(mode)
        self.module.train(mode and not self.frozen)
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, C, H, W) to features (B, F)."""
        images = with_channels(images, self.in_channels)
        if self.mean is not None and self.std is not None:
            if images.device.type == "cpu":
                check_unit_range(images)
            mean = self.mean.to(images.dtype)
            std = self.std.to(images.dtype)
            images = (images - mean) / std
        features = self.module(images)
        if not isinstance(features, Tensor) or features.ndim not in (2, 4):
            raise BackboneOutputError(
                f"expected a backbone that returns pooled features (B, F), got {_described(features)}: add pooling and "
                "flatten, or give a module that returns one of its outputs"
            )
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
        backbone.eval()
        if backbone.frozen:
            prefer_channels_last(backbone.module, lambda: backbone(black))
        features = backbone(black)
    except BackboneOutputError:
        raise
    except Exception as error:  # a backbone may fail in any way: by an assertion, by a shape
        raise ValueError(
            f"expected a backbone for {channels} x {side} x {side} images, but it failed: {error}"
        ) from error
    finally:
        backbone.train(mode)
    return int(features.shape[1])


def _leave_out_classifier(network: nn.Module) -> None:
    """Replace the last linear layer of each classifier.

    Raises:
        ValueError: If a `classifier` holds convolutions only, as SqueezeNet's.
    """
    for name in CLASSIFIERS:
        head = getattr(network, name, None)
        if not isinstance(head, nn.Module):
            continue
        linear = [place for place, module in head.named_modules() if isinstance(module, nn.Linear)]
        if linear:
            setattr(network, name, _cut(head, linear[-1]))
            continue
        convolves = any(isinstance(module, nn.Conv2d) for module in head.modules())
        if name == "classifier" and convolves:
            raise ValueError(
                f"expected a backbone without its classifier, but {type(network).__name__}.classifier holds no linear "
                "layer that could be left out: pass nn.Sequential(backbone.features), or another part"
            )


def _cut(head: nn.Module, place: str) -> nn.Module:
    """A head without its last linear layer; what follows in a sequence belongs to the classes and goes with it."""
    if place == "":
        return nn.Identity()
    if isinstance(head, nn.Sequential) and "." not in place:
        names = [name for name, _ in head.named_children()]
        return head[: names.index(place)]
    head.set_submodule(place, nn.Identity())
    return head


def _described(output: Any) -> str:
    """A wrong output in a few words."""
    if isinstance(output, Tensor):
        return str(tuple(output.shape))
    if isinstance(output, (tuple, list)):
        return f"a {type(output).__name__} of {len(output)}"
    return type(output).__name__
