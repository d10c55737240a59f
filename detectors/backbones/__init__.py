"""Backbones: which network, and which of its maps or features a detector reads."""

from detectors.backbones.extractor import FeatureExtractor, channels_taken, make_backbone, with_channels
from detectors.backbones.named import named_backbone

__all__ = ["FeatureExtractor", "channels_taken", "make_backbone", "named_backbone", "with_channels"]
