"""Read the stored values of one image file: the formats of Pillow, 16-bit colour PNG, and DICOM."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from PIL.ImageFile import ImageFile
from torch import Tensor

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp"})
DICOM_SUFFIXES = frozenset({".dcm", ".dicom"})

_DEEP_MODES = ("I", "F")  # Pillow's modes of more than 8 bits begin with these letters
_GREY_MODES = ("1", "L", "LA", "La")
_BITS_PER_SAMPLE = 258  # the tag of TIFF


def read_pixels(file: Path, *, draft: bool = False) -> Tensor:
    """Read an image as it is stored.

    Args:
        file: The image; what is no DICOM is left to Pillow.
        draft: Read a JPEG at an eighth of its size, which finds a damaged file sooner.

    Returns:
        Values (C, H, W), C = 1 or 3: uint8 where the file holds 8 bits a channel, else float32, not scaled.

    Raises:
        ValueError: If the file cannot be used; the message is the reason, without the file's name.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd tags; what cannot be read raises
            pixels = _read_dicom(file) if is_dicom(file) else _read_picture(file, draft)
    except ValueError as error:
        raise ValueError(_one_line(error)) from error
    except Exception as error:  # whatever a damaged file makes fail
        raise ValueError(f"damaged or no image ({_one_line(error)})") from error
    if pixels.is_floating_point() and not bool(pixels.isfinite().all()):
        raise ValueError("holds values that are not finite")
    return pixels


def is_dicom(file: Path) -> bool:
    """Whether a file is DICOM, by its suffix or its first bytes: scanners often write no suffix."""
    if file.suffix.lower() in DICOM_SUFFIXES:
        return True
    if file.suffix.lower() in SUFFIXES:
        return False
    with file.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def _read_picture(file: Path, draft: bool) -> Tensor:
    with Image.open(file) as image:
        _refuse_frames(image)
        if _is_deep_colour(image):
            return _read_deep_colour(file, image)
        if draft:
            image.draft(None, (1, 1))
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith(_DEEP_MODES):
            return _channels_first(np.array(upright, dtype=np.float32))
        grey = upright.mode in _GREY_MODES
        return _channels_first(np.array(upright.convert("L" if grey else "RGB")))


def _refuse_frames(image: ImageFile) -> None:
    # A phone's MPO holds one photograph and its previews.
    frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    if frames > 1:
        raise ValueError(f"holds {frames} images: write one file for each")


def _is_deep_colour(image: ImageFile) -> bool:
    """Whether Pillow would cut the channels off at 8 bits without a word."""
    if image.mode.startswith(_DEEP_MODES):
        return False
    if image.format == "TIFF":
        bits: tuple[int, ...] = image.tag_v2.get(_BITS_PER_SAMPLE, (8,))  # type: ignore[attr-defined]
        return max(bits) > 8
    raw_mode = str(image.tile[0][3]) if image.tile else ""
    return image.format == "PNG" and "16" in raw_mode


def _read_deep_colour(file: Path, image: ImageFile) -> Tensor:
    if image.format != "PNG":
        raise ValueError("holds colours of more than 8 bits, which are read from PNG only")
    from torchvision.io import ImageReadMode, decode_image  # a second: not at `import detectors`

    values: Tensor = decode_image(str(file), ImageReadMode.UNCHANGED).float()
    return values[:3] if len(values) > 2 else values[:1]  # without alpha


def _read_dicom(file: Path) -> Tensor:
    try:
        from pydicom import dcmread
        from pydicom.pixels.processing import apply_color_lut, apply_rescale
        from pydicom.pixels.utils import pixel_array
    except ImportError as error:
        raise ValueError("DICOM needs pydicom: pip install 'msacl[dicom]'") from error

    dataset = dcmread(file)
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames > 1:
        raise ValueError(f"holds {frames} images: write one file for each")
    stored = pixel_array(dataset)  # YCbCr comes as RGB
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        return _channels_first(apply_color_lut(stored, dataset))
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        stored = _inverted(stored, dataset)
    return _channels_first(apply_rescale(stored, dataset))


def _inverted(stored: Any, dataset: Any) -> Any:
    """White where MONOCHROME1 means white by its lowest value."""
    signed = dataset.PixelRepresentation == 1
    lowest = -(2 ** (dataset.BitsStored - 1)) if signed else 0
    highest = lowest + 2**dataset.BitsStored - 1
    return lowest + highest - stored.astype(np.int64)


def _channels_first(values: Any) -> Tensor:
    """Values (H, W) or (H, W, 3) as a tensor (C, H, W): uint8 stays, all others become float32."""
    if values.dtype != np.uint8:
        values = values.astype(np.float32)
    pixels = torch.from_numpy(np.array(values))
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
