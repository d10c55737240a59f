"""Square windows of a batch: where they lie, cutting them out, writing them back.

Every window of a batch is one element of an overlapping view, so that cutting and pasting are plain copies of rows:
several times faster on a CPU than gathering pixels. The compiler is handed them as two operators of our own, which it
does not look into; autograd cannot follow overlapping windows, so it gets the pixels.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

NUM_BANDS = 3


class SizeBand(NamedTuple):
    """Rows `first` to `last` of a batch that is sorted by lesion size, and the side of the window for them."""

    first: int
    last: int
    side: int


class RenderedLesions(NamedTuple):
    """Lesions as pixels, in windows of one size.

    Attributes:
        starts: Where the windows begin in the images, (N, C); see `window_starts`.
        mask_starts: The same in the masks, (N, 1).
        patch: (N, C, S, S) in [0, 1].
        alpha: Opacity (N, 1, S, S), 0 outside the lesion.
        inside: (N, 1, S, S) bool, the lesion.
    """

    starts: Tensor
    mask_starts: Tensor
    patch: Tensor
    alpha: Tensor
    inside: Tensor

    def chunk(self, number: int) -> "list[RenderedLesions]":
        """Equal parts of them, in order."""
        columns = [tensor.chunk(number) for tensor in self]
        return [RenderedLesions(*part) for part in zip(*columns, strict=True)]


def size_bands(size: tuple[float, float], batch: int, spread: bool, shape: tuple[int, int]) -> list[SizeBand]:
    """Bands of a batch of sorted lesions, so that small lesions need not pay for the window of large ones.

    Args:
        size: Smallest and largest lesion diameter as a fraction of the shorter image side.
        batch: Number of images.
        spread: Whether the sizes are spread over the batch by `spread_sizes`; else one band holds all.
        shape: Image height and width.
    """
    number = min(NUM_BANDS, batch) if spread else 1
    bands = []
    for band in range(number):
        first = batch * band // number
        last = batch * (band + 1) // number
        diameter = min(shape) * (size[0] + (size[1] - size[0]) * last / batch)
        # one pixel more all round: seamless blending looks at the lesion's surroundings
        side = min(2 * math.ceil(diameter / 2) + 1, *shape)
        bands.append(SizeBand(first, last, side))
    return bands


def place_windows(centre: Tensor, donor_corner: Tensor, side: int, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Upper left corners (N, 2) of the windows around lesions, and of the windows that their patches are cut from.

    Args:
        centre: (N, 2), the lesions' centres; a window at the image's border is shifted inwards.
        donor_corner: (N, 2) numbers in [0, 1).
        side: The windows' side.
        shape: Image height and width.
    """
    corners = []
    donor_corners = []
    for axis in (0, 1):  # and not as a tensor of both, which would have to be sent to the device
        furthest = shape[axis] - side
        corner = centre[:, axis].long() - side // 2
        corners.append(corner.clamp(0, furthest))
        donor_corners.append((donor_corner[:, axis] * (furthest + 1)).long())
    return torch.stack(corners, dim=1), torch.stack(donor_corners, dim=1)


def window_starts(corner: Tensor, image: Tensor, shape: torch.Size) -> Tensor:
    """Where windows begin in the batch's memory, channel by channel.

    Args:
        corner: Upper left corners (..., 2), row and column.
        image: Which image each window lies in, (...) int64.
        shape: The batch's (B, C, H, W).

    Returns:
        Indices (..., C) into the flattened contiguous batch.
    """
    _, channels, height, width = shape
    plane = image[..., None] * channels + torch.arange(channels, device=corner.device)  # (..., C)
    return plane * (height * width) + corner[..., :1] * width + corner[..., 1:]


def cut(images: Tensor, starts: Tensor, side: int) -> Tensor:
    """Windows (N, C, S, S) of contiguous images (B, C, H, W) that begin at `starts` (N, C)."""
    starts = starts.flatten()
    if pixelwise(images):
        windows = images.view(-1)[_pixels(starts, side, images.shape[3])]
    elif torch.compiler.is_compiling():
        windows = cut_windows(images, starts, side)
    else:
        windows = _every_window(images, side).index_select(0, starts)
    return windows.view(-1, images.shape[1], side, side)


def paste(images: Tensor, masks: Tensor, lesions: RenderedLesions) -> tuple[Tensor, Tensor]:
    """Paste lesions, at most one per image, and mark them; in place, unless it is done pixel by pixel.

    Args:
        images: (B, C, H, W) contiguous.
        masks: (B, 1, H, W) uint8.
        lesions: The lesions.

    Returns:
        Images and masks.
    """
    starts, mask_starts, patch, alpha, inside = lesions
    if pixelwise(images, patch):
        target = cut(images, starts, inside.shape[-1])
        blended = _put_pixels(images, starts, target.lerp(patch, alpha))
        return blended, _join_pixels(masks, mask_starts, inside)
    starts = starts.flatten()
    mask_starts = mask_starts.flatten()
    if torch.compiler.is_compiling():
        paste_lesions(
            images,
            masks,
            starts,
            mask_starts,
            patch,
            alpha,
            inside,
        )
    else:
        _blend_windows(images, starts, patch, alpha)
        _join_windows(masks, mask_starts, inside)
    return images, masks


def join(masks: Tensor, starts: Tensor, inside: Tensor) -> Tensor:
    """Mark lesions, at most one per image, in the masks alone, as `paste` does."""
    if pixelwise(masks):
        return _join_pixels(masks, starts, inside)
    _join_windows(masks, starts.flatten(), inside)
    return masks


def pixelwise(*tensors: Tensor) -> bool:
    """Whether windows are taken pixel by pixel: for autograd, and where CUDA has to write deterministically."""
    if torch.are_deterministic_algorithms_enabled() and tensors[0].is_cuda:
        return True  # its other way would copy the view of all windows
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)


@torch.library.custom_op("medmix::cut_windows", mutates_args=())
def cut_windows(images: Tensor, starts: Tensor, side: int) -> Tensor:
    """Windows (N, S, S) that begin at `starts` (N,)."""
    return _every_window(images, side).index_select(0, starts)


@cut_windows.register_fake
def _(images: Tensor, starts: Tensor, side: int) -> Tensor:
    return images.new_empty(len(starts), side, side)


@torch.library.custom_op("medmix::paste_lesions", mutates_args=("images", "masks"))
def paste_lesions(
    images: Tensor,
    masks: Tensor,
    starts: Tensor,
    mask_starts: Tensor,
    patch: Tensor,
    alpha: Tensor,
    inside: Tensor,
) -> None:
    """Paste lesions (N, C, S, S), at most one per image, and mark them in the masks, in place."""
    _blend_windows(images, starts, patch, alpha)
    _join_windows(masks, mask_starts, inside)


@paste_lesions.register_fake
def _(
    images: Tensor,
    masks: Tensor,
    starts: Tensor,
    mask_starts: Tensor,
    patch: Tensor,
    alpha: Tensor,
    inside: Tensor,
) -> None:
    return None


def _every_window(images: Tensor, side: int) -> Tensor:
    """All windows (P, S, S) of contiguous images (B, C, H, W), by the place of their first pixel in memory."""
    width = images.shape[3]
    places = images.numel() - (side - 1) * (width + 1)
    return images.as_strided((places, side, side), (1, width, 1))


def _blend_windows(images: Tensor, starts: Tensor, patch: Tensor, alpha: Tensor) -> None:
    """Blend patches (N, C, S, S) of opacity (N, 1, S, S) into windows of the images, in place."""
    windows = _every_window(images, patch.shape[-1])
    target = windows.index_select(0, starts)  # (N * C, S, S)
    target.view(patch.shape).lerp_(patch, alpha)
    windows.index_put_((starts,), target)


def _join_windows(masks: Tensor, starts: Tensor, inside: Tensor) -> None:
    """Mark the pixels `inside` (N, 1, S, S) bool in windows of the masks (B, 1, H, W), uint8, in place."""
    windows = _every_window(masks, inside.shape[-1])
    marked = windows.index_select(0, starts).bitwise_or_(inside[:, 0].view(torch.uint8))
    windows.index_put_((starts,), marked)


def _join_pixels(masks: Tensor, starts: Tensor, inside: Tensor) -> Tensor:
    """What `_join_windows` does, not in place."""
    before = cut(masks, starts, inside.shape[-1])
    return _put_pixels(masks, starts, before | inside.to(torch.uint8))


def _put_pixels(images: Tensor, starts: Tensor, windows: Tensor) -> Tensor:
    """The images (B, C, H, W) with windows (N, C, S, S) written over them, pixel by pixel, as autograd wants it."""
    where = _pixels(starts.flatten(), windows.shape[-1], images.shape[3])
    return images.view(-1).scatter(0, where.flatten(), windows.flatten()).view(images.shape)


def _pixels(starts: Tensor, side: int, width: int) -> Tensor:
    """Indices of the pixels of each window: (N,) -> (N, S, S)."""
    columns = torch.arange(side, device=starts.device)
    rows = columns * width
    return starts[:, None, None] + rows[:, None] + columns
