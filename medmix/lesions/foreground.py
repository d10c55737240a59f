"""Which places a foreground leaves to lesions, and how large they may be there.

Neighbourhoods are searched in steps that double: a few passes over small numbers, where running sums and maxima over
rows and columns would visit each pixel alone.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def foreground_places(
    uniform: Tensor,
    foreground: Tensor,
    margin: int,
) -> Tensor:
    """Uniform centres in the foreground and off its border, by `margin` in half of the layouts, else by half of it.

    Args:
        uniform: (B, L, K) numbers in [0, 1).
        foreground: (B, 1, H, W) bool.
        margin: Pixels.

    Returns:
        Centres (B, L, K, 2).
    """
    first, second = uniform.chunk(2, dim=1)
    far = sample_pixels(first, foreground, margin)
    near = sample_pixels(second, foreground, margin // 2)
    return torch.cat([far, near], dim=1)


def sample_pixels(
    uniform: Tensor,
    foreground: Tensor,
    margin: int,
) -> Tensor:
    """Uniform centres (B, L, K, 2) among the pixels `margin` from the background, or in all of the foreground."""
    inner = erode(foreground, margin)[:, 0]  # (B, H, W)
    has_inner = inner.flatten(1).any(dim=1)[:, None, None]
    allowed = torch.where(has_inner, inner, foreground[:, 0])
    height, width = allowed.shape[1:]
    # the n-th allowed pixel: first its row, where the running count over the rows reaches n
    ranks = allowed.sum(dim=2, dtype=torch.int32).cumsum(dim=1, dtype=torch.int32)  # (B, H)
    chosen = (uniform.flatten(1) * ranks[:, -1:]).int() + 1  # (B, L * K)
    row = torch.searchsorted(ranks, chosen).clamp(max=height - 1)
    # then its column, by the rest
    before = F.pad(ranks, (1, 0)).gather(1, row)
    image = torch.arange(len(allowed), device=allowed.device)[:, None]
    in_row = allowed[image, row].cumsum(dim=2, dtype=torch.int32)  # (B, L * K, W)
    rest = (chosen - before)[..., None]
    column = torch.searchsorted(in_row, rest)[..., 0].clamp(max=width - 1)
    return torch.stack([row, column], dim=-1).view(*uniform.shape, 2).float()


def erode(foreground: Tensor, margin: int) -> Tensor:
    """Pixels (B, 1, H, W) whose square neighbourhood lies in the foreground."""
    inside = F.pad(foreground, (margin, margin, margin, margin), value=False)
    for axis in (2, 3):
        inside = _all_of_window(inside, 2 * margin + 1, axis)
    return inside


def _all_of_window(inside: Tensor, window: int, axis: int) -> Tensor:
    """Where all of so many neighbours along an axis are true, from the first of them: windows of doubled length."""
    length = 1
    while length < window:
        step = min(length, window - length)
        remaining = inside.shape[axis] - step
        inside = inside.narrow(axis, 0, remaining) & inside.narrow(axis, step, remaining)
        length += step
    return inside


def free_radius(centres: Tensor, foreground: Tensor) -> Tensor:
    """Distance (B, L, K) from each centre (B, L, K, 2) to the nearest background pixel, inside or just outside."""
    outside = F.pad(~foreground[:, 0], (1, 1, 1, 1), value=True)  # (B, H + 2, W + 2)
    height, width = outside.shape[1:]
    # first the distance within the column, for all pixels: over twice as many rows at each step
    vertical = torch.where(outside, 0, height).short()  # (B, H + 2, W + 2)
    reach = 1
    while reach < height:
        further = vertical + reach
        nearer = vertical.clone()
        nearer[:, reach:] = torch.minimum(vertical[:, reach:], further[:, :-reach])
        nearer[:, :-reach] = torch.minimum(nearer[:, :-reach], further[:, reach:])
        vertical = nearer
        reach *= 2
    # then, for each centre, the nearest over the columns
    row, column = (centres.flatten(1, 2) + 1).unbind(dim=2)  # (B, L * K)
    image = torch.arange(len(centres), device=centres.device)[:, None]
    sideways = torch.arange(width, device=centres.device) - column[..., None]  # (B, L * K, W + 2)
    in_row = vertical[image, row.long()].float()  # (B, L * K, W + 2)
    squares = in_row.square() + sideways.square()
    nearest = squares.amin(dim=2).sqrt()
    return nearest.view(centres.shape[:3])
