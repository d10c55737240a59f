"""The calibrated temperature, equation (7)."""

from typing import NamedTuple

LARGEST_PLAIN_KAPPA = 40.0  # exp(+-40) and its sums are normal float32 numbers, so they need no shift


class Kappas(NamedTuple):
    """The factors of a product, equation (7).

    Example:
        >>> Kappas.calibrated(temperature=0.5, alpha=4.0)
        Kappas(same=0.5, other=2.0)
    """

    same: float  # within a class
    other: float  # between classes

    @classmethod
    def calibrated(cls, temperature: float, alpha: float) -> "Kappas":
        """Equation (7): 1 / (alpha tau) within a class, 1 / tau between classes."""
        return cls(same=1 / (alpha * temperature), other=1 / temperature)

    @property
    def are_large(self) -> bool:
        """Whether exp(kappa) needs a running maximum."""
        return max(self.same, self.other) > LARGEST_PLAIN_KAPPA

    def times(self, factor: float) -> "Kappas":
        """Both factors times another."""
        return Kappas(self.same * factor, self.other * factor)
