"""Local means of images under a separable Gaussian window."""

import torch
import torch.nn.functional as F
from torch import Tensor

LARGEST_SIDE_FOR_MATRICES = 64  # measured: below it two matrix products beat two depthwise convolutions


def gaussian_window(size: int, sigma: float, like: Tensor) -> Tensor:
    """A Gaussian of `size` taps that sum to 1, in the dtype and on the device of `like`."""
    offsets = torch.arange(size, dtype=like.dtype, device=like.device)
    offsets -= size // 2
    variance = sigma**2
    window = torch.exp(-(offsets**2) / (2 * variance))
    return window / window.sum()


def window_means(images: Tensor, window: Tensor) -> Tensor:
    """Weighted means under a separable window without padding: (B, C, H, W) -> (B, C, H - w + 1, W - w + 1)."""
    if max(images.shape[2:]) <= LARGEST_SIDE_FOR_MATRICES:
        rows = band_matrix(window, images.shape[2])
        columns = band_matrix(window, images.shape[3])
        along_rows = images @ columns.mT
        return rows @ along_rows
    channels = images.shape[1]
    kernels = window.expand(channels, 1, 1, -1)
    along_rows = F.conv2d(images, kernels, groups=channels)
    return F.conv2d(along_rows, kernels.mT, groups=channels)


def band_matrix(window: Tensor, side: int) -> Tensor:
    """The matrix (side - w + 1, side) whose product with a signal is its filtering by the window."""
    taps = len(window)
    outputs = side - taps + 1
    # Rows of side + 1 entries, read in rows of `side`: each is shifted by one against the one before.
    padded = F.pad(window, (0, outputs))
    repeated = padded.repeat(outputs)
    return repeated[: outputs * side].view(outputs, side)
