"""Anomaly detectors on a pre-trained encoder: PaDiM and IGD (MSACL, section 3.3)."""
