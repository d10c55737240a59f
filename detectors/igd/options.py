"""Checks of IGD's options."""

import math
from collections.abc import Iterable
from numbers import Integral


def check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Refuse what is none of the choices."""
    if value not in choices:
        raise ValueError(f"expected {name} to be one of {', '.join(choices)}, got {value!r}")


def check_positive(**options: float) -> None:
    """Refuse what is not above 0, or infinite."""
    for name, value in options.items():
        if not 0 < value < math.inf:
            raise ValueError(f"expected {name} above 0, got {value}")


def check_shares(**options: float) -> None:
    """Refuse what is not in [0, 1]."""
    for name, value in options.items():
        if not 0 <= value <= 1:
            raise ValueError(f"expected {name} in [0, 1], got {value}")


def check_whole(**options: int) -> None:
    """Refuse what is no whole number."""
    for name, value in options.items():
        if not isinstance(value, Integral):
            raise TypeError(f"expected {name} as a whole number, got {value!r}: convert it with int()")


def check_count(**options: int) -> None:
    """Refuse what is no whole number above 0."""
    check_positive(**options)
    check_whole(**options)
