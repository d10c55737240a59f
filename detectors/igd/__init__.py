"""IGD: interpolated Gaussian descriptor."""

from detectors.igd.igd import IGD
from detectors.igd.losses import IGDLosses

__all__ = ["IGD", "IGDLosses"]
