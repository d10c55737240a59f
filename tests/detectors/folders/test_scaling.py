"""The range that deep images fill."""

import pytest
import torch

from detectors.folders.scaling import HeldValues


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 255.0], (0.0, 255.0)),
        ([0.0, 256.0], (0.0, 511.0)),
        ([3.0, 4095.0], (0.0, 4095.0)),
        ([0.0, 0.5], (0.0, 1.0)),
        ([0.0, 1.5], (0.0, 1.5)),
        ([-1000.0, 400.0], (-1000.0, 400.0)),
        ([-7.5, -7.5], (-7.5, -6.5)),  # an empty image, such as air alone
    ],
)
def test_natural_range(values: list[float], expected: tuple[float, float]) -> None:
    held = HeldValues()
    assert held.natural_range() is None
    for value in values:
        held.add(torch.full((1, 2, 2), value))
    assert held.natural_range() == expected
