"""The random Bezier intensity curve.

What a function has just made it goes on in place: fresh memory costs a CPU several times what the arithmetic does.
"""

from typing import Literal

import torch
from torch import Tensor

Nonlinear = Literal["bezier", "genesis"]
CURVE_DIM = {"bezier": 4, "genesis": 5}  # random numbers per curve
TABLE_POINTS = 1000


def curve_coefficients(
    curve: Nonlinear,
    uniform: Tensor,
    invert_p: float = 0.5,
) -> Tensor:
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
        never = torch.zeros_like(x1, dtype=torch.bool)
        abscissa = _cubic(x1, x2[0], never)
    else:
        # h = 0 has no derivative at 0, h = 1 none at 1, where rounding may also make the radicand negative
        h = (0.025 + 0.975 * x1).clamp(max=0.999)
        abscissa = h[..., None]
    ordinate = _cubic(y1, y2, invert < invert_p)
    return torch.cat([abscissa, ordinate], dim=-1)


def bend_intensity(
    images: Tensor,
    curve: Nonlinear,
    coefficients: Tensor,
) -> Tensor:
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
        return _look_up(images, abscissa, ordinate)
    t = _bezier_parameter(images, abscissa[:, :, None, None])
    return _evaluate(ordinate, t).clamp_(0, 1)


def _bezier_parameter(images: Tensor, h: Tensor) -> Tensor:
    """The t with x(t) = images, in closed form: for x2 = x1 + 1/3, x(t) = 2 h t + (1 - 2 h) t^2 with h = 3 x1 / 2."""
    radicand = (images * (1 - 2 * h)).add_(h * h)
    root = radicand.sqrt_()
    if root.requires_grad:
        return images / (root + h)  # not in place: autograd needs the root as it is
    denominator = root.add_(h)
    return torch.div(images, denominator, out=denominator)


def _cubic(
    first: Tensor,
    second: Tensor,
    inverted: Tensor,
) -> Tensor:
    """Coefficients (..., 4) of the Bezier polynomial from 0 to 1 over t, the constant first; of 1 - t if inverted."""
    start = inverted.to(first.dtype)
    end = (~inverted).to(first.dtype)
    near = torch.where(inverted, second, first)  # the control point beside the start
    far = torch.where(inverted, first, second)
    linear = 3 * (near - start)
    square = 3 * (start - 2 * near + far)
    cube = end - start + 3 * (near - far)
    return torch.stack([start, linear, square, cube], dim=-1)


def _evaluate(coefficients: Tensor, t: Tensor) -> Tensor:
    """A cubic polynomial with coefficients (B, 4), the constant first, at t (B, ...)."""
    singles = (1,) * (t.dim() - 1)
    constant, linear, square, cube = coefficients.view(-1, 4, *singles).unbind(dim=1)
    value: Tensor = cube * t
    return value.add_(square).mul_(t).add_(linear).mul_(t).add_(constant)


def _look_up(
    images: Tensor,
    abscissa: Tensor,
    ordinate: Tensor,
) -> Tensor:
    """Linear interpolation in the table of the points (x(t), y(t)) of a curve, as in Models Genesis."""
    steps = torch.linspace(0, 1, TABLE_POINTS, dtype=images.dtype, device=images.device)
    t = steps.expand(images.shape[0], -1)
    x = _evaluate(abscissa, t)  # (B, points)
    y = _evaluate(ordinate, t)
    # the table's points beside each pixel: no gradient flows through the search
    value = images.flatten(1).contiguous()
    right = torch.searchsorted(x.contiguous(), value.detach()).clamp(1, TABLE_POINTS - 1)
    left = right - 1
    x0 = x.gather(1, left)
    width = (x.gather(1, right) - x0).clamp(min=1e-12)
    share = ((value - x0) / width).clamp(0, 1)
    bent = torch.lerp(y.gather(1, left), y.gather(1, right), share)
    return bent.clamp(0, 1).view(images.shape)
