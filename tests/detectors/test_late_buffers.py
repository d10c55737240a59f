"""Buffers that come later follow their module to a device, and keep their precision."""

import torch
from torch import nn

from detectors.late_buffers import LateBuffers


class Late(LateBuffers):
    def __init__(self) -> None:
        super().__init__()
        self.child = nn.Linear(1, 1)
        self.register_late_buffer("late")
        self.late = torch.ones(2)


def test_without_recursion_the_children_stay() -> None:
    module = Late()
    module._apply(lambda tensor: tensor.to("meta"), recurse=False)
    assert module.late.is_meta
    assert not module.child.weight.is_meta
    module._apply(lambda tensor: tensor.to("meta"))
    assert module.child.weight.is_meta
