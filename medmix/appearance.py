"""How pixels change: colour jitter and grayscale as one affine map per image, and the Bezier intensity curve.

All functions are batched and take any number of channels; saturation and hue need three and are skipped otherwise.
What a function has just made it goes on in place: fresh memory costs a CPU several times what the arithmetic does.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from medmix.constants import constants

Nonlinear = Literal["bezier", "genesis"]
CURVE_DIM = {"bezier": 4, "genesis": 5}  # random numbers per curve
CURVE_WIDTH = {"bezier": 5, "genesis": 8}  # numbers that describe it
TABLE_POINTS = 1000
LUMA = (0.299, 0.587, 0.114)


def jitter_colour(
    images: Tensor, strengths: tuple[float, float, float, float], uniform: Tensor, grayscale: Tensor | None = None
) -> Tensor:
    """Images (B, C, H, W) in [0, 1] with jittered colours; the other arguments are those of `colour_matrix`."""
    return apply_colour(images, *colour_matrix(strengths, uniform, images.shape[1], grayscale))


def colour_matrix(
    strengths: tuple[float, float, float, float], uniform: Tensor, channels: int, grayscale: Tensor | None = None
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
    brightness, contrast, saturation = (1 + strengths[i] * symmetric[..., i] for i in range(3))
    matrix = torch.eye(channels, dtype=uniform.dtype, device=uniform.device).expand(*contrast.shape, -1, -1)
    weights = luma(channels, uniform)
    if channels == 3:
        turn = hue_rotation(2 * math.pi * strengths[3] * symmetric[..., 3])
        matrix = torch.lerp(weights.expand_as(turn), turn, saturation[..., None, None])  # no turn changes a grey
    if grayscale is not None:
        grey = (weights[:, None] * matrix).sum(dim=-2, keepdim=True)
        matrix = torch.where(grayscale[..., None, None], grey, matrix)
    return matrix * (brightness * contrast)[..., None, None], ((1 - contrast) * brightness)[..., None] * weights


def luma(channels: int, like: Tensor) -> Tensor:
    """Weights (C,) of the channels in the luminance; equal ones, unless C = 3."""
    return constants(LUMA, like) if channels == 3 else like.new_full((channels,), 1 / channels)


def hue_rotation(angle: Tensor) -> Tensor:
    """Rotation of the colours about the grey axis: (...) radians -> (..., 3, 3)."""
    cosine, sine = angle.cos(), angle.sin() * math.sqrt(1 / 3)
    own, ahead, behind = (1 + 2 * cosine) / 3, (1 - cosine) / 3 + sine, (1 - cosine) / 3 - sine
    rows = (own, behind, ahead), (ahead, own, behind), (behind, ahead, own)
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def apply_colour(images: Tensor, matrix: Tensor, pivot: Tensor) -> Tensor:
    """Images (B, C, H, W) under the affine colour maps (B, C, C), (B, C) of `colour_matrix`, clamped to [0, 1]."""
    pixels = images.flatten(2)  # (B, C, H * W)
    offset = (pivot.to(images.dtype) * pixels.mean(dim=2)).sum(dim=1)[:, None, None]
    with torch.autocast(images.device.type, enabled=False):  # it would multiply in half precision
        return torch.baddbmm(offset, matrix.to(images.dtype), pixels).clamp_(0, 1).view(images.shape)


def curve_coefficients(curve: Nonlinear, uniform: Tensor, invert_p: float = 0.5) -> Tensor:
    """What describes random monotone Bezier curves from (0, 0) to (1, 1), or their inversions y(1 - t).

    Args:
        curve: "bezier" (control points with x2 = x1 + 1/3) or "genesis" (two free control points).
        uniform: (..., 4) numbers in [0, 1) for "bezier": x1, y1, y2, inversion; (..., 5) for "genesis": x1, y1, y2,
            inversion, x2.
        invert_p: Share of inverted curves.

    Returns:
        (..., 5) for "bezier": h = 3 x1 / 2 and the polynomial y(t); (..., 8) for "genesis": x(t) and y(t).
    """
    x1, y1, y2, invert, *x2 = uniform.unbind(dim=-1)
    if curve == "genesis":
        abscissa = cubic(x1, x2[0], torch.zeros_like(x1, dtype=torch.bool))
    else:  # h = 0 has no derivative at 0, h = 1 none at 1, where rounding may also make the radicand negative
        abscissa = (0.025 + 0.975 * x1).clamp(max=0.999)[..., None]
    return torch.cat([abscissa, cubic(y1, y2, invert < invert_p)], dim=-1)


def bend_intensity(images: Tensor, curve: Nonlinear, coefficients: Tensor) -> Tensor:
    """Bend intensities by a curve for each image.

    Args:
        images: (B, C, H, W) in [0, 1].
        curve: "bezier" (closed form) or "genesis" (by a table).
        coefficients: Those of `curve_coefficients`, (B, 5 or 8).

    Returns:
        Images (B, C, H, W) in [0, 1].
    """
    abscissa, ordinate = coefficients.to(images.dtype).tensor_split([-4], dim=1)
    if curve == "genesis":
        return look_up(images, abscissa, ordinate)
    return evaluate(ordinate, bezier_parameter(images, abscissa[:, :, None, None])).clamp_(0, 1)


def bezier_parameter(images: Tensor, h: Tensor) -> Tensor:
    """The t with x(t) = images, in closed form: for x2 = x1 + 1/3, x(t) = 2 h t + (1 - 2 h) t^2 with h = 3 x1 / 2."""
    root = (images * (1 - 2 * h)).add_(h * h).sqrt_()
    if root.requires_grad:
        return images / (root + h)  # not in place: autograd needs the root as it is
    return torch.div(images, root.add_(h), out=root)


def cubic(first: Tensor, second: Tensor, inverted: Tensor) -> Tensor:
    """Coefficients (..., 4) of the Bezier polynomial from 0 to 1 over t, the constant first; of 1 - t if inverted."""
    start, end = inverted.to(first.dtype), (~inverted).to(first.dtype)
    first, second = torch.where(inverted, second, first), torch.where(inverted, first, second)
    square, cube = 3 * (start - 2 * first + second), end - start + 3 * (first - second)
    return torch.stack([start, 3 * (first - start), square, cube], dim=-1)


def evaluate(coefficients: Tensor, t: Tensor) -> Tensor:
    """A cubic polynomial with coefficients (B, 4), the constant first, at t (B, ...)."""
    constant, linear, square, cube = coefficients.view(-1, 4, *(1,) * (t.dim() - 1)).unbind(dim=1)
    value: Tensor = cube * t
    return value.add_(square).mul_(t).add_(linear).mul_(t).add_(constant)


def look_up(images: Tensor, abscissa: Tensor, ordinate: Tensor) -> Tensor:
    """Linear interpolation in the table of the points (x(t), y(t)) of a curve, as in Models Genesis."""
    t = torch.linspace(0, 1, TABLE_POINTS, dtype=images.dtype, device=images.device).expand(images.shape[0], -1)
    x, y = evaluate(abscissa, t), evaluate(ordinate, t)  # (B, points)
    value = images.flatten(1).contiguous()
    right = torch.searchsorted(x.contiguous(), value.detach()).clamp(1, TABLE_POINTS - 1)
    x0, x1, y0, y1 = x.gather(1, right - 1), x.gather(1, right), y.gather(1, right - 1), y.gather(1, right)
    share = ((value - x0) / (x1 - x0).clamp(min=1e-12)).clamp(0, 1)
    return torch.lerp(y0, y1, share).clamp(0, 1).view(images.shape)
