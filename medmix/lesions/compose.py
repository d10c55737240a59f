"""From a lesion's parameters to its pixels: where its window lies, the altered patch in it, and its opacity."""

import torch
from torch import Tensor

from medmix.lesions.alterations import alter
from medmix.lesions.blending import seamless
from medmix.lesions.options import LesionOptions
from medmix.lesions.outlines import lesion_alpha
from medmix.lesions.parameters import LesionParameters, Lesions
from medmix.lesions.windows import RenderedLesions, cut, join, paste, place_windows, window_starts

FAR = 1e6  # pixels; added to the place of an absent lesion: beyond any window


def compose(
    images: Tensor,
    parameters: LesionParameters,
    options: LesionOptions,
) -> tuple[Tensor, Tensor, Tensor]:
    """Paste lesions into images.

    Args:
        images: (B, C, H, W) in [0, 1].
        parameters: What was drawn, on the images' device.
        options: How lesions are made.

    Returns:
        Images, numbers of lesions (B,) and masks (B, 1, H, W) bool.
    """
    lesions, labels = parameters.sorted_by_size()
    slots = len(lesions.image)
    donors = images.contiguous()
    output = donors.clone()
    masks = torch.zeros_like(output[:, :1], dtype=torch.uint8)  # the compiler writes bytes faster than bools
    for first, last, side in options.bands(images.shape):
        band = lesions.band(first, last)  # (K * N, ...)
        rendered = render_lesions(donors, band, parameters.noise_pool, side, options)
        for one_per_image in rendered.chunk(slots):  # windows of one image may overlap
            output, masks = paste(output, masks, one_per_image)
    if images.is_contiguous(memory_format=torch.channels_last):
        output = output.contiguous(memory_format=torch.channels_last)
    return output, labels, masks.view(torch.bool)


def compose_masks(parameters: LesionParameters, options: LesionOptions) -> Tensor:
    """The masks (B, 1, H, W) bool of `compose` alone."""
    batch, _, height, width = parameters.shape
    lesions, _ = parameters.sorted_by_size()
    slots = len(lesions.image)
    masks = torch.zeros((batch, 1, height, width), dtype=torch.uint8, device=lesions.radius.device)
    for first, last, side in options.bands(parameters.shape):
        for slot in range(slots):
            lesion = lesions.in_slot(slot).rows(first, last)  # (N, ...)
            corner, _ = place_windows(lesion.centre, lesion.donor_corner, side, (height, width))
            _, inside = opacity(corner, lesion, side, options)
            masks = join(masks, window_starts(corner, lesion.image, masks.shape), inside)
    return masks.view(torch.bool)


def render_lesions(
    donors: Tensor,
    lesions: Lesions,
    noise_pool: Tensor,
    side: int,
    options: LesionOptions,
) -> RenderedLesions:
    """Make N lesions, each in a window of its own.

    Args:
        donors: (B, C, H, W) contiguous, in [0, 1]: what patches are cut from and lesions will be pasted into.
        lesions: What describes the lesions, (N, ...) each.
        noise_pool: Standard normal numbers.
        side: The windows' side in pixels.
        options: How lesions are made.
    """
    batch, _, height, width = donors.shape
    corner, donor_corner = place_windows(lesions.centre, lesions.donor_corner, side, (height, width))
    starts = window_starts(corner, lesions.image, donors.shape)
    donor = (lesions.image + lesions.donor_offset) % batch
    donor_starts = window_starts(donor_corner, donor, donors.shape)
    # what the patch looks like
    patch = cut(donors, donor_starts, side)
    patch = alter(patch, options.alterations, lesions.altered | {"noise_pool": noise_pool})
    # where it shows
    alpha, inside = opacity(corner, lesions, side, options)
    if options.blending == "seamless":
        # against the untouched image: other lesions leave the pixels around this one as they are
        patch = seamless(patch, cut(donors, starts, side), inside)
    mask_starts = window_starts(corner, lesions.image, torch.Size((batch, 1, height, width)))
    return RenderedLesions(starts, mask_starts, patch, alpha.to(patch.dtype), inside)


def opacity(
    corner: Tensor,
    lesions: Lesions,
    side: int,
    options: LesionOptions,
) -> tuple[Tensor, Tensor]:
    """Opacity (N, 1, S, S) and mask, bool, of lesions in windows with these corners (N, 2)."""
    softness = options.softness if options.blending == "feathered" else 0
    offset = offsets(corner - lesions.centre, lesions.present, side)
    return lesion_alpha(options.outline, softness, offset, lesions.radius, lesions.outline)


def offsets(
    corner: Tensor,
    present: Tensor,
    side: int,
) -> tuple[Tensor, Tensor]:
    """Pixel positions in windows: corners (N, 2) from the centres -> rows (N, S, 1), columns (N, 1, S)."""
    steps = torch.arange(side, device=corner.device)
    far_if_absent = FAR * ~present[:, None]
    row, column = (corner + far_if_absent).unbind(dim=1)  # (N,) each
    rows = row[:, None] + steps
    columns = column[:, None] + steps
    return rows[:, :, None], columns[:, None]
