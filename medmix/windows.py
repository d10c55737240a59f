"""Square windows of a batch, where they lie, cutting them out, writing them back.

A window is its pixel rows, and a pixel row is a stretch of memory: plain copies of stretches are several times faster
on a CPU than gathering pixels. The compiler is handed them as two operators of our own, which it does not look into;
autograd cannot follow overlapping stretches, so it gets the pixels.
"""

import torch
from torch import Tensor


@torch.library.custom_op("medmix::cut_stretches", mutates_args=())
def cut_stretches(flat: Tensor, starts: Tensor, length: int) -> Tensor:
    """Stretches (R, length) of a flat tensor that begin at `starts` (R,)."""
    return flat.unfold(0, length, 1).index_select(0, starts)


@cut_stretches.register_fake
def _(flat: Tensor, starts: Tensor, length: int) -> Tensor:
    return flat.new_empty(len(starts), length)


@torch.library.custom_op("medmix::paste_stretches", mutates_args=("flat",))
def paste_stretches(flat: Tensor, starts: Tensor, stretches: Tensor) -> None:
    """Write stretches (R, length), which must not overlap, into a flat tensor, in place."""
    flat.unfold(0, stretches.shape[1], 1).index_copy_(0, starts, stretches)


@paste_stretches.register_fake
def _(flat: Tensor, starts: Tensor, stretches: Tensor) -> None:
    return None


def row_starts(corner: Tensor, image: Tensor, shape: torch.Size, side: int) -> Tensor:
    """Where the rows of the windows begin in the batch's memory.

    Args:
        corner: Upper left corners (N, 2), row and column.
        image: Which image each window lies in, (N,) int64.
        shape: The batch's (B, C, H, W).
        side: Side S of the windows.

    Returns:
        Indices (N * C * S,) into the flattened contiguous batch.
    """
    _, channels, height, width = shape
    steps, planes = torch.arange(side, device=corner.device), torch.arange(channels, device=corner.device)
    rows = (corner[:, :1] + steps) * width + corner[:, 1:]  # (N, S)
    plane = (image[:, None] * channels + planes) * (height * width)  # (N, C)
    return (plane[:, :, None] + rows[:, None, :]).flatten()


def cut(images: Tensor, starts: Tensor, side: int) -> Tensor:
    """Windows (N, C, S, S) of contiguous images (B, C, H, W)."""
    flat = images.view(-1)
    rows: Tensor = flat[pixels(starts, side)] if needs_grad(images) else stretches(flat, starts, side)
    return rows.view(-1, images.shape[1], side, side)


def paste(images: Tensor, starts: Tensor, windows: Tensor) -> Tensor:
    """The images (B, C, H, W) with the windows written over them, in place where that is allowed."""
    flat, side = images.view(-1), windows.shape[-1]
    if needs_grad(images, windows):
        return flat.scatter(0, pixels(starts, side).flatten(), windows.flatten()).view(images.shape)
    rows = windows.reshape(-1, side)
    if torch.compiler.is_compiling():
        paste_stretches(flat, starts, rows)
    else:
        flat.unfold(0, side, 1).index_copy_(0, starts, rows)
    return images


def cut_donors(images: Tensor, donor: Tensor, origin: Tensor, side: int) -> Tensor:
    """A window (N, C, S, S) from each of the images `donor` (N,), where `origin` (N, 2) in [0, 1) says."""
    room = torch.tensor(images.shape[2:], device=images.device) - side + 1
    return cut(images, row_starts((origin * room).long(), donor, images.shape, side), side)


def cut_noise(pool: Tensor, first: Tensor, like: Tensor) -> Tensor:
    """A stretch of the noise pool for each patch, in the patches' shape and dtype."""
    return stretches(pool, first, like[0].numel()).view(like.shape).to(like.dtype)


def stretches(flat: Tensor, starts: Tensor, length: int) -> Tensor:
    """Stretches (R, length) of a flat tensor that begin at `starts` (R,)."""
    if torch.compiler.is_compiling():
        return cut_stretches(flat, starts, length)  # type: ignore[no-any-return]
    return flat.unfold(0, length, 1).index_select(0, starts)


def pixels(starts: Tensor, side: int) -> Tensor:
    """Indices of the pixels of each row: (R,) -> (R, S)."""
    return starts[:, None] + torch.arange(side, device=starts.device)


def needs_grad(*tensors: Tensor) -> bool:
    """Whether autograd records what happens to one of the tensors."""
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
