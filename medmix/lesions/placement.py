"""Where lesions lie and how large they are.

Lengths are in pixels, positions are (row, column). Slot k of an image is its k-th lesion: the image with n lesions has
slots 0..n-1, so the lesions of one draw are nested over n.
"""

import math

import torch
from torch import Tensor

from medmix._random import small_tensor
from medmix.lesions.foreground import foreground_places, free_radius

NUM_LAYOUTS = 16
GAP = 2.0  # pixels between two lesions' circles: more than the sqrt(2) at which pixels touch
LEAST_SHARE = 0.5  # of the radius asked for: where a foreground leaves less, there are fewer lesions


def sample_layout(
    uniform: Tensor,
    shape: tuple[int, int],
    size: tuple[float, float],
    foreground: Tensor | None,
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
    side = min(shape)
    limits = small_tensor(shape, uniform)
    target_radius = side / 2 * (size[0] + (size[1] - size[0]) * uniform[..., 2])  # (B, L + 1, K)
    target_radius = target_radius.clamp(max=(side - 1) / 2)
    # the last layout is the regular grid, in whose cells large lesions have to shrink
    random_radii = target_radius[:, :-1]
    grid_radii = target_radius[:, -1:].clamp(max=grid_radius(side, target_radius.shape[2]))
    radii = torch.cat([random_radii, grid_radii], dim=1)
    grid = grid_places(uniform[:, -1], uniform[:, 0, 0, 3], radii[:, -1], limits)
    if foreground is None:
        random_places = free_places(uniform[:, :-1, :, :2], random_radii, limits)
        centres = torch.cat([random_places, grid[:, None]], dim=1)  # (B, L + 1, K, 2)
        free_radii = torch.full_like(radii, torch.inf)
        return choose_layout(centres, radii, target_radius, free_radii, min_share=0)
    margin = math.floor(side / 2 * size[0])
    random_places = foreground_places(uniform[:, :-1, :, 0], foreground, margin)
    centres = torch.cat([random_places, grid[:, None]], dim=1)
    free_radii = free_radius(centres, foreground)
    return choose_layout(centres, radii, target_radius, free_radii, min_share=LEAST_SHARE)


def spread_sizes(layout: Tensor, order: Tensor) -> Tensor:
    """Sizes spread evenly over the batch, slot by slot; each alone stays uniform, and those of one image independent.

    Args:
        layout: (B, L + 1, K, 4) numbers in [0, 1), the third of them the size.
        order: (B, K) int64, each column a random permutation of the batch.

    Returns:
        The layout, where image `order[i, k]` has the i-th smallest lesion in slot k: in the i-th of B equal parts.
    """
    row, column, size, cell = layout.unbind(dim=-1)
    rank = order.argsort(dim=0)[:, None]  # (B, 1, K)
    spread = (rank + size) / len(order)
    return torch.stack([row, column, spread, cell], dim=-1)


def draw_donors(uniform: Tensor, batch: int) -> Tensor:
    """How many rows further on a lesion's donor lies: never the image itself, unless it is alone."""
    if batch == 1:
        return torch.zeros_like(uniform, dtype=torch.int64)
    return 1 + (uniform * (batch - 1)).long()


def choose_layout(
    centres: Tensor,
    radii: Tensor,
    target_radius: Tensor,
    free_radii: Tensor,
    min_share: float,
) -> tuple[Tensor, Tensor]:
    """The layout that leaves the lesions largest, with as many of them as keep a share of what was wanted.

    Args:
        centres: (B, L, K, 2).
        radii: (B, L, K), the layouts' radii.
        target_radius: (B, L, K), the radii asked for.
        free_radii: (B, L, K), the largest radii that their places allow.
        min_share: Share in [0, 1]; 0 keeps all lesions.

    Returns:
        Centres (B, K, 2) and radii (B, K), 0 for the lesions left out.
    """
    slots = radii.shape[2]
    # what each layout leaves of its first k + 1 lesions: (B, L, K)
    apart = shrinkage(centres, radii)
    kept_by_layout = (radii / target_radius).cummin(dim=2).values
    kept_by_place = (free_radii / target_radius).cummin(dim=2).values
    share = torch.minimum(apart * kept_by_layout, kept_by_place)
    # as many lesions as some layout has room for, one at least
    steps = torch.arange(1, slots + 1, device=radii.device)
    enough = share.amax(dim=1) >= min_share  # (B, K)
    number = (steps * enough).amax(dim=1).clamp(min=1)  # (B,)
    # the first layout that fits, or the one that shrinks least
    row = torch.arange(len(radii), device=radii.device)
    best = share[row, :, number - 1].argmax(dim=1)  # (B,)
    shrunk = radii[row, best] * apart[row, best, number - 1, None]
    radius = torch.minimum(shrunk, free_radii[row, best])
    present = steps <= number[:, None]
    return centres[row, best], radius * present


def shrinkage(centres: Tensor, radii: Tensor) -> Tensor:
    """Factor in [0, 1] on the radii at which the first k + 1 lesions of a layout stay apart: (B, L, K)."""
    slots = radii.shape[2]
    between = centres[:, :, :, None] - centres[:, :, None]  # (B, L, K, K, 2)
    distance = between.norm(dim=-1)
    free_share = (distance - GAP) / (radii[..., :, None] + radii[..., None, :])
    # each lesion against those before it
    earlier = torch.ones(slots, slots, dtype=torch.bool, device=radii.device).triu(diagonal=1)
    nearest = free_share.masked_fill(~earlier, torch.inf).amin(dim=2)  # (B, L, K)
    factor: Tensor = nearest.cummin(dim=2).values.clamp(0, 1)
    return factor


def grid_radius(side: int, slots: int) -> float:
    """Largest radius at which neighbours of the regular grid stay `GAP` apart."""
    cell = math.floor(side / math.ceil(math.sqrt(slots)))
    return max(cell - GAP, 0.5) / 2


def grid_places(
    uniform: Tensor,
    shift: Tensor,
    radii: Tensor,
    limits: Tensor,
) -> Tensor:
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
    # distinct cells: a random order of the lesions, turned by a random number of cells
    turn = (shift[:, None] * cells**2).long()
    order = (uniform[..., 3].argsort(dim=1) + turn) % cells**2  # (B, K)
    place = torch.stack([order // cells, order % cells], dim=-1)
    middle = (place + 0.5) * limits / cells
    slack = (limits / cells - GAP - 1 - 2 * radii[..., None]).clamp(min=0)  # (B, K, 2)
    return (middle + (uniform[..., :2] - 0.5) * slack).floor()


def free_places(
    uniform: Tensor,
    radii: Tensor,
    limits: Tensor,
) -> Tensor:
    """Uniform centres of lesions that lie wholly inside the image: (..., K, 2)."""
    margin = radii.ceil()[..., None]
    freedom = (limits - 2 * margin).clamp(min=1)
    first = torch.minimum(margin, (limits - 1) // 2)
    return first + (uniform * freedom).floor()
