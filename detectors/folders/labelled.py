"""A labelled test set in a folder: `normal`, `abnormal` and, where somebody drew the lesions, `masks`."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from detectors.folders.images import ImageFiles, resized
from detectors.folders.pixels import read_pixels


class LabelledFiles(Dataset[tuple[Tensor, ...]]):
    """Test images with labels, and masks where the folder has them: what `evaluate` takes.

    Args:
        folder: Holds `normal` and `abnormal` and, if lesions were drawn, `masks` with one file for each abnormal image
            (same path and stem; values above half of its maximum are lesion).
        metadata: `ImageFiles.metadata` of the images that the detector was fitted on.

    Raises:
        FileNotFoundError: If a folder is missing or empty, or an abnormal image has no mask where there are masks.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> folder = tempfile.TemporaryDirectory()
        >>> for name in ("normal", "abnormal"):
        ...     Path(folder.name, name).mkdir()
        ...     Image.new("L", (40, 30), 255).save(f"{folder.name}/{name}/0.png")
        >>> test = LabelledFiles(folder.name, {"image_size": 16, "image_channels": 1})
        >>> [(image.shape, int(label)) for image, label in test]
        [(torch.Size([1, 16, 16]), 0), (torch.Size([1, 16, 16]), 1)]
        >>> folder.cleanup()
    """

    def __init__(self, folder: str | Path, metadata: Mapping[str, Any]) -> None:
        root = Path(folder)
        masks = root / "masks"
        self.normal = ImageFiles.like(root / "normal", metadata)
        self.abnormal = ImageFiles.like(root / "abnormal", metadata)
        self.masks = _masks_of(self.abnormal, masks) if masks.is_dir() else None

    def __len__(self) -> int:
        return len(self.normal) + len(self.abnormal)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        """The image (C, S, S), its label (1 = abnormal) and, where there are masks, its lesions (1, S, S) bool."""
        if not 0 <= index < len(self):
            raise IndexError(f"expected an index below {len(self)}, got {index}")
        position = index - len(self.normal)  # among the abnormal images, which come last
        is_normal = position < 0
        image = self.normal[index] if is_normal else self.abnormal[position]
        label = torch.tensor(0 if is_normal else 1)
        if self.masks is None:
            return image, label
        side = image.shape[1]
        if is_normal:
            healthy = torch.zeros(1, side, side, dtype=torch.bool)
            return image, label, healthy
        return image, label, _read_mask(self.masks[position], side)


def _masks_of(images: ImageFiles, folder: Path) -> list[Path]:
    """Find the mask of each image by its path without suffix."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # masks may hold anything
        drawn = ImageFiles(folder, images.size)
    pairs = zip(_stems(drawn), drawn.files, strict=True)
    by_stem = dict(pairs)
    stems = _stems(images)
    missing = [stem for stem in stems if stem not in by_stem]
    if missing:
        raise FileNotFoundError(f"expected a mask in {folder} for each abnormal image; none for {missing[:3]}")
    return [by_stem[stem] for stem in stems]


def _stems(images: ImageFiles) -> list[str]:
    """Path of each image below its folder, without suffix."""
    return [Path(name).with_suffix("").as_posix() for name in images.names]


def _read_mask(file: Path, side: int) -> Tensor:
    """Read where a lesion is, (1, side, side) bool; drawn in 1, 255 or anything else."""
    pixels = read_pixels(file)
    drawn = pixels[:1].float()
    half = drawn.max() / 2
    lesion = drawn > half
    share = resized(lesion.float(), (side, side))  # of each pixel
    return share > 0.5
