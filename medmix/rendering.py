"""From a lesion's numbers to its pixels: where its window lies, the altered patch in it, and its opacity."""

from typing import NamedTuple

import torch
from torch import Tensor

from medmix.alteration import alter
from medmix.appearance import Nonlinear
from medmix.blending import Blending, seamless
from medmix.outlines import Shape, lesion_alpha
from medmix.warps import Deformation
from medmix.windows import Lesions, cut, place_windows, window_starts

FAR = 1e6  # pixels; added to the place of an absent lesion: beyond any window


class Look(NamedTuple):
    """The options of `MedMix` that say how lesions are made from their numbers."""

    shape: Shape
    blending: Blending
    softness: float
    noisy: bool
    nonlinear: Nonlinear | None
    deformation: Deformation | None


def render_lesions(donors: Tensor, numbers: dict[str, Tensor], noise_pool: Tensor, side: int, look: Look) -> Lesions:
    """Make N lesions, each in a window of its own.

    Args:
        donors: (B, C, H, W) contiguous, in [0, 1]: what patches are cut from and lesions will be pasted into.
        numbers: What describes the lesions, (N, ...) each: "image" and "source", the row that a lesion belongs to and
            how many rows further on its donor lies; "present" bool; "centre", "origin", "radius", "outline"; and
            those of `alter`.
        noise_pool: Standard normal numbers.
        side: The windows' side in pixels.
        look: The options.
    """
    shape, image = donors.shape, numbers["image"]
    corner, donor_corner = place_windows(numbers["centre"], numbers["origin"], side, shape[2:])
    starts = window_starts(corner, image, shape)
    donor_starts = window_starts(donor_corner, (image + numbers["source"]) % len(donors), shape)
    patch = alter(cut(donors, donor_starts, side), numbers, noise_pool, look.noisy, look.nonlinear, look.deformation)
    softness = look.softness if look.blending == "feathered" else 0
    offset = offsets(corner - numbers["centre"], numbers["present"], side)
    alpha, inside = lesion_alpha(look.shape, softness, offset, numbers["radius"], numbers["outline"])
    if look.blending == "seamless":  # other lesions leave the pixels around this one as they are
        patch = seamless(patch, cut(donors, starts, side), inside)
    mask_starts = window_starts(corner, image, torch.Size((shape[0], 1, *shape[2:])))
    return Lesions(starts, mask_starts, patch, alpha.to(patch.dtype), inside)


def offsets(corner: Tensor, present: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Pixel positions in windows: corners (N, 2) from the centres -> rows (N, S, 1), columns (N, 1, S)."""
    steps = torch.arange(side, device=corner.device)
    rows, columns = (corner + FAR * ~present[:, None]).unbind(dim=1)  # (N,) each
    return (rows[:, None] + steps)[:, :, None], (columns[:, None] + steps)[:, None]
