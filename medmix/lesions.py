"""What a lesion is: where it lies, how large it is, which image it is cut from.

Lengths are in pixels, positions are (row, column). Slot k of an image is its k-th lesion: the image with n lesions has
slots 0..n-1, so the lesions of one draw are nested over n.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

NUM_LAYOUTS = 8
GAP = 2.0  # pixels between two lesions' circles: more than the sqrt(2) at which pixels touch


def sample_layout(
    uniform: Tensor, shape: tuple[int, int], size: tuple[float, float], foreground: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Places and radii of lesions that stay apart: the best of 8 random layouts and one regular grid.

    Args:
        uniform: (B, L + 1, K, 3) numbers in [0, 1): row, column and size of each lesion of each layout.
        shape: Image height and width.
        size: Smallest and largest lesion diameter as a fraction of the shorter side.
        foreground: (B, 1, H, W) bool, where lesions may lie; None allows the whole image.

    Returns:
        Centres (B, K, 2) in whole pixels and radii (B, K); a radius of 0 stands for a lesion that found no place.
    """
    height, width = shape
    limits = torch.tensor([height, width], device=uniform.device)
    side = min(height, width)
    radii = side / 2 * (size[0] + (size[1] - size[0]) * uniform[..., 2])  # (B, L + 1, K)
    radii = radii.clamp(max=(side - 1) / 2)
    radii = torch.cat([radii[:, :-1], radii[:, -1:].clamp(max=grid_radius(side, radii.shape[2]))], dim=1)
    if foreground is None:
        centres = free_places(uniform[:, :-1, :, :2], radii[:, :-1], limits)
    else:
        centres = foreground_places(uniform[:, :-1, :, 0], foreground, math.floor(side / 2 * size[0]))
    centres = torch.cat([centres, grid_places(uniform[:, -1, :, 0], limits)[:, None]], dim=1)  # (B, L + 1, K, 2)
    fit = shrinkage(centres, radii)  # (B, L + 1)
    if foreground is not None:
        fit = fit * is_inside(centres, foreground)
    best = fit.clamp(max=1).argmax(dim=1)  # (B,) the first layout that fits, or the one that shrinks least
    row = torch.arange(len(best), device=best.device)
    centre, radius = centres[row, best], radii[row, best] * fit[row, best].clamp(max=1)[:, None]
    return centre, radius if foreground is None else fit_radius(centre, radius, foreground)


def grid_radius(side: int, slots: int) -> float:
    """Largest radius at which neighbours of the regular grid stay `GAP` apart."""
    return max(math.floor(side / math.ceil(math.sqrt(slots))) - GAP, 0.5) / 2


def grid_places(uniform: Tensor, limits: Tensor) -> Tensor:
    """Distinct cells of a regular grid in random order: (B, K) -> centres (B, K, 2)."""
    slots = uniform.shape[1]
    cells = math.ceil(math.sqrt(slots))
    order = (uniform.argsort(dim=1) + (uniform[:, :1] * cells**2).long()) % cells**2  # (B, K) distinct cells
    place = torch.stack([order // cells, order % cells], dim=-1)
    return ((place + 0.5) * limits / cells).floor()


def free_places(uniform: Tensor, radii: Tensor, limits: Tensor) -> Tensor:
    """Uniform centres of lesions that lie wholly inside the image: (..., K, 2)."""
    margin = radii.ceil()[..., None]
    room = (limits - 2 * margin).clamp(min=1)
    return torch.minimum(margin, (limits - 1) // 2) + (uniform * room).floor()


def foreground_places(uniform: Tensor, foreground: Tensor, margin: int) -> Tensor:
    """Uniform centres among the foreground pixels that are `margin` from its border, where there are any."""
    inner = erode(foreground, margin).flatten(1)  # (B, H * W)
    allowed = torch.where(inner.any(dim=1, keepdim=True), inner, foreground.flatten(1))
    ranks = allowed.cumsum(dim=1)
    wanted = (uniform.flatten(1) * ranks[:, -1:]).floor() + 1  # (B, L * K)
    index = torch.searchsorted(ranks.double(), wanted.double()).clamp(max=allowed.shape[1] - 1)
    width = foreground.shape[-1]
    return torch.stack([index // width, index % width], dim=-1).view(*uniform.shape, 2).float()


def erode(foreground: Tensor, margin: int) -> Tensor:
    """Pixels whose square neighbourhood lies in the foreground."""
    padded = F.pad((~foreground).float(), (margin,) * 4, value=1.0)
    return F.max_pool2d(padded, 2 * margin + 1, stride=1) == 0


def is_inside(centres: Tensor, foreground: Tensor) -> Tensor:
    """Whether all centres (B, L, K, 2) of a layout are in the foreground: (B, L)."""
    index = (centres[..., 0] * foreground.shape[-1] + centres[..., 1]).long()
    inside = foreground.flatten(1).gather(1, index.flatten(1)).view(index.shape)
    return inside.all(dim=2)


def shrinkage(centres: Tensor, radii: Tensor) -> Tensor:
    """Factor on the radii at which all lesions of a layout stay apart: (B, L); above 1 there is room to spare."""
    slots = radii.shape[-1]
    first, second = torch.triu_indices(slots, slots, offset=1, device=radii.device)
    if len(first) == 0:
        return torch.ones_like(radii[..., 0])
    distance = (centres[..., first, :] - centres[..., second, :]).norm(dim=-1)
    room: Tensor = (distance - GAP) / (radii[..., first] + radii[..., second])
    return room.amin(dim=-1).clamp(min=0)


def fit_radius(centre: Tensor, radius: Tensor, foreground: Tensor) -> Tensor:
    """Shrink radii (B, K) until the circles lie in the foreground; 0 where not even the centre does."""
    height, width = foreground.shape[-2:]
    rows = torch.arange(-1, height + 1, device=centre.device)
    columns = torch.arange(-1, width + 1, device=centre.device)
    squared = (rows[:, None] - centre[..., :1, None]) ** 2 + (columns - centre[..., 1:, None]) ** 2  # (B, K, H+2, W+2)
    outside = F.pad(~foreground, (1, 1, 1, 1), value=True)
    nearest = squared.masked_fill(~outside, torch.inf).flatten(2).amin(dim=2).sqrt()
    return torch.minimum(radius, nearest)


def draw_sources(uniform: Tensor, batch: int) -> Tensor:
    """How many rows further on a lesion's donor lies: never the image itself, unless it is alone."""
    return 1 + (uniform * (batch - 1)).long() if batch > 1 else torch.zeros_like(uniform, dtype=torch.int64)
