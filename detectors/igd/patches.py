"""Cutting images into overlapping square patches, and averaging patches back into images."""

import torch
import torch.nn.functional as F
from torch import Tensor

SIDE = 32
STRIDE = 16
MAX_PATCHES = 450  # of a training step: those of two images of 256 px


def cut_patches(images: Tensor) -> Tensor:
    """Cut (B, C, H, W) into all patches (B * n, C, 32, 32) at stride 16, those of an image together, row by row."""
    windows = images.unfold(2, SIDE, STRIDE).unfold(3, SIDE, STRIDE)  # (B, C, rows, columns, 32, 32)
    return windows.permute(0, 2, 3, 1, 4, 5).reshape(-1, images.shape[1], SIDE, SIDE)


def patches_per_image(image_size: int) -> int:
    """How many patches `cut_patches` makes of a square image."""
    return int(((image_size - SIDE) // STRIDE + 1) ** 2)


def patches_by_step(images: Tensor) -> list[Tensor]:
    """Patches of as many whole square images at once as make at most 450, at least those of one."""
    per_step = max(1, MAX_PATCHES // patches_per_image(images.shape[-1]))
    return [cut_patches(part) for part in torch.split(images, per_step)]


def average_patches(patches: Tensor, image_size: int) -> Tensor:
    """Put patches (B * n, 1, 32, 32) back at their places, averaged where they overlap: (B, 1, H, H)."""
    count = patches_per_image(image_size)
    columns = patches.reshape(-1, count, SIDE * SIDE).mT  # (B, 32 * 32, n)
    size = (image_size, image_size)
    total = F.fold(columns, size, SIDE, stride=STRIDE)
    coverage = F.fold(torch.ones_like(columns[:1]), size, SIDE, stride=STRIDE)
    return total / coverage
