"""Square windows of a batch, where they lie, cutting them out, writing them back.

Every window of a batch is one element of an overlapping view, so that cutting and pasting are plain copies of rows:
several times faster on a CPU than gathering pixels. The compiler is handed them as two operators of our own, which it
does not look into; autograd cannot follow overlapping windows, so it gets the pixels.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

NUM_PARTS = 3


class Part(NamedTuple):
    """Rows `first` to `last` of a batch that is sorted by lesion size, and the side of the window for them."""

    first: int
    last: int
    side: int


class Lesions(NamedTuple):
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

    def chunk(self, number: int) -> "list[Lesions]":
        """Equal parts of them, in order."""
        return [Lesions(*parts) for parts in zip(*(tensor.chunk(number) for tensor in self), strict=True)]


def size_parts(size: tuple[float, float], batch: int, spread: bool, shape: tuple[int, int]) -> list[Part]:
    """Parts of a batch of sorted lesions, so that small lesions need not pay for the window of large ones.

    Args:
        size: Smallest and largest lesion diameter as a fraction of the shorter image side.
        batch: Number of images.
        spread: Whether the sizes are spread over the batch by `spread_sizes`; else one part holds all.
        shape: Image height and width.
    """
    number = min(NUM_PARTS, batch) if spread else 1
    bounds = [batch * part // number for part in range(number + 1)]
    largest = [size[0] + (size[1] - size[0]) * last / batch for last in bounds[1:]]
    # one pixel more all round: seamless blending looks at the lesion's surroundings
    sides = [min(2 * math.ceil(min(shape) * diameter / 2) + 1, *shape) for diameter in largest]
    return [Part(*part) for part in zip(bounds[:-1], bounds[1:], sides, strict=True)]


def place_windows(centre: Tensor, origin: Tensor, side: int, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Upper left corners (N, 2) of the windows around lesions, and of the windows that their patches are cut from.

    Args:
        centre: (N, 2), the lesions' centres; a window at the image's border is shifted inwards.
        origin: (N, 2) numbers in [0, 1).
        side: The windows' side.
        shape: Image height and width.
    """
    room = [n - side for n in shape]  # by axis and not as a tensor, which would have to be sent to the device
    corner = [(c.long() - side // 2).clamp(0, n) for c, n in zip(centre.unbind(dim=1), room, strict=True)]
    donor_corner = [(u * (n + 1)).long() for u, n in zip(origin.unbind(dim=1), room, strict=True)]
    return torch.stack(corner, dim=1), torch.stack(donor_corner, dim=1)


def every_window(images: Tensor, side: int) -> Tensor:
    """All windows (P, S, S) of contiguous images (B, C, H, W), by the place of their first pixel in memory."""
    width = images.shape[3]
    places = images.numel() - (side - 1) * (width + 1)
    return images.as_strided((places, side, side), (1, width, 1))


@torch.library.custom_op("medmix::cut_windows", mutates_args=())
def cut_windows(images: Tensor, starts: Tensor, side: int) -> Tensor:
    """Windows (N, S, S) that begin at `starts` (N,)."""
    return every_window(images, side).index_select(0, starts)


@cut_windows.register_fake
def _(images: Tensor, starts: Tensor, side: int) -> Tensor:
    return images.new_empty(len(starts), side, side)


def blend_windows(images: Tensor, starts: Tensor, patch: Tensor, alpha: Tensor) -> None:
    """Blend patches (N, C, S, S) of opacity (N, 1, S, S) into windows of the images, in place."""
    windows = every_window(images, patch.shape[-1])
    target = windows.index_select(0, starts)  # (N * C, S, S)
    target.view(patch.shape).lerp_(patch, alpha)
    windows.index_put_((starts,), target)


def join_windows(masks: Tensor, starts: Tensor, inside: Tensor) -> None:
    """Mark the pixels `inside` (N, 1, S, S) bool in windows of the masks (B, 1, H, W), uint8, in place."""
    windows = every_window(masks, inside.shape[-1])
    windows.index_put_((starts,), windows.index_select(0, starts).bitwise_or_(inside[:, 0].view(torch.uint8)))


@torch.library.custom_op("medmix::paste_lesions", mutates_args=("images", "masks"))
def paste_lesions(
    images: Tensor, masks: Tensor, starts: Tensor, mask_starts: Tensor, patch: Tensor, alpha: Tensor, inside: Tensor
) -> None:
    """Paste lesions (N, C, S, S), at most one per image, and mark them in the masks, in place."""
    blend_windows(images, starts, patch, alpha)
    join_windows(masks, mask_starts, inside)


@paste_lesions.register_fake
def _(
    images: Tensor, masks: Tensor, starts: Tensor, mask_starts: Tensor, patch: Tensor, alpha: Tensor, inside: Tensor
) -> None:
    return None


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
        windows = images.view(-1)[pixels(starts, side, images.shape[3])]
    elif torch.compiler.is_compiling():
        windows = cut_windows(images, starts, side)
    else:
        windows = every_window(images, side).index_select(0, starts)
    return windows.view(-1, images.shape[1], side, side)


def paste(images: Tensor, masks: Tensor, lesions: Lesions) -> tuple[Tensor, Tensor]:
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
        return put(images, starts, target.lerp(patch, alpha)), join_pixels(masks, mask_starts, inside)
    starts, mask_starts = starts.flatten(), mask_starts.flatten()
    if torch.compiler.is_compiling():
        paste_lesions(images, masks, starts, mask_starts, patch, alpha, inside)
    else:
        blend_windows(images, starts, patch, alpha)
        join_windows(masks, mask_starts, inside)
    return images, masks


def join(masks: Tensor, starts: Tensor, inside: Tensor) -> Tensor:
    """Mark lesions, at most one per image, in the masks alone, as `paste` does."""
    if pixelwise(masks):
        return join_pixels(masks, starts, inside)
    join_windows(masks, starts.flatten(), inside)
    return masks


def join_pixels(masks: Tensor, starts: Tensor, inside: Tensor) -> Tensor:
    """What `join_windows` does, not in place."""
    return put(masks, starts, cut(masks, starts, inside.shape[-1]) | inside.to(torch.uint8))


def put(images: Tensor, starts: Tensor, windows: Tensor) -> Tensor:
    """The images (B, C, H, W) with windows (N, C, S, S) written over them, pixel by pixel, as autograd wants it."""
    where = pixels(starts.flatten(), windows.shape[-1], images.shape[3])
    return images.view(-1).scatter(0, where.flatten(), windows.flatten()).view(images.shape)


def cut_noise(pool: Tensor, first: Tensor, like: Tensor) -> Tensor:
    """A stretch of the noise pool for each patch, in the patches' shape and dtype."""
    return pool.unfold(0, like[0].numel(), 1).index_select(0, first).view(like.shape).to(like.dtype)


def pixels(starts: Tensor, side: int, width: int) -> Tensor:
    """Indices of the pixels of each window: (N,) -> (N, S, S)."""
    steps = torch.arange(side, device=starts.device)
    return starts[:, None, None] + (steps * width)[:, None] + steps


def pixelwise(*tensors: Tensor) -> bool:
    """Whether windows are taken pixel by pixel: for autograd, and where CUDA has to write deterministically."""
    if torch.are_deterministic_algorithms_enabled() and tensors[0].is_cuda:
        return True  # its other way would copy the view of all windows
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
