"""How pixels change: colour jitter and grayscale as one affine map per image, and the Bezier intensity curve.

All functions are batched and take any number of channels; saturation and hue need three and are skipped otherwise.
"""

import math

import torch
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)


def colour_matrix(
    images: Tensor, strengths: tuple[float, float, float, float], uniform: Tensor, grayscale: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Brightness, contrast, saturation and hue (in this order), then grayscale, as one affine map per image.

    Args:
        images: (B, C, H, W) in [0, 1]; their mean is the pivot of the contrast.
        strengths: (brightness, contrast, saturation, hue), as in torchvision's ColorJitter.
        uniform: (B, 4) numbers in [0, 1); .5 changes nothing.
        grayscale: (B,) bool, rows that become grey.

    Returns:
        Matrices (B, C, C) and offsets (B, C, 1).
    """
    batch, channels = images.shape[:2]
    symmetric = (2 * uniform - 1).to(images.dtype)  # (B, 4) in [-1, 1)
    brightness, contrast, saturation = (1 + strengths[i] * symmetric[:, i, None, None] for i in range(3))
    eye = torch.eye(channels, dtype=images.dtype, device=images.device).expand(batch, -1, -1)
    grey = grey_rows(channels, images)
    matrix = eye * brightness * contrast
    mean = grey[:1] @ images.flatten(2).mean(dim=2, keepdim=True)  # (B, 1, 1)
    offset = ((1 - contrast) * brightness * mean).expand(-1, channels, -1)
    if channels == 3:
        chroma = torch.lerp(grey.expand(batch, -1, -1), eye, saturation)
        turn = hue_rotation(2 * math.pi * strengths[3] * symmetric[:, 3])
        matrix = turn @ chroma @ matrix
        offset = turn @ chroma @ offset
    if grayscale is not None:
        to_grey = torch.where(grayscale[:, None, None], grey, eye)
        matrix, offset = to_grey @ matrix, to_grey @ offset
    return matrix, offset


def grey_rows(channels: int, images: Tensor) -> Tensor:
    """The matrix (C, C) that replaces each channel by the luminance (the mean, unless C = 3)."""
    weights = LUMA if channels == 3 else (1 / channels,) * channels
    return torch.tensor(weights, dtype=images.dtype, device=images.device).expand(channels, channels)


def hue_rotation(angle: Tensor) -> Tensor:
    """Rotation of the colours about the grey axis: (B,) radians -> (B, 3, 3)."""
    cosine, sine = angle.cos()[:, None, None], angle.sin()[:, None, None]
    eye = torch.eye(3, dtype=angle.dtype, device=angle.device)
    third = torch.full((3, 3), 1 / 3, dtype=angle.dtype, device=angle.device)
    cross = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]], dtype=angle.dtype, device=angle.device) / math.sqrt(3)
    return cosine * eye + (1 - cosine) * third + sine * cross


def apply_colour(images: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    """Apply the affine colour maps and clamp to [0, 1]."""
    return (torch.baddbmm(offset, matrix, images.flatten(2)).clamp(0, 1)).view(images.shape)


def bezier_intensity(images: Tensor, uniform: Tensor) -> Tensor:
    """Monotone Bezier curve from (0, 0) to (1, 1), inverted with probability 1/2.

    With control points x2 = x1 + 1/3 the abscissa is a quadratic, x(t) = a t + (1 - a) t^2 with a = 3 x1, and t has a
    closed form. The inverted curve is y(1 - t), as in Models Genesis.

    Args:
        images: (B, C, H, W) in [0, 1].
        uniform: (B, 4) numbers in [0, 1): x1, y1, y2, inversion.

    Returns:
        Images (B, C, H, W) in [0, 1].
    """
    a, y1, y2, invert = uniform.to(images.dtype)[:, :, None, None, None].unbind(dim=1)  # (B, 1, 1, 1) each
    a = 0.05 + 1.95 * a  # away from 0, where t would have no derivative at v = 0
    t = 2 * images / (a + torch.sqrt(a * a + 4 * (1 - a) * images).clamp(min=1e-6))
    t = torch.where(invert < 0.5, 1 - t, t).clamp(0, 1)
    s = 1 - t
    return (3 * s * s * t * y1 + 3 * s * t * t * y2 + t * t * t).clamp(0, 1)
