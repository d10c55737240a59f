"""Modules: buffers that exist only after fitting and load before it; evaluation mode for a while."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn


class LateBuffers(nn.Module):
    """A module with buffers that are None until they are assigned; loading a state_dict makes room for them.

    Its own buffers (not its children's) keep their precision under `.half()`: it holds neither moments nor thresholds.
    """

    device_marker: Tensor

    def __init__(self) -> None:
        super().__init__()
        self._late_buffers: list[str] = []
        self.register_buffer(
            "device_marker", torch.empty(0), persistent=False
        )  # knows the device while there is nothing else

    def register_late_buffer(self, name: str) -> None:
        """Register a buffer that is None until it is assigned, and that loads from a state_dict even then."""
        self.register_buffer(name, None)
        self._late_buffers.append(name)

    def after_load(self) -> None:
        """Restore Python values that derive from loaded buffers; call super's when overriding."""

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Make room for the late buffers that the checkpoint holds, and drop those it lacks."""
        for name in self._late_buffers:
            saved = state_dict.get(prefix + name)
            room = None if saved is None else torch.empty_like(saved, device=self.device_marker.device)
            setattr(self, name, room)
        super()._load_from_state_dict(state_dict, prefix, *args)
        self.after_load()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Follow `.to(device)` with the own buffers, everything with the children."""
        if recurse:
            for child in self.children():
                child._apply(fn)  # type: ignore[no-untyped-call]
        return super()._apply(lambda tensor: tensor.to(fn(tensor).device), recurse=False)  # type: ignore[no-any-return, no-untyped-call]


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Run in evaluation mode, and go back to the mode before."""
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)
