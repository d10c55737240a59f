"""What makes a lesion look unlike healthy tissue: warp, colour jitter, intensity curve and noise, in this order."""

import torch
from torch import Tensor

from medmix.appearance import Nonlinear, bend_intensity, jitter_colour
from medmix.warps import Deformation, warp
from medmix.windows import cut_noise

NOISE_POOL = 4096  # a lesion's noise is a stretch of one pool, so that a replay is exact and drawing it is cheap


def alter(
    patch: Tensor,
    row: dict[str, Tensor],
    noise_pool: Tensor,
    color_jitter: tuple[float, float, float, float],
    noise: tuple[float, float],
    nonlinear: Nonlinear | None,
    deformation: Deformation | None,
) -> Tensor:
    """Change the look of one patch per image.

    Args:
        patch: (B, C, S, S) in [0, 1].
        row: One lesion's parameters: uniform numbers "warp" (B, 3), "colour" (B, 4), "curve" (B, 4 or 5), "noise"
            (B, 2).
        noise_pool: Standard normal numbers, more than `NOISE_POOL` + C * S * S.
        color_jitter: Brightness, contrast, saturation and hue strengths.
        noise: Smallest and largest standard deviation.
        nonlinear: The intensity curve.
        deformation: The warp.

    Returns:
        (B, C, S, S) in [0, 1].
    """
    work = patch.float() if patch.dtype in (torch.float16, torch.bfloat16) else patch
    if deformation is not None:
        work = warp(work, deformation, row["warp"])
    work = jitter_colour(work, color_jitter, row["colour"])
    if nonlinear is not None:
        work = bend_intensity(work, nonlinear, row["curve"])
    if noise[1] > 0:
        std = noise[0] + (noise[1] - noise[0]) * row["noise"][:, 0]
        stretch = cut_noise(noise_pool, (row["noise"][:, 1] * NOISE_POOL).long(), work)
        work = work.addcmul_(std[:, None, None, None].to(work.dtype), stretch).clamp_(0, 1)
    return work.to(patch.dtype)
