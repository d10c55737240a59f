"""Which channels PaDiM keeps."""

from collections.abc import Sequence

import torch
from torch import Tensor

from detectors.inputs import Shape


def draw_channels(total: int, count: int | None, seed: int) -> Tensor:
    """A random subset of channels, ascending."""
    if count is None:
        return torch.arange(total)
    if count > total:
        raise ValueError(f"expected num_features <= {total}, the backbone's channels, got {count}: None keeps all")
    return torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:count].sort().values


def choose_channels(shapes: Sequence[Shape], count: int | None, seed: int, given: Tensor | None) -> Tensor:
    """The given channels, or a random subset, of maps of these shapes (C, rows, columns)."""
    total = sum(channels for channels, _, _ in shapes)
    return draw_channels(total, count, seed) if given is None else check_channels(given, total)


def check_channels(channels: Tensor, total: int) -> Tensor:
    """Given channels, ascending; refuses repeated ones and those that do not exist."""
    ascending = sorted(set(channels.tolist()))
    if len(ascending) != len(channels) or ascending[0] < 0 or ascending[-1] >= total:
        raise ValueError(f"expected distinct channels in [0, {total}), got {channels.tolist()}")
    return torch.tensor(ascending)


def draw_seed(generator: torch.Generator | None) -> int:
    """A number from which a subset can be drawn later, the same in every copy."""
    device = "cpu" if generator is None else generator.device
    return int(torch.randint(2**62, (), generator=generator, device=device))
