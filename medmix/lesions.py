"""What a lesion is: where it lies, how large it is, which image it is cut from.

Lengths are in pixels, positions are (row, column). Slot k of an image is its k-th lesion: the image with n lesions has
slots 0..n-1, so the lesions of one draw are nested over n.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from medmix.constants import constants

NUM_LAYOUTS = 16
GAP = 2.0  # pixels between two lesions' circles: more than the sqrt(2) at which pixels touch
LEAST_SHARE = 0.5  # of the radius asked for: where a foreground leaves less, there are fewer lesions


def sample_layout(
    uniform: Tensor, shape: tuple[int, int], size: tuple[float, float], foreground: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Places and radii of lesions that stay apart: the first of 16 random layouts and a regular grid that fits.

    Where none fits, lesions shrink; where a foreground would halve them, there are fewer.

    Args:
        uniform: (B, L + 1, K, 4) numbers in [0, 1): row, column, size and (in the grid) cell of each lesion.
        shape: Image height and width.
        size: Smallest and largest lesion diameter as a fraction of the shorter side.
        foreground: (B, 1, H, W) bool, where lesions may lie; None allows the whole image.

    Returns:
        Centres (B, K, 2) in whole pixels and radii (B, K); a radius of 0 stands for a lesion that found no place.
    """
    limits = constants(shape, uniform)
    side = min(shape)
    wanted = side / 2 * (size[0] + (size[1] - size[0]) * uniform[..., 2])  # (B, L + 1, K)
    wanted = wanted.clamp(max=(side - 1) / 2)
    radii = torch.cat([wanted[:, :-1], wanted[:, -1:].clamp(max=grid_radius(side, wanted.shape[2]))], dim=1)
    if foreground is None:
        centres = free_places(uniform[:, :-1, :, :2], radii[:, :-1], limits)
    else:
        centres = foreground_places(uniform[:, :-1, :, 0], foreground, math.floor(side / 2 * size[0]))
    grid = grid_places(uniform[:, -1], uniform[:, 0, 0, 3], radii[:, -1], limits)
    centres = torch.cat([centres, grid[:, None]], dim=1)  # (B, L + 1, K, 2)
    room = torch.full_like(radii, torch.inf) if foreground is None else free_radius(centres, foreground)
    return choose_layout(centres, radii, wanted, room, least=0 if foreground is None else LEAST_SHARE)


def spread_sizes(layout: Tensor, order: Tensor) -> Tensor:
    """Sizes spread evenly over the batch, slot by slot; each alone stays uniform, and those of one image independent.

    Args:
        layout: (B, L + 1, K, 4) numbers in [0, 1), the third of them the size.
        order: (B, K) int64, each column a random permutation of the batch.

    Returns:
        The layout, where image `order[i, k]` has the i-th smallest lesion in slot k: in the i-th of B equal parts.
    """
    row, column, size, cell = layout.unbind(dim=-1)
    size = (order.argsort(dim=0)[:, None] + size) / len(order)
    return torch.stack([row, column, size, cell], dim=-1)


def choose_layout(centres: Tensor, radii: Tensor, wanted: Tensor, room: Tensor, least: float) -> tuple[Tensor, Tensor]:
    """The layout that leaves the lesions largest, with as many of them as keep the share `least` of what was wanted.

    Args:
        centres: (B, L, K, 2).
        radii: (B, L, K), the layouts' radii.
        wanted: (B, L, K), the radii asked for.
        room: (B, L, K), the largest radii that their places allow.
        least: Share in [0, 1]; 0 keeps all lesions.

    Returns:
        Centres (B, K, 2) and radii (B, K), 0 for the lesions left out.
    """
    slots = radii.shape[2]
    apart = shrinkage(centres, radii)  # (B, L, K), entry k: for the first k + 1 lesions
    share = torch.minimum(apart * (radii / wanted).cummin(dim=2).values, (room / wanted).cummin(dim=2).values)
    steps = torch.arange(1, slots + 1, device=radii.device)
    number = (steps * (share.amax(dim=1) >= least)).amax(dim=1).clamp(min=1)  # (B,)
    row = torch.arange(len(radii), device=radii.device)
    best = share[row, :, number - 1].argmax(dim=1)  # (B,) the first layout that fits, or the one that shrinks least
    radius = torch.minimum(radii[row, best] * apart[row, best, number - 1, None], room[row, best])
    return centres[row, best], radius * (steps <= number[:, None])


def grid_radius(side: int, slots: int) -> float:
    """Largest radius at which neighbours of the regular grid stay `GAP` apart."""
    return max(math.floor(side / math.ceil(math.sqrt(slots))) - GAP, 0.5) / 2


def grid_places(uniform: Tensor, shift: Tensor, radii: Tensor, limits: Tensor) -> Tensor:
    """Places in distinct cells of a regular grid, each equally likely for each lesion.

    Args:
        uniform: (B, K, 4) numbers in [0, 1): row and column in the cell, size, and cell.
        shift: (B,) further numbers in [0, 1), independent of those.
        radii: (B, K).
        limits: Image height and width.

    Returns:
        Centres (B, K, 2).
    """
    slots = uniform.shape[1]
    cells = math.ceil(math.sqrt(slots))
    order = (uniform[..., 3].argsort(dim=1) + (shift[:, None] * cells**2).long()) % cells**2  # (B, K) distinct cells
    place = torch.stack([order // cells, order % cells], dim=-1)
    slack = (limits / cells - GAP - 1 - 2 * radii[..., None]).clamp(min=0)  # (B, K, 2)
    return ((place + 0.5) * limits / cells + (uniform[..., :2] - 0.5) * slack).floor()


def free_places(uniform: Tensor, radii: Tensor, limits: Tensor) -> Tensor:
    """Uniform centres of lesions that lie wholly inside the image: (..., K, 2)."""
    margin = radii.ceil()[..., None]
    room = (limits - 2 * margin).clamp(min=1)
    return torch.minimum(margin, (limits - 1) // 2) + (uniform * room).floor()


def foreground_places(uniform: Tensor, foreground: Tensor, margin: int) -> Tensor:
    """Uniform centres in the foreground and off its border, by `margin` in half of the layouts, else by half of it.

    Args:
        uniform: (B, L, K) numbers in [0, 1).
        foreground: (B, 1, H, W) bool.
        margin: Pixels.

    Returns:
        Centres (B, L, K, 2).
    """
    halves = uniform.chunk(2, dim=1)
    return torch.cat([places(u, foreground, m) for u, m in zip(halves, (margin, margin // 2), strict=True)], dim=1)


def places(uniform: Tensor, foreground: Tensor, margin: int) -> Tensor:
    """Uniform centres (B, L, K, 2) among the pixels `margin` from the background, or in all of the foreground."""
    inner = erode(foreground, margin).flatten(1)  # (B, H * W)
    allowed = torch.where(inner.any(dim=1, keepdim=True), inner, foreground.flatten(1))
    ranks = allowed.cumsum(dim=1, dtype=torch.int32)
    wanted = (uniform.flatten(1) * ranks[:, -1:]).int() + 1  # (B, L * K)
    index = torch.searchsorted(ranks, wanted).clamp(max=allowed.shape[1] - 1)
    width = foreground.shape[-1]
    return torch.stack([index // width, index % width], dim=-1).view(*uniform.shape, 2).float()


def erode(foreground: Tensor, margin: int) -> Tensor:
    """Pixels (B, 1, H, W) whose square neighbourhood lies in the foreground, by sums over rows and columns."""
    outside = F.pad((~foreground).int(), (margin + 1, margin, margin + 1, margin), value=1)
    sums = outside.cumsum(dim=2, dtype=torch.int32).cumsum(dim=3, dtype=torch.int32)
    window = 2 * margin + 1
    columns = sums[..., window:] - sums[..., :-window]
    return columns[..., window:, :] == columns[..., :-window, :]


def free_radius(centres: Tensor, foreground: Tensor) -> Tensor:
    """Distance (B, L, K) from each centre (B, L, K, 2) to the nearest background pixel, inside or just outside."""
    outside = F.pad(~foreground[:, 0], (1, 1, 1, 1), value=True)  # (B, H + 2, W + 2)
    height, width = outside.shape[1:]
    rows = torch.arange(height, device=centres.device, dtype=torch.float32)[:, None]
    above = torch.where(outside, rows, -torch.inf).cummax(dim=1).values
    below = torch.where(outside, rows, torch.inf).flip(1).cummin(dim=1).values.flip(1)
    vertical = torch.minimum(rows - above, below - rows)  # (B, H + 2, W + 2) within the column
    row, column = (centres.flatten(1, 2) + 1).unbind(dim=2)  # (B, L * K)
    image = torch.arange(len(centres), device=centres.device)[:, None]
    sideways = torch.arange(width, device=centres.device) - column[..., None]  # (B, L * K, W + 2)
    nearest = (vertical[image, row.long()].square() + sideways.square()).amin(dim=2).sqrt()
    return nearest.view(centres.shape[:3])


def shrinkage(centres: Tensor, radii: Tensor) -> Tensor:
    """Factor in [0, 1] on the radii at which the first k + 1 lesions of a layout stay apart: (B, L, K)."""
    slots = radii.shape[2]
    distance = (centres[:, :, :, None] - centres[:, :, None]).norm(dim=-1)  # (B, L, K, K)
    room = (distance - GAP) / (radii[..., :, None] + radii[..., None, :])
    earlier = torch.ones(slots, slots, dtype=torch.bool, device=radii.device).triu(diagonal=1)
    nearest = room.masked_fill(~earlier, torch.inf).amin(dim=2)  # (B, L, K) over the lesions before each
    factor: Tensor = nearest.cummin(dim=2).values.clamp(0, 1)
    return factor


def draw_sources(uniform: Tensor, batch: int) -> Tensor:
    """How many rows further on a lesion's donor lies: never the image itself, unless it is alone."""
    return 1 + (uniform * (batch - 1)).long() if batch > 1 else torch.zeros_like(uniform, dtype=torch.int64)


def share_out(uniform: Tensor, shift: Tensor, num_classes: int) -> Tensor:
    """Classes 0..C-1 in random order, as evenly as rows allow, from uniform numbers (B,) and (1,): (B,) int64."""
    return (uniform.argsort() + (shift * num_classes).long()) % num_classes
