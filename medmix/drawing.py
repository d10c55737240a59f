"""Everything random about the lesions of a batch."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from medmix.alteration import NOISE_POOL
from medmix.appearance import CURVE_DIM, Nonlinear, colour_matrix, curve_coefficients
from medmix.constants import constants
from medmix.lesions import NUM_LAYOUTS, draw_sources, share_out, spread_sizes
from medmix.outlines import OUTLINE_DIM, Shape, outline_coefficients
from medmix.params import Params

Uniform = Callable[..., Tensor]  # sizes -> random numbers in [0, 1)


def draw_places(uniform: Uniform, rows: int, slots: int, batch: int, num_lesions: Sequence[int], p: float) -> Params:
    """How many lesions images have, where, and which images of the batch they are cut from, (rows, ...) each."""
    classes = share_out(uniform(rows), uniform(1), len(num_lesions))
    by_size = uniform(rows, slots).argsort(dim=0)
    return {
        "by_size": by_size,
        "batch_prob": (uniform(rows) < p).float(),
        "num_lesions": constants(num_lesions, classes)[classes],
        "layout": spread_sizes(uniform(rows, NUM_LAYOUTS + 1, slots, 4), by_size),
        "source": draw_sources(uniform(rows, slots), batch),
        "origin": uniform(rows, slots, 2),
    }


def draw_look(
    uniform: Uniform,
    rows: int,
    slots: int,
    channels: int,
    shape: Shape,
    color_jitter: tuple[float, float, float, float],
    noise: tuple[float, float],
    nonlinear: Nonlinear | None,
) -> Params:
    """The outlines and alterations of lesions, (rows, slots, ...) each; the options are those of `MedMix`."""
    curve = nonlinear or "bezier"
    colour, pivot = colour_matrix(color_jitter, uniform(rows, slots, 4), channels)
    return {
        "colour": colour,
        "pivot": pivot,
        "outline": outline_coefficients(shape, uniform(rows, slots, OUTLINE_DIM)),
        "warp": uniform(rows, slots, 3),
        "std": noise[0] + (noise[1] - noise[0]) * uniform(rows, slots),
        "stretch": (NOISE_POOL * uniform(rows, slots)).long(),
        "curve": curve_coefficients(curve, uniform(rows, slots, CURVE_DIM[curve])),
    }


def draw_noise(patch_size: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """The pool of standard normal numbers that the noise of patches of so many numbers is cut from."""
    return torch.randn(NOISE_POOL + patch_size, generator=generator, device=device)
