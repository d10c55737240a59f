"""What the processes of torch.distributed's default group tell each other during a fit."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch.distributed as dist
from torch import Tensor

from detectors.inputs import Shape
from detectors.padim.tree import Level


class Settings(NamedTuple):
    """What the first images settle."""

    image_shape: Shape
    map_shapes: list[Shape]
    levels: Sequence[Level]


def should_join(distributed: bool | None) -> bool:
    """Whether to join the processes; None means wherever the group exists."""
    if distributed is None:
        return dist.is_available() and dist.is_initialized()
    return distributed


def broadcast_int(value: int) -> int:
    """The first process's value, in every process."""
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


def run_all_or_raise(batches: Iterable[Tensor], work: Callable[[Tensor], None]) -> None:
    """Work on each batch of this process; if one process fails all raise, rather than wait for it.

    Raises:
        Exception: The own error where there is one.
        ValueError: Which other process failed, and how.
    """
    error = None
    try:
        for batch in batches:
            work(batch)
    except Exception as caught:
        error = caught
    messages: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(messages, error and f"{type(error).__name__}: {error}")
    if error is not None:
        raise error
    for rank, message in enumerate(messages):
        if message is not None:
            raise ValueError(f"expected images from all processes, but process {rank} failed with {message}")


def agree(own: Settings | None) -> Settings | None:
    """What all processes that have seen images agree on; None if none has.

    Raises:
        ValueError: In all processes alike, if they differ.
    """
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, own)
    seen = [settings for settings in everyone if settings is not None]
    if not seen:
        return None
    first: Settings = seen[0]
    if any(settings != first for settings in seen):
        shapes = [settings and settings.image_shape for settings in everyone]
        raise ValueError(f"expected images of one size in all processes, got {shapes}")
    return first
