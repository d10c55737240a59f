"""Warps of a patch: fisheye and wave, as one bilinear resampling."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Deformation = Literal["fisheye", "wave"]


def warp(
    patches: Tensor,
    deformation: Deformation,
    uniform: Tensor,
) -> Tensor:
    """Resample patches on a bent grid.

    Args:
        patches: Patches to bend, (B, C, S, S).
        deformation: "fisheye" (strength +-.2 to +-.6) or "wave" (amplitude .05 to .15, frequency 5 to 15, in [-1, 1]
            coordinates).
        uniform: (B, 3) numbers in [0, 1).
    """
    side = patches.shape[-1]
    axis = torch.linspace(-1, 1, side, device=patches.device)
    rows, columns = torch.meshgrid(axis, axis, indexing="ij")
    first, second, third = uniform[:, :, None, None].unbind(dim=1)  # (B, 1, 1) each
    if deformation == "fisheye":
        # points move along the ray from the centre, inwards or outwards, and the unit circle stays
        sign = torch.where(second < 0.5, 1.0, -1.0)
        strength = (0.2 + 0.4 * first) * sign
        scale = 1 + strength * (rows**2 + columns**2 - 1) / 2
        rows = rows * scale
        columns = columns * scale
    else:
        amplitude = 0.05 + 0.1 * first
        frequency = 5 + 10 * second
        phase = 2 * math.pi * third
        rows = rows + amplitude * torch.sin(frequency * columns + phase)
        columns = columns + 0 * first  # (B, S, S), as the rows
    grid = torch.stack([columns, rows], dim=-1)  # (B, S, S, 2), x first
    return F.grid_sample(patches, grid.to(patches.dtype), padding_mode="reflection", align_corners=True)
