"""Anomaly detectors on a pre-trained encoder: PaDiM and IGD (MSACL, section 3.3)."""

from importlib.metadata import version

from detectors.backbones import FeatureExtractor
from detectors.base import AnomalyDetector
from detectors.evaluation import evaluate
from detectors.exporting import export_onnx
from detectors.folders import ImageFiles, LabelledFiles, map_limits, overlay, write_report
from detectors.igd.igd import IGD
from detectors.loading import load
from detectors.padim import PaDiM
from detectors.prediction import AnomalyPrediction

__version__ = version("msacl")

__all__ = [
    "IGD",
    "AnomalyDetector",
    "AnomalyPrediction",
    "FeatureExtractor",
    "ImageFiles",
    "LabelledFiles",
    "PaDiM",
    "__version__",
    "evaluate",
    "export_onnx",
    "load",
    "map_limits",
    "overlay",
    "write_report",
]
