"""How pixels change: colour jitter and grayscale as one affine map per image, and the Bezier intensity curve.

All functions are batched and take any number of channels; saturation and hue need three and are skipped otherwise.
What a function has just made it goes on in place: fresh memory costs a CPU several times what the arithmetic does.
"""

import math
from typing import Literal

import torch
from torch import Tensor

Nonlinear = Literal["bezier", "genesis"]
CURVE_DIM = {"bezier": 4, "genesis": 5}  # random numbers per curve
TABLE_POINTS = 1000
BERNSTEIN = ((1.0, 0, 0, 0), (-3, 3, 0, 0), (3, -6, 3, 0), (-1, 3, -3, 1))  # control points -> coefficients
LUMA = (0.299, 0.587, 0.114)


def jitter_colour(
    images: Tensor, strengths: tuple[float, float, float, float], uniform: Tensor, grayscale: Tensor | None = None
) -> Tensor:
    """Images (B, C, H, W) in [0, 1] with jittered colours; the arguments are those of `colour_matrix`."""
    with torch.autocast(images.device.type, enabled=False):  # it would do the matrix products in half precision
        return apply_colour(images, *colour_matrix(images, strengths, uniform, grayscale))


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
    matrix = eye
    if channels == 3:
        chroma = torch.lerp(grey.expand(batch, -1, -1), eye, saturation)
        matrix = hue_rotation(2 * math.pi * strengths[3] * symmetric[:, 3]) @ chroma
    if grayscale is not None:
        matrix = torch.where(grayscale[:, None, None], grey, eye) @ matrix
    mean = grey[:1] @ images.flatten(2).mean(dim=2, keepdim=True)  # (B, 1, 1)
    offset = (1 - contrast) * brightness * mean  # a grey, which all that follows the contrast leaves as it is
    return matrix * (brightness * contrast), offset.expand(-1, channels, -1)


def grey_rows(channels: int, images: Tensor) -> Tensor:
    """The matrix (C, C) that replaces each channel by the luminance (the mean, unless C = 3)."""
    weights = LUMA if channels == 3 else (1 / channels,) * channels
    return torch.tensor(weights, dtype=images.dtype, device=images.device).expand(channels, channels)


def hue_rotation(angle: Tensor) -> Tensor:
    """Rotation of the colours about the grey axis: (B,) radians -> (B, 3, 3)."""
    third = 1 / 3
    root = math.sqrt(third)
    basis = torch.tensor(
        [
            [third] * 9,  # the part along the grey axis stays
            [2 * third, -third, -third, -third, 2 * third, -third, -third, -third, 2 * third],
            [0, -root, root, root, 0, -root, -root, root, 0],
        ],
        dtype=angle.dtype,
        device=angle.device,
    )
    return (torch.stack([torch.ones_like(angle), angle.cos(), angle.sin()], dim=1) @ basis).view(-1, 3, 3)


def apply_colour(images: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    """Apply the affine colour maps and clamp to [0, 1]."""
    return torch.baddbmm(offset, matrix, images.flatten(2)).clamp_(0, 1).view(images.shape)


def bend_intensity(images: Tensor, curve: Nonlinear, uniform: Tensor, invert_p: float = 0.5) -> Tensor:
    """Bend intensities by a random monotone Bezier curve from (0, 0) to (1, 1), or by its inversion y(1 - t).

    Args:
        images: (B, C, H, W) in [0, 1].
        curve: "bezier" (closed form) or "genesis" (two free control points, by a table).
        uniform: (B, 4) numbers in [0, 1) for "bezier": x1, y1, y2, inversion; (B, 5) for "genesis": x1, y1, y2,
            inversion, x2.
        invert_p: Share of inverted curves.

    Returns:
        Images (B, C, H, W) in [0, 1].
    """
    x1, y1, y2, invert, *x2 = uniform.to(images.dtype).unbind(dim=1)  # (B,) each
    ordinate = cubic(y1, y2, invert < invert_p)
    if curve == "genesis":
        return look_up(images, cubic(x1, x2[0], torch.zeros_like(x1, dtype=torch.bool)), ordinate)
    return evaluate(ordinate[:, :, None, None, None], bezier_parameter(images, x1)).clamp_(0, 1)


def bezier_parameter(images: Tensor, x1: Tensor) -> Tensor:
    """The t with x(t) = images, in closed form: for x2 = x1 + 1/3, x(t) = 2 h t + (1 - 2 h) t^2 with h = 3 x1 / 2."""
    # h = 0 has no derivative at 0, h = 1 none at 1, where rounding may also make the radicand negative.
    h = (0.025 + 0.975 * x1).clamp(max=0.999)[:, None, None, None]
    root = (images * (1 - 2 * h)).add_(h * h).sqrt_()
    if root.requires_grad:
        return images / (root + h)  # not in place: autograd needs the root as it is
    return torch.div(images, root.add_(h), out=root)


def cubic(first: Tensor, second: Tensor, inverted: Tensor) -> Tensor:
    """Coefficients (4, B) of the Bezier polynomial from 0 to 1 over t, the constant first; of 1 - t where inverted."""
    points = torch.stack([torch.zeros_like(first), first, second, torch.ones_like(first)])  # (4, B)
    points = torch.where(inverted, points.flip(0), points)
    basis = torch.tensor(BERNSTEIN, dtype=first.dtype, device=first.device)
    return (basis[:, :, None] * points).sum(dim=1)


def evaluate(coefficients: Tensor, t: Tensor) -> Tensor:
    """A cubic polynomial with coefficients (4, B, ...), the constant first, at t (B, ...)."""
    constant, linear, square, cube = coefficients
    value: Tensor = cube * t
    return value.add_(square).mul_(t).add_(linear).mul_(t).add_(constant)


def look_up(images: Tensor, abscissa: Tensor, ordinate: Tensor) -> Tensor:
    """Linear interpolation in the table of the points (x(t), y(t)) of a curve, as in Models Genesis."""
    t = torch.linspace(0, 1, TABLE_POINTS, dtype=images.dtype, device=images.device).expand(images.shape[0], -1)
    x, y = (evaluate(c[:, :, None], t) for c in (abscissa, ordinate))  # (B, points)
    value = images.flatten(1).contiguous()
    right = torch.searchsorted(x.contiguous(), value.detach()).clamp(1, TABLE_POINTS - 1)
    x0, x1, y0, y1 = x.gather(1, right - 1), x.gather(1, right), y.gather(1, right - 1), y.gather(1, right)
    share = ((value - x0) / (x1 - x0).clamp(min=1e-12)).clamp(0, 1)
    return torch.lerp(y0, y1, share).clamp(0, 1).view(images.shape)
