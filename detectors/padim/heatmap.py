"""Bilinear resize and Gaussian blur as one matrix per axis (map = rows @ distances @ columns.T); image scores."""

import torch
import torch.nn.functional as F
from torch import Tensor


def resize_and_blur_matrix(size: int, out_size: int, sigma: float) -> Tensor:
    """Return the matrix (out_size, size) that resizes bilinearly, then blurs with a reflect-padded Gaussian.

    Equal, along one axis, to `F.interpolate(mode="bilinear")` followed by a Gaussian filter cut off at 4 sigma.

    Args:
        size: Number of values along the axis.
        out_size: Number of pixels along the axis.
        sigma: Standard deviation of the Gaussian in pixels; 0 leaves the blur out.

    Returns:
        The matrix in float64; its rows sum to 1.

    Raises:
        ValueError: If a size is below 1 or sigma is negative.

    Example:
        >>> resize_and_blur_matrix(2, 4, sigma=0.0)[:, 0]
        tensor([1.0000, 0.7500, 0.2500, 0.0000], dtype=torch.float64)
    """
    if size < 1 or out_size < 1 or sigma < 0:
        raise ValueError(f"expected sizes >= 1 and sigma >= 0, got {size}, {out_size} and {sigma}")
    unit = torch.eye(size, dtype=torch.float64)[None]  # (1, size, size): row i is the i-th unit signal
    resize = F.interpolate(unit, size=out_size, mode="linear")[0].T  # (out_size, size)
    return blur_matrix(out_size, sigma) @ resize


def blur_matrix(size: int, sigma: float) -> Tensor:
    """Return the matrix (size, size) of a Gaussian filter with reflected borders, in float64."""
    radius = int(4 * sigma + 0.5)
    if radius == 0:
        return torch.eye(size, dtype=torch.float64)
    offsets = torch.arange(-radius, radius + 1)
    kernel = torch.exp(-(offsets.double() ** 2) / (2 * sigma**2))
    sources = reflect(torch.arange(size)[:, None] + offsets, size)  # (size, 2 radius + 1)
    weights = (kernel / kernel.sum()).expand(size, -1)
    return torch.zeros(size, size, dtype=torch.float64).scatter_add_(1, sources, weights)


def reflect(index: Tensor, size: int) -> Tensor:
    """Mirror indices at 0 and size - 1, as often as it takes."""
    period = max(2 * (size - 1), 1)
    folded = index.remainder(period)
    return torch.minimum(folded, period - folded) if size > 1 else torch.zeros_like(index)


def image_score(anomaly_map: Tensor, top_fraction: float) -> Tensor:
    """Mean of the highest pixels' share of each map (B, 1, H, W), at least one pixel: (B,)."""
    pixels = anomaly_map.flatten(1)
    count = max(1, round(top_fraction * pixels.shape[1]))
    return pixels.amax(1) if count == 1 else pixels.topk(count, sorted=False).values.mean(1)
