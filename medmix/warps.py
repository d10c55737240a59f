"""Warps of a patch: fisheye and wave, as one bilinear resampling."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Deformation = Literal["fisheye", "wave"]


def warp(patches: Tensor, deformation: str, uniform: Tensor) -> Tensor:
    """Resample patches (B, C, S, S) on a bent grid.

    Args:
        patches: Patches to bend.
        deformation: "fisheye" (strength +-.2 to +-.6) or "wave" (amplitude .05 to .15, frequency 5 to 15, in [-1, 1]
            coordinates).
        uniform: (B, 3) numbers in [0, 1).
    """
    side = patches.shape[-1]
    axis = torch.linspace(-1, 1, side, device=patches.device)
    rows, columns = torch.meshgrid(axis, axis, indexing="ij")
    first, second, third = uniform[:, :, None, None].unbind(dim=1)  # (B, 1, 1) each
    if deformation == "fisheye":
        strength = (0.2 + 0.4 * first) * torch.where(second < 0.5, 1.0, -1.0)
        scale = 1 + strength * (rows**2 + columns**2 - 1) / 2
        rows, columns = rows * scale, columns * scale
    else:
        amplitude, frequency = 0.05 + 0.1 * first, 5 + 10 * second
        rows, columns = rows + amplitude * torch.sin(frequency * columns + 2 * math.pi * third), columns + 0 * first
    grid = torch.stack([columns, rows], dim=-1).to(patches.dtype)  # (B, S, S, 2), x first
    return F.grid_sample(patches, grid, padding_mode="reflection", align_corners=True)
