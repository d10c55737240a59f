"""Folders of images in, a page of results out: what lies between a detector and a person's files."""

from detectors.folders.images import ImageFiles
from detectors.folders.labelled import LabelledFiles
from detectors.folders.overlay import map_limits, overlay
from detectors.folders.report import write_report

__all__ = ["ImageFiles", "LabelledFiles", "map_limits", "overlay", "write_report"]
