"""From a lesion's numbers to its pixels: where its window lies, the altered patch in it, and its opacity."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from medmix.alteration import alter
from medmix.appearance import Nonlinear
from medmix.blending import Blending, seamless
from medmix.outlines import Shape, lesion_alpha
from medmix.warps import Deformation
from medmix.windows import Lesions, Part, cut, join, paste, place_windows, window_starts

FAR = 1e6  # pixels; added to the place of an absent lesion: beyond any window
Numbers = dict[str, Tensor]


class Look(NamedTuple):
    """The options of `MedMix` that say how lesions are made from their numbers."""

    shape: Shape
    blending: Blending
    softness: float
    noisy: bool
    nonlinear: Nonlinear | None
    deformation: Deformation | None


def compose(images: Tensor, params: Numbers, parts: Sequence[Part], look: Look) -> tuple[Tensor, Tensor, Tensor]:
    """Paste lesions into images.

    Args:
        images: (B, C, H, W) in [0, 1].
        params: Those of `MedMix.forward_parameters`, on the images' device.
        parts: How the batch, sorted by lesion size, is worked on.
        look: The options.

    Returns:
        Images, numbers of lesions (B,) and masks (B, 1, H, W) bool.
    """
    numbers, labels = sort_by_size(params)
    donors = images.contiguous()
    output = donors.clone()
    masks = torch.zeros_like(output[:, :1], dtype=torch.uint8)  # the compiler writes bytes faster than bools
    for first, last, side in parts:
        part = {name: value[:, first:last].flatten(0, 1) for name, value in numbers.items()}  # (K * N, ...)
        lesions = render_lesions(donors, part, params["noise_pool"], side, look)
        for one_per_image in lesions.chunk(len(numbers["image"])):  # windows of one image may overlap
            output, masks = paste(output, masks, one_per_image)
    if images.is_contiguous(memory_format=torch.channels_last):
        output = output.contiguous(memory_format=torch.channels_last)
    return output, labels, masks.view(torch.bool)


def compose_masks(shape: torch.Size, params: Numbers, parts: Sequence[Part], look: Look) -> Tensor:
    """The masks (B, 1, H, W) bool of `compose` alone, for a batch of this shape."""
    numbers, _ = sort_by_size(params)
    masks = torch.zeros((shape[0], 1, *shape[2:]), dtype=torch.uint8, device=params["radius"].device)
    for first, last, side in parts:
        for slot in range(len(numbers["image"])):
            lesion = {name: value[slot, first:last] for name, value in numbers.items()}  # (N, ...)
            corner, _ = place_windows(lesion["centre"], lesion["origin"], side, shape[2:])
            inside = opacity(corner, lesion, side, look)[1]
            masks = join(masks, window_starts(corner, lesion["image"], masks.shape), inside)
    return masks.view(torch.bool)


def sort_by_size(params: Numbers) -> tuple[Numbers, Tensor]:
    """What describes the lesions, (K, B, ...) each, slot by slot from small to large; and their numbers (B,).

    Two more are added: "image", the row that a lesion belongs to, and "present".
    """
    batch, slots = params["radius"].shape
    device = params["radius"].device
    slot, own = torch.arange(slots, device=device), torch.arange(batch, device=device)
    count = params["num_lesions"] * (params["batch_prob"] > 0.5)
    present = (slot < count[:, None]) & (params["radius"] > 0)  # (B, K)
    numbers = {name: value for name, value in params.items() if value.dim() > 1 and name != "by_size"}
    numbers |= {"present": present, "image": own[:, None].expand(-1, slots)}
    by_size = params["by_size"].T  # (K, B)
    return {name: value[by_size, slot[:, None]] for name, value in numbers.items()}, present.sum(dim=1)


def render_lesions(donors: Tensor, numbers: Numbers, noise_pool: Tensor, side: int, look: Look) -> Lesions:
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
    alpha, inside = opacity(corner, numbers, side, look)
    if look.blending == "seamless":  # other lesions leave the pixels around this one as they are
        patch = seamless(patch, cut(donors, starts, side), inside)
    mask_starts = window_starts(corner, image, torch.Size((shape[0], 1, *shape[2:])))
    return Lesions(starts, mask_starts, patch, alpha.to(patch.dtype), inside)


def opacity(corner: Tensor, numbers: Numbers, side: int, look: Look) -> tuple[Tensor, Tensor]:
    """Opacity (N, 1, S, S) and mask, bool, of lesions in windows with these corners (N, 2)."""
    softness = look.softness if look.blending == "feathered" else 0
    offset = offsets(corner - numbers["centre"], numbers["present"], side)
    return lesion_alpha(look.shape, softness, offset, numbers["radius"], numbers["outline"])


def offsets(corner: Tensor, present: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Pixel positions in windows: corners (N, 2) from the centres -> rows (N, S, 1), columns (N, 1, S)."""
    steps = torch.arange(side, device=corner.device)
    rows, columns = (corner + FAR * ~present[:, None]).unbind(dim=1)  # (N,) each
    return (rows[:, None] + steps)[:, :, None], (columns[:, None] + steps)[:, None]


def join_masks(given: Tensor, lesions: Tensor) -> Tensor:
    """A given mask of 0 and 1, or bool, with the lesions OR-ed into it."""
    return given | lesions if given.dtype == torch.bool else torch.where(lesions, torch.ones_like(given), given)
