"""Colour jitter and grayscale as one affine map per image.

All functions are batched and take any number of channels; saturation and hue need three and are skipped otherwise.
"""

import math

import torch
from torch import Tensor

from medmix._random import small_tensor

Strengths = tuple[float, float, float, float]
LUMA = (0.299, 0.587, 0.114)


def jitter_colour(
    images: Tensor,
    strengths: Strengths,
    uniform: Tensor,
    grayscale: Tensor | None = None,
) -> Tensor:
    """Images (B, C, H, W) in [0, 1] with jittered colours; the other arguments are those of `colour_matrix`."""
    matrix, pivot = colour_matrix(strengths, uniform, images.shape[1], grayscale)
    return apply_colour(images, matrix, pivot)


def colour_matrix(
    strengths: Strengths,
    uniform: Tensor,
    channels: int,
    grayscale: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Brightness, contrast, saturation and hue (in this order), then grayscale, as one affine map per image.

    Args:
        strengths: (brightness, contrast, saturation, hue), as in torchvision's ColorJitter.
        uniform: (..., 4) numbers in [0, 1); .5 changes nothing.
        channels: Number of channels C.
        grayscale: (...) bool, maps that end in grey.

    Returns:
        Matrices (..., C, C), and weights (..., C) of the channels' means in the grey to add, the pivot of the contrast.
    """
    symmetric = 2 * uniform - 1  # (..., 4) in [-1, 1)
    brightness = 1 + strengths[0] * symmetric[..., 0]
    contrast = 1 + strengths[1] * symmetric[..., 1]
    saturation = 1 + strengths[2] * symmetric[..., 2]
    weights = luma(channels, uniform)
    identity = torch.eye(channels, dtype=uniform.dtype, device=uniform.device)
    matrix = identity.expand(*contrast.shape, -1, -1)
    if channels == 3:
        # a turn about the grey axis leaves greys as they are: saturation and hue may change places
        angle = 2 * math.pi * strengths[3] * symmetric[..., 3]
        turn = hue_rotation(angle)
        matrix = torch.lerp(weights.expand_as(turn), turn, saturation[..., None, None])
    if grayscale is not None:
        grey = (weights[:, None] * matrix).sum(dim=-2, keepdim=True)
        matrix = torch.where(grayscale[..., None, None], grey, matrix)
    # contrast c about the mean grey m of the brightened image b x: c b x + (1 - c) b m
    scale = brightness * contrast
    pivot = (1 - contrast) * brightness
    return matrix * scale[..., None, None], pivot[..., None] * weights


def luma(channels: int, like: Tensor) -> Tensor:
    """Weights (C,) of the channels in the luminance; equal ones, unless C = 3."""
    if channels == 3:
        return small_tensor(LUMA, like)
    return like.new_full((channels,), 1 / channels)


def hue_rotation(angle: Tensor) -> Tensor:
    """Rotation of the colours about the grey axis: (...) radians -> (..., 3, 3)."""
    cosine = angle.cos()
    sine = angle.sin() * math.sqrt(1 / 3)
    # a rotation about (1, 1, 1) treats the channels alike: three numbers fill the matrix
    own = (1 + 2 * cosine) / 3
    ahead = (1 - cosine) / 3 + sine
    behind = (1 - cosine) / 3 - sine
    red = torch.stack([own, behind, ahead], dim=-1)
    green = torch.stack([ahead, own, behind], dim=-1)
    blue = torch.stack([behind, ahead, own], dim=-1)
    return torch.stack([red, green, blue], dim=-2)


def apply_colour(
    images: Tensor,
    matrix: Tensor,
    pivot: Tensor,
) -> Tensor:
    """Images (B, C, H, W) under the affine colour maps (B, C, C), (B, C) of `colour_matrix`, clamped to [0, 1]."""
    pixels = images.flatten(2)  # (B, C, H * W)
    grey = (pivot.to(images.dtype) * pixels.mean(dim=2)).sum(dim=1)  # (B,)
    with torch.autocast(images.device.type, enabled=False):  # it would multiply in half precision
        mapped = torch.baddbmm(grey[:, None, None], matrix.to(images.dtype), pixels)
    return mapped.clamp_(0, 1).view(images.shape)
