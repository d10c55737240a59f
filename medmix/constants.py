"""Small constants that are made where they are needed: a copy from the host would make the host wait for the device."""

from collections.abc import Sequence

import torch
from torch import Tensor


def constants(values: Sequence[float], like: Tensor) -> Tensor:
    """A few numbers as a tensor (N,) of the dtype and on the device of another."""
    return torch.stack([like.new_full((), value) for value in values])
