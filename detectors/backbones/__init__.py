"""Backbones: which network, and which of its maps or features a detector reads."""

from detectors.backbones.extractor import FeatureExtractor, channels_taken, with_channels

__all__ = ["FeatureExtractor", "channels_taken", "with_channels"]
