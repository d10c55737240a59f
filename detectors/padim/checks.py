"""Checks of PaDiM's options, and of what is to be joined or loaded."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from detectors.inputs import Shape
from detectors.padim.tree import Level


def check_padim_options(
    num_features: int | None, blur_sigma: float, top_fraction: float, channels: Tensor | None
) -> None:
    """Refuse options out of range."""
    if num_features is not None and (not isinstance(num_features, int) or num_features < 1):
        raise ValueError(f"expected a whole number num_features >= 1, or None for all, got {num_features!r}")
    if not 0 <= blur_sigma < math.inf:
        raise ValueError(f"expected blur_sigma >= 0, got {blur_sigma}: 0 leaves the blur out")
    if not 0 <= top_fraction <= 1:
        raise ValueError(f"expected top_fraction in [0, 1], got {top_fraction}: 0 takes the maximum")
    if channels is None:
        return
    if not isinstance(channels, Tensor):
        raise TypeError(f"expected channels as a tensor, got {type(channels).__name__}: torch.tensor([...])")
    if channels.dtype not in (torch.int32, torch.int64) or channels.ndim != 1 or len(channels) == 0:
        raise ValueError(f"expected channels as a vector of integers, got {channels.dtype}, {tuple(channels.shape)}")


def check_alike(channels: Tensor | None, shape: Shape | None, others: Tensor | None, other_shape: Shape | None) -> None:
    """Refuse to join detectors that keep different channels or saw images of different shapes."""
    if channels is None or others is None:
        raise ValueError("expected two detectors that have seen images: call partial_fit or fit on each first")
    if shape != other_shape or not torch.equal(channels.cpu(), others.cpu()):
        raise ValueError(
            f"expected a detector of the same image size and channels, got {other_shape} for {shape}: make "
            "both as copies of one unfitted detector, or pass the same channels"
        )


def check_levels(expected: Sequence[Level], got: Sequence[Level]) -> None:
    """Refuse a loaded state whose grids are not those that its channels and map shapes give."""
    if list(got) != list(expected):
        raise ValueError(f"expected grids {expected} in the state, got {got}: was nested the same?")
