"""PaDiM: a Gaussian of backbone features at every position (eq. 12)."""

from detectors.padim.padim import PaDiM

__all__ = ["PaDiM"]
