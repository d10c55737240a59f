"""A folder of images as a Dataset, scaled by what its files hold."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from detectors.folders.listing import describe_skipped, examine_folder
from detectors.folders.pixels import read_pixels
from detectors.folders.scaling import Range, check_range, to_unit

_GREY_WEIGHTS = (0.299, 0.587, 0.114)  # of red, green, blue (ITU-R BT.601)


class ImageFiles(Dataset[Tensor]):
    """The images of a folder and its sub-folders, as floats in [0, 1] of one size.

    PNG, JPEG, TIFF, WebP, BMP and (with pydicom) DICOM, grey or colour, of 8, 12 or 16 bits. Every file is read once
    at the start. Files that cannot be used are left out with one warning that counts and names them. Images deeper
    than 8 bits share one range, that of the fewest bits that hold all their values: 12-bit X-rays in 16-bit files are
    divided by 4095, not by 65535. `summary()` says what was found.

    Args:
        folder: Where the images are.
        size: Side in pixels to which each image is resized, whatever its aspect.
        channels: 3 (grey images are repeated) or 1 (colour images become grey).
        deep_range: Values of the images deeper than 8 bits that become 0 and 1, such as a window of Hounsfield units;
            what lies outside is cut off. None takes the range that the files fill, and warns where a quarter of it
            is unused.

    Attributes:
        files: Paths of the images, in the order of their names.
        skipped: The other files, each with the reason.

    Raises:
        FileNotFoundError: If there is no such folder, or no image in it.
        ValueError: If an option is out of range.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> folder = tempfile.TemporaryDirectory()
        >>> Image.new("L", (40, 30), 255).save(f"{folder.name}/white.png")
        >>> images = ImageFiles(folder.name, size=16)
        >>> len(images), images.names, images[0].shape, float(images[0].mean())
        (1, ['white.png'], torch.Size([3, 16, 16]), 1.0)
        >>> folder.cleanup()
    """

    def __init__(self, folder: str | Path, size: int, *, channels: int = 3, deep_range: Range | None = None) -> None:
        _check_size(size)
        if channels not in (1, 3):
            raise ValueError(f"expected 1 or 3 channels, got {channels}")
        self.folder = Path(folder)
        self.size = size
        self.channels = channels
        given = check_range(deep_range)
        self.files, self.skipped, self._held = examine_folder(self.folder)
        natural = self._held.natural_range()
        self.deep_range = given or natural
        if self.skipped:
            total = len(self.files) + len(self.skipped)
            warnings.warn(
                f"{len(self.skipped)} of {total} files in {folder} are left out: {describe_skipped(self.skipped)}",
                stacklevel=2,
            )
        if given is None and natural is not None:
            self._held.warn_unless_filled(natural)

    @classmethod
    def like(cls, folder: str | Path, metadata: Mapping[str, Any], size: int | None = None) -> Self:
        """Read another folder as those images were read whose `metadata` these are: same size, channels and range.

        Args:
            folder: Where the new images are.
            metadata: `ImageFiles.metadata`, such as a detector carries in its own `metadata`.
            size: Another side in pixels than theirs.

        Raises:
            FileNotFoundError: If there is no such folder, or no image in it.
            ValueError: If the metadata is of something else.
        """
        if "image_size" not in metadata:
            raise ValueError(
                f"expected metadata of ImageFiles, got {sorted(metadata)}: before a detector is saved, write "
                "detector.metadata.update(images.metadata)"
            )
        deep_range = check_range(metadata.get("image_range"))
        side = metadata["image_size"] if size is None else size
        images = cls(folder, side, channels=metadata["image_channels"], deep_range=deep_range)
        if deep_range is not None and images._held.files:
            images._held.warn_if_cut(deep_range)
        return images

    @property
    def metadata(self) -> dict[str, int | list[float]]:
        """How these images are read, as plain values: `ImageFiles.like` reads others alike."""
        values: dict[str, int | list[float]] = {"image_size": self.size, "image_channels": self.channels}
        if self.deep_range is not None:
            values["image_range"] = list(self.deep_range)
        return values

    @property
    def names(self) -> list[str]:
        """Path of each image below the folder, with slashes."""
        return [file.relative_to(self.folder).as_posix() for file in self.files]

    def summary(self) -> str:
        """Say how many images were found, how deep ones are scaled, and what was left out."""
        text = f"{len(self.files)} images in {self.folder}"
        if self._held.files and self.deep_range is not None:
            low, high = self.deep_range
            text += (
                f"; {self._held.files} of them deeper than 8 bits, with values {self._held.lowest:g} to "
                f"{self._held.highest:g}: scaled from {low:g}..{high:g} to 0..1"
            )
        if self.skipped:
            text += f"; {len(self.skipped)} other files left out"
        return text

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        """The image (channels, size, size) in [0, 1]."""
        return resized(self._read(index), (self.size, self.size))

    def thumbnail(self, index: int, longest: int = 256) -> Tensor:
        """The image (channels, h, w) in its own aspect, its longer side at most `longest` pixels."""
        image = self._read(index)
        height, width = image.shape[1:]
        shrink = min(1.0, longest / max(height, width))
        rows = max(1, round(height * shrink))
        columns = max(1, round(width * shrink))
        return resized(image, (rows, columns))

    def _read(self, index: int) -> Tensor:
        """Read an image (channels, H, W) in [0, 1] at its own size."""
        file = self.files[index]
        try:
            pixels = read_pixels(file)
        except ValueError as error:
            raise ValueError(f"{file} cannot be read any more: {error}") from error
        image = to_unit(pixels, self.deep_range or (0.0, 1.0))
        return _with_channels(image, self.channels)


def resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize an image (C, H, W) in [0, 1] bilinearly, with antialiasing."""
    batch = F.interpolate(image[None], size=size, mode="bilinear", antialias=True)
    return batch[0].clamp(0, 1)  # rounding leaves [0, 1] by 1e-7


def _check_size(size: object) -> None:
    """Refuse what is no side in pixels."""
    if not isinstance(size, int | np.integer) or size < 1:
        raise ValueError(f"expected a size of at least 1 whole pixel, got {size!r}: one number, the side")


def _with_channels(image: Tensor, channels: int) -> Tensor:
    """Repeat a grey image, or make a colour image grey, where the number of channels differs."""
    if len(image) == channels:
        return image
    if channels == 3:
        return image.expand(3, -1, -1)
    weights = image.new_tensor(_GREY_WEIGHTS).view(3, 1, 1)
    weighted = image * weights
    return weighted.sum(0, keepdim=True)
