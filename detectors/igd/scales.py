"""The two scales of IGD: the whole image and its patches.

A scale answers four questions: which inputs of its model do these images make (`inputs`), in which batches does it
train on them (`training_batches`), which of the model's values belong to which image (`per_image`), and what map of
the image do the model's maps make (`image_map`). Nothing else in IGD asks which scale it deals with.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detectors.igd.backbone import PooledFeatures
from detectors.igd.model import IGDModel, TrainingPass

PATCH_SIDE = 32
PATCH_STRIDE = 16
MAX_PATCHES = 450  # of a training step: those of two images of 256 px


class Scale(ABC):
    """A model, its backbone, and how images belong to its inputs.

    It is no module: the detector registers both, and one frozen backbone may serve two scales.

    Args:
        model: Reconstructs and classifies.
        backbone: Gives the model its features.
        image_size: Side of the whole images.
    """

    name: ClassVar[str]

    def __init__(self, model: IGDModel, backbone: PooledFeatures, image_size: int) -> None:
        self.model = model
        self.backbone = backbone
        self.image_size = image_size

    @staticmethod
    @abstractmethod
    def side(image_size: int) -> int:
        """Side of the model's inputs for images of this side."""

    @abstractmethod
    def inputs(self, images: Tensor, chunk_size: int) -> list[Tensor]:
        """Inputs (N, C, S, S) that images (B, C, H, H) make, in chunks; those of one image stand together."""

    @abstractmethod
    def training_batches(self, images: Tensor) -> list[Tensor]:
        """The same inputs, in the batches of a training step each."""

    @abstractmethod
    def per_image(self, values: Tensor) -> Tensor:
        """One value per input (N,) as a row per image (B, N / B)."""

    @abstractmethod
    def image_map(self, maps: Tensor) -> Tensor:
        """Maps of inputs (N, 1, S, S) as maps of images (B, 1, H, H)."""

    def codes(self, inputs: Tensor) -> Tensor:
        """Codes z (N, D) of inputs."""
        codes: Tensor = self.model.project(self.backbone(inputs))
        return codes

    def training_pass(self, inputs: Tensor, generator: torch.Generator | None) -> TrainingPass:
        """What the losses of a batch of inputs are functions of."""
        return self.model.training_pass(inputs, self.backbone(inputs), generator)

    def generator_parameters(self) -> list[nn.Parameter]:
        """Trainable parameters of encoder and decoder."""
        trained = [p for p in self.backbone.parameters() if p.requires_grad]
        return self.model.generator_parameters() + trained

    def critic_parameters(self) -> list[nn.Parameter]:
        """Parameters of the critic."""
        return list(self.model.critic.parameters())


class GlobalScale(Scale):
    """The whole image is the only input it makes."""

    name = "global"

    @staticmethod
    def side(image_size: int) -> int:
        """The image's own side."""
        return image_size

    def inputs(self, images: Tensor, chunk_size: int) -> list[Tensor]:
        """The images, in one chunk."""
        return [images]

    def training_batches(self, images: Tensor) -> list[Tensor]:
        """The images, in one batch."""
        return [images]

    def per_image(self, values: Tensor) -> Tensor:
        """Add an axis: (B,) -> (B, 1)."""
        return values[:, None]

    def image_map(self, maps: Tensor) -> Tensor:
        """The maps themselves."""
        return maps


class LocalScale(Scale):
    """An image makes all its patches of 32 x 32 pixels at stride 16."""

    name = "local"

    @staticmethod
    def side(image_size: int) -> int:
        """The patches' side."""
        return PATCH_SIDE

    def inputs(self, images: Tensor, chunk_size: int) -> list[Tensor]:
        """The patches of all images, `chunk_size` at once."""
        return list(torch.split(cut_patches(images), chunk_size))

    def training_batches(self, images: Tensor) -> list[Tensor]:
        """Patches of as many whole images at once as make at most 450, at least those of one."""
        images_per_step = max(1, MAX_PATCHES // patches_per_image(self.image_size))
        return [cut_patches(some) for some in torch.split(images, images_per_step)]

    def per_image(self, values: Tensor) -> Tensor:
        """A row of all patches for each image."""
        return values.view(-1, patches_per_image(self.image_size))

    def image_map(self, maps: Tensor) -> Tensor:
        """The patches' maps at their places, averaged where they overlap."""
        return average_patches(maps, self.image_size)


KINDS: dict[str, tuple[type[Scale], ...]] = {
    "global": (GlobalScale,),
    "local": (LocalScale,),
    "both": (GlobalScale, LocalScale),
}


def cut_patches(images: Tensor) -> Tensor:
    """Cut (B, C, H, W) into all patches (B * n, C, 32, 32) at stride 16, those of an image together, row by row."""
    rows = images.unfold(2, PATCH_SIDE, PATCH_STRIDE)
    windows = rows.unfold(3, PATCH_SIDE, PATCH_STRIDE)  # (B, C, rows, columns, 32, 32)
    patches = windows.permute(0, 2, 3, 1, 4, 5)  # (B, rows, columns, C, 32, 32)
    return patches.reshape(-1, images.shape[1], PATCH_SIDE, PATCH_SIDE)


def patches_per_image(image_size: int) -> int:
    """How many patches `cut_patches` makes of a square image."""
    per_row = (image_size - PATCH_SIDE) // PATCH_STRIDE + 1
    return per_row * per_row


def average_patches(patches: Tensor, image_size: int) -> Tensor:
    """Put patches (B * n, 1, 32, 32) back at their places, averaged where they overlap: (B, 1, H, H)."""
    count = patches_per_image(image_size)
    columns = patches.reshape(-1, count, PATCH_SIDE * PATCH_SIDE).mT  # (B, 32 * 32, n)
    # `fold` sums what overlaps; the same sum of ones is the number of patches over each pixel.
    size = (image_size, image_size)
    total = F.fold(columns, size, PATCH_SIDE, stride=PATCH_STRIDE)
    ones = torch.ones_like(columns[:1])
    coverage = F.fold(ones, size, PATCH_SIDE, stride=PATCH_STRIDE)
    return total / coverage
