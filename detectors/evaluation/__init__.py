"""Evaluation: how good a detector is on a labelled test set."""

from detectors.evaluation.evaluate import evaluate

__all__ = ["evaluate"]
