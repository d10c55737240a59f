"""Square windows of a batch: where they lie, cutting them out, writing them back. One window per image."""

import torch
from torch import Tensor


def window_index(corner: Tensor, side: int, width: int) -> Tensor:
    """Flat pixel indices of the windows with these upper left corners: (B, 2) -> (B, side * side)."""
    steps = torch.arange(side, device=corner.device)
    rows, columns = corner[:, :1] + steps, corner[:, 1:] + steps  # (B, side) each
    return (rows[:, :, None] * width + columns[:, None, :]).flatten(1)


def cut(images: Tensor, index: Tensor, side: int) -> Tensor:
    """Windows (B, C, side, side) of images (B, C, H, W)."""
    batch, channels = images.shape[:2]
    expanded = index[:, None].expand(-1, channels, -1)  # (B, C, side * side)
    return images.flatten(2).gather(2, expanded).view(batch, channels, side, side)


def paste(images: Tensor, index: Tensor, windows: Tensor) -> Tensor:
    """A copy of the images with the windows written at their indices."""
    expanded = index[:, None].expand(-1, images.shape[1], -1)
    return images.flatten(2).scatter(2, expanded, windows.flatten(2)).view(images.shape)
