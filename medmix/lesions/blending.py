"""Seamless (Poisson) blending of patches into windows: only a patch's gradients are kept, as in NSA and PII.

Poisson's equation with the patch's gradients is Laplace's equation for the correction: inside the lesion the blended
image is the patch plus the harmonic membrane spanned by (target - patch) on the lesion's border.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Blending = Literal["hard", "feathered", "seamless"]

CYCLES = 4
DAMPING = 0.8
SWEEPS = 3  # with that many cycles, leaves at most 1 % of the correction, see the test
COARSEST = 4  # side in pixels of the smallest level


def seamless(
    patch: Tensor,
    target: Tensor,
    inside: Tensor,
) -> Tensor:
    """Patches (B, C, S, S) shifted by a smooth correction so that they meet the target on the lesion's border."""
    precise = torch.promote_types(patch.dtype, torch.float32)
    border = torch.where(inside, 0, (target - patch).to(precise))
    correction = membrane(border, inside.to(precise))
    return (patch + correction).clamp(0, 1).to(patch.dtype)


def membrane(values: Tensor, unknown: Tensor) -> Tensor:
    """Harmonic continuation of values (B, C, H, W) into the pixels where `unknown` (B, 1, H, W) is 1, by multigrid."""
    for _ in range(CYCLES):
        values = values + _v_cycle(_residual(values, None, unknown), unknown)
    return values


def _v_cycle(right: Tensor, unknown: Tensor) -> Tensor:
    """About the solution e (B, C, H, W) of e - mean of e's four neighbours = right, with e = 0 where all is known.

    A few damped Jacobi sweeps, the same with the remaining residual on a grid of half the resolution, and more sweeps.
    """
    height, width = right.shape[-2:]
    # the first sweep from zero leaves a share of the right side, which is 0 where all is known
    solution = _smooth(DAMPING * right, right, unknown, SWEEPS - 1)
    if min(height, width) > COARSEST:
        share = F.avg_pool2d(unknown, 2, ceil_mode=True)
        coarse_unknown = (share > 0.5).to(unknown.dtype)
        remaining = _residual(solution, right, unknown)
        coarse_right = 4 * F.avg_pool2d(remaining, 2, ceil_mode=True)  # 4: twice the spacing
        correction = _v_cycle(coarse_right * coarse_unknown, coarse_unknown)
        fine = F.interpolate(correction, scale_factor=2, mode="bilinear")[..., :height, :width]
        solution = _smooth((fine * unknown).add_(solution), right, unknown, SWEEPS)
    return solution


def _smooth(
    solution: Tensor,
    right: Tensor,
    unknown: Tensor,
    sweeps: int,
) -> Tensor:
    """Damped Jacobi sweeps."""
    for _ in range(sweeps):
        solution = _residual(solution, right, unknown).mul_(DAMPING).add_(solution)
    return solution


def _residual(
    solution: Tensor,
    right: Tensor | None,
    unknown: Tensor,
) -> Tensor:
    """The mean of the four neighbours minus the pixel, plus the right side, where unknown; no flow over the edge."""
    padded = F.pad(solution, (1, 1, 1, 1), mode="replicate")
    vertical = padded[..., :-2, 1:-1] + padded[..., 2:, 1:-1]
    horizontal = padded[..., 1:-1, :-2] + padded[..., 1:-1, 2:]
    mean = vertical.add_(horizontal).div_(4)
    remaining = mean.sub_(solution)
    if right is not None:
        remaining.add_(right)
    return remaining.mul_(unknown)
