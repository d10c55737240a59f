"""Square windows of a batch, one per image: where they lie, cutting them out, writing them back.

A window is its pixel rows, and a pixel row is a stretch of memory: plain copies of stretches are several times faster
on a CPU than gathering pixels. Autograd and the compiler cannot follow overlapping stretches, so they get the pixels.
"""

import torch
from torch import Tensor


def row_starts(corner: Tensor, image: Tensor, shape: torch.Size, side: int) -> Tensor:
    """Where the rows of the windows begin in the batch's memory.

    Args:
        corner: Upper left corners (B, 2), row and column.
        image: Which image each window lies in, (B,) int64.
        shape: The batch's (B, C, H, W).
        side: Side S of the windows.

    Returns:
        Indices (B * C * S,) into the flattened contiguous batch.
    """
    _, channels, height, width = shape
    steps, planes = torch.arange(side, device=corner.device), torch.arange(channels, device=corner.device)
    rows = (corner[:, :1] + steps) * width + corner[:, 1:]  # (B, S)
    plane = (image[:, None] * channels + planes) * (height * width)  # (B, C)
    return (plane[:, :, None] + rows[:, None, :]).flatten()


def cut(images: Tensor, starts: Tensor, side: int) -> Tensor:
    """Windows (B, C, S, S) of contiguous images (B, C, H, W)."""
    flat = images.view(-1)
    rows = flat.unfold(0, side, 1).index_select(0, starts) if copies_rows(images) else flat[pixels(starts, side)]
    return rows.view(-1, images.shape[1], side, side)


def paste(images: Tensor, starts: Tensor, windows: Tensor) -> Tensor:
    """The images (B, C, H, W) with the windows written over them, in place where that is allowed."""
    flat, side = images.view(-1), windows.shape[-1]
    if copies_rows(images, windows):
        flat.unfold(0, side, 1).index_copy_(0, starts, windows.reshape(-1, side))
        return images
    return flat.scatter(0, pixels(starts, side).flatten(), windows.flatten()).view(images.shape)


def cut_donors(images: Tensor, source: Tensor, origin: Tensor, side: int) -> Tensor:
    """A window (B, C, S, S) from each image's donor, the image `source` rows further on; `origin` (B, 2) in [0, 1)."""
    donor = (torch.arange(len(images), device=images.device) + source) % len(images)
    room = torch.tensor(images.shape[2:], device=images.device) - side + 1
    return cut(images, row_starts((origin * room).long(), donor, images.shape, side), side)


def cut_noise(pool: Tensor, first: Tensor, like: Tensor) -> Tensor:
    """A stretch of the noise pool for each patch, in the patches' shape and dtype."""
    length = like[0].numel()
    rows = pool.unfold(0, length, 1).index_select(0, first) if copies_rows(pool) else pool[pixels(first, length)]
    return rows.view(like.shape).to(like.dtype)


def pixels(starts: Tensor, side: int) -> Tensor:
    """Indices of the pixels of each row: (R,) -> (R, S)."""
    return starts[:, None] + torch.arange(side, device=starts.device)


def copies_rows(*tensors: Tensor) -> bool:
    """Whether memory may be addressed by stretches: neither gradients nor the compiler look on."""
    needs_grad = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    return not needs_grad and not torch.compiler.is_compiling()
