"""Find the images of a folder and its sub-folders, and name the files that cannot be used."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from detectors.folders.pixels import SUFFIXES, is_dicom, read_pixels
from detectors.folders.scaling import HeldValues

_NAMED = 3  # files that a message names before "..."


def examine_folder(folder: Path) -> tuple[list[Path], dict[Path, str], HeldValues]:
    """Read every file of a folder and its sub-folders once.

    Hidden files and folders, whose names begin with a dot, are none.

    Returns:
        The images in the order of their names, the other files with the reason why they are none, and the values of
        the images deeper than 8 bits.

    Raises:
        FileNotFoundError: If there is no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"expected a folder of images, found none at {folder}")
    images: list[Path] = []
    skipped: dict[Path, str] = {}
    held = HeldValues()
    for file in _all_files(folder):
        reason = _examine(file, held)
        if reason is None:
            images.append(file)
        else:
            skipped[file] = reason
    if not images:
        raise FileNotFoundError(_no_images(folder, skipped))
    return images, skipped, held


def describe_skipped(skipped: Mapping[Path, str]) -> str:
    """Count the files by the reason why they were left out, and name the first of each.

    Example:
        >>> describe_skipped({Path("a.xyz"): "unknown suffix .xyz", Path("b.xyz"): "unknown suffix .xyz"})
        '2 unknown suffix .xyz (a.xyz, b.xyz)'
    """
    names = defaultdict(list)
    for file, reason in skipped.items():
        names[reason].append(file.name)
    parts = []
    for reason, files in names.items():
        first = ", ".join(files[:_NAMED])
        more = ", ..." if len(files) > _NAMED else ""
        parts.append(f"{len(files)} {reason} ({first}{more})")
    return "; ".join(parts)


def _all_files(folder: Path) -> list[Path]:
    files = []
    for path in folder.rglob("*"):
        below = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in below.parts)
        if path.is_file() and not hidden:
            files.append(path)
    return sorted(files, key=lambda path: path.relative_to(folder).as_posix())


def _examine(file: Path, held: HeldValues) -> str | None:
    """Return why a file is no image, or None if it is one; deep images leave their values in `held`."""
    try:
        if file.suffix.lower() not in SUFFIXES and not is_dicom(file):
            return f"unknown suffix {file.suffix}" if file.suffix else "without suffix"
        pixels = read_pixels(file, draft=True)
    except OSError as error:
        return f"unreadable: {error.strerror}"
    except ValueError as error:
        return str(error)
    if pixels.is_floating_point():
        held.add(pixels)
    return None


def _no_images(folder: Path, skipped: Mapping[Path, str]) -> str:
    found = describe_skipped(skipped) or "no file at all"
    known = ", ".join(sorted(SUFFIXES))
    return f"expected images ({known} or DICOM) in {folder} or its sub-folders, found {found}"
