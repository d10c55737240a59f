"""Evaluation: how good a detector is on a labelled test set."""

from detectors.evaluation.metrics import evaluate

__all__ = ["evaluate"]
