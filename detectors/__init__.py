"""Anomaly detectors on a pre-trained encoder: PaDiM and IGD (MSACL, section 3.3)."""

from detectors.igd import IGD, IGDLosses

__all__ = ["IGD", "IGDLosses"]
