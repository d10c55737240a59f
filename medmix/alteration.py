"""What makes a lesion look unlike healthy tissue: warp, colour jitter, intensity curve and noise, in this order."""

import torch
from torch import Tensor

from medmix.appearance import Nonlinear, apply_colour, bend_intensity
from medmix.warps import Deformation, warp
from medmix.windows import cut_noise

NOISE_POOL = 2**16  # a lesion's noise is a stretch of one pool, which makes replays exact and drawing cheap


def alter(
    patch: Tensor,
    numbers: dict[str, Tensor],
    noise_pool: Tensor,
    noisy: bool,
    nonlinear: Nonlinear | None,
    deformation: Deformation | None,
) -> Tensor:
    """Change the look of patches.

    Args:
        patch: (B, C, S, S) in [0, 1].
        numbers: What describes the lesions: "warp" (B, 3), "colour" (B, C, C), "pivot" (B, C), "curve" (B, 5 or 8),
            "std" (B,) and "stretch" (B,), where a lesion's noise begins in the pool.
        noise_pool: Standard normal numbers, at least `NOISE_POOL` + C * S * S; lesions' stretches may overlap.
        noisy: Whether noise is added.
        nonlinear: The intensity curve.
        deformation: The warp.

    Returns:
        (B, C, S, S) in [0, 1].
    """
    work = patch.float() if patch.dtype in (torch.float16, torch.bfloat16) else patch
    if deformation is not None:
        work = warp(work, deformation, numbers["warp"])
    work = apply_colour(work, numbers["colour"], numbers["pivot"])
    if nonlinear is not None:
        work = bend_intensity(work, nonlinear, numbers["curve"])
    if noisy:
        noise = cut_noise(noise_pool, numbers["stretch"], work)
        work = work.addcmul_(numbers["std"][:, None, None, None].to(work.dtype), noise).clamp_(0, 1)
    return work.to(patch.dtype)
