"""Anomaly detectors on a pre-trained encoder: PaDiM and IGD (MSACL, section 3.3)."""

from detectors.base import AnomalyDetector, AnomalyPrediction
from detectors.features import FeatureExtractor
from detectors.igd.igd import IGD
from detectors.metrics import evaluate
from detectors.padim import PaDiM

__all__ = ["IGD", "AnomalyDetector", "AnomalyPrediction", "FeatureExtractor", "PaDiM", "evaluate"]
