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
    if min(size, out_size) < 1 or sigma < 0:
        raise ValueError(f"expected sizes >= 1 and sigma >= 0, got {size}, {out_size} and {sigma}")
    unit_signals = torch.eye(size, dtype=torch.float64)  # row i is the i-th one
    resized = F.interpolate(unit_signals[None], size=out_size, mode="linear")  # (1, size, out_size)
    resize = resized[0].T
    return blur_matrix(out_size, sigma) @ resize


def blur_matrix(size: int, sigma: float) -> Tensor:
    """Return the matrix (size, size) of a Gaussian filter with reflected borders, in float64."""
    radius = int(4 * sigma + 0.5)
    if radius == 0:
        return torch.eye(size, dtype=torch.float64)
    offsets = torch.arange(-radius, radius + 1)
    squares = offsets.double() ** 2
    variance = sigma**2
    kernel = torch.exp(-squares / (2 * variance))
    kernel /= kernel.sum()
    # Row i holds the kernel around place i; what falls outside comes back from the border.
    places = torch.arange(size)
    sources = reflect(places[:, None] + offsets, size)  # (size, 2 radius + 1)
    matrix = torch.zeros(size, size, dtype=torch.float64)
    return matrix.scatter_add_(1, sources, kernel.expand(size, -1))


def reflect(index: Tensor, size: int) -> Tensor:
    """Mirror indices at 0 and size - 1, as often as it takes."""
    if size == 1:
        return torch.zeros_like(index)
    period = 2 * (size - 1)
    folded = index.remainder(period)
    return torch.minimum(folded, period - folded)


def image_score(anomaly_map: Tensor, top_fraction: float) -> Tensor:
    """Mean of the highest pixels' share of each map (B, 1, H, W), at least one pixel: (B,)."""
    pixels = anomaly_map.flatten(1)
    share = round(top_fraction * pixels.shape[1])
    count = max(1, share)
    if count == 1:
        return pixels.amax(1)
    highest = pixels.topk(count, sorted=False).values
    return highest.mean(1)
