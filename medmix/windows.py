"""Square windows of a batch, where they lie, cutting them out, writing them back.

Every window of a batch is one element of an overlapping view, so that cutting and pasting are plain copies of rows:
several times faster on a CPU than gathering pixels. The compiler is handed them as two operators of our own, which it
does not look into; autograd cannot follow overlapping windows, so it gets the pixels.
"""

import math

import torch
from torch import Tensor


def window_sides(size: tuple[float, float], slots: int, height: int, width: int) -> list[int]:
    """Sides in pixels of the windows that hold the largest lesion of each of K equal parts of the range of sizes."""
    largest = (size[0] + (size[1] - size[0]) * (part + 1) / slots for part in range(slots))
    return [min(2 * math.ceil(min(height, width) * diameter / 2) + 1, height, width) for diameter in largest]


def place_windows(centre: Tensor, origin: Tensor, sides: list[int], shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Upper left corners (B, K, 2) of the windows around lesions, and of the windows that patches are cut from.

    Args:
        centre: (B, K, 2), the lesions' centres; a window at the image's border is shifted inwards.
        origin: (B, K, 2) numbers in [0, 1).
        sides: The windows' K sides.
        shape: Image height and width.
    """
    side = torch.tensor(sides, device=centre.device)[:, None]
    room = torch.tensor(shape, device=centre.device) - side  # (K, 2)
    corner = torch.minimum((centre.long() - side // 2).clamp(min=0), room)
    return corner, (origin * (room + 1)).long()


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


@torch.library.custom_op("medmix::paste_windows", mutates_args=("images",))
def paste_windows(images: Tensor, starts: Tensor, windows: Tensor) -> None:
    """Write windows (N, S, S), which must not overlap, into the images, in place."""
    every_window(images, windows.shape[-1]).index_put_((starts,), windows)


@paste_windows.register_fake
def _(images: Tensor, starts: Tensor, windows: Tensor) -> None:
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
    if needs_grad(images):
        windows = images.view(-1)[pixels(starts, side, images.shape[3])]
    elif torch.compiler.is_compiling():
        windows = cut_windows(images, starts, side)
    else:
        windows = every_window(images, side).index_select(0, starts)
    return windows.view(-1, images.shape[1], side, side)


def paste(images: Tensor, starts: Tensor, windows: Tensor) -> Tensor:
    """The images (B, C, H, W) with the windows (N, C, S, S) written over them, in place where that is allowed."""
    side, starts = windows.shape[-1], starts.flatten()
    if needs_grad(images, windows):
        where = pixels(starts, side, images.shape[3])
        return images.view(-1).scatter(0, where.flatten(), windows.flatten()).view(images.shape)
    planes = windows.flatten(0, 1)  # (N * C, S, S)
    if torch.compiler.is_compiling():
        paste_windows(images, starts, planes)
    else:
        every_window(images, side).index_put_((starts,), planes)
    return images


def cut_noise(pool: Tensor, first: Tensor, like: Tensor) -> Tensor:
    """A stretch of the noise pool for each patch, in the patches' shape and dtype."""
    return pool.unfold(0, like[0].numel(), 1).index_select(0, first).view(like.shape).to(like.dtype)


def pixels(starts: Tensor, side: int, width: int) -> Tensor:
    """Indices of the pixels of each window: (N,) -> (N, S, S)."""
    steps = torch.arange(side, device=starts.device)
    return starts[:, None, None] + (steps * width)[:, None] + steps


def needs_grad(*tensors: Tensor) -> bool:
    """Whether autograd records what happens to one of the tensors."""
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
