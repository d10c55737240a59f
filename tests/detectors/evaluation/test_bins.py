"""Scores as whole numbers, and back."""

import numpy as np
import pytest

from detectors.evaluation.bins import keys_of, value_of


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, 0.1, -3e38, 2.0**-39])
def test_the_value_of_a_key_is_the_value(value: float) -> None:
    single = np.float32(value)
    key = int(keys_of(np.array([single]))[0])
    assert value_of(key) == float(single)


def test_keys_are_in_the_order_of_the_values() -> None:
    values = np.sort(np.random.default_rng(0).normal(size=100).astype(np.float32))
    assert (np.diff(keys_of(values)) > 0).all()
