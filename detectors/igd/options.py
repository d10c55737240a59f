"""Checks of IGD's options."""

from collections.abc import Iterable


def check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Refuse what is none of the choices."""
    if value not in choices:
        raise ValueError(f"expected {name} to be one of {', '.join(choices)}, got {value!r}")


def check_positive(**options: float) -> None:
    """Refuse what is not above 0."""
    for name, value in options.items():
        if not value > 0:
            raise ValueError(f"expected {name} above 0, got {value}")


def check_shares(**options: float) -> None:
    """Refuse what is not in [0, 1]."""
    for name, value in options.items():
        if not 0 <= value <= 1:
            raise ValueError(f"expected {name} in [0, 1], got {value}")
