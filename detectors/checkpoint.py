"""Files: read those that may be damaged or hostile without executing anything, write so that none is left broken."""

import contextlib
import os
import pickle
import secrets
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile, is_zipfile

import torch
from torch import Tensor

# What torch, pickle and zipfile raise on wrong bytes.
DAMAGED = (
    *(RuntimeError, EOFError, BadZipFile, zlib.error, OSError, ValueError),
    *(LookupError, TypeError, AttributeError, OverflowError, MemoryError),
)

FOLDER = 0x10  # the bit of a zip record's attributes that makes it one


def read_state(file: str | Path) -> dict[str, Any]:
    """Read a dictionary that `torch.save` wrote, onto the CPU.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, holds anything but tensors and plain containers, or no dictionary.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about pickle protocols: whatever is unknown raises anyway
            _check_sums(file)
            state = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise FileNotFoundError(f"expected a file written by torch.save, found none at {file}") from None
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"expected {file} to hold tensors and plain containers only; it holds other objects or is damaged, and "
            "nothing of it was executed: write it with torch.save(detector.state_dict(), file)"
        ) from error
    except DAMAGED as error:
        raise ValueError(f"expected {file} to be a whole file of torch.save, but it is damaged: {error}") from error
    if not isinstance(state, dict):
        raise ValueError(f"expected a dictionary in {file}, got {type(state).__name__}: save a state_dict")
    return state


def _check_sums(file: str | Path) -> None:
    """Compare the check sums that `torch.save` writes and `torch.load` does not read: wrong bytes would pass."""
    if not is_zipfile(file):
        return  # missing, damaged, or of the old format: torch says what it is
    with ZipFile(file) as archive:
        broken = archive.testzip()
        records = archive.infolist()
    if broken is not None:
        raise BadZipFile(f"wrong check sum of {broken}")
    for record in records:
        # Of a folder torch reads nothing: the tensor would hold what happened to be in memory.
        if record.external_attr & FOLDER:
            raise BadZipFile(f"{record.filename} is marked as a folder")


def state_of_model(state: dict[str, Any], file: str | Path) -> dict[str, Tensor]:
    """The state_dict in a checkpoint: the dictionary itself, or its "state_dict"."""
    tensors = state.get("state_dict", state)
    if not isinstance(tensors, dict) or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in tensors.items()
    ):
        raise ValueError(f'expected a state_dict, or a dictionary with one as "state_dict", in {file}')
    return tensors


def write_safely(content: Any, file: Path) -> None:
    """Write with `torch.save` so that the file is the old one or the new one, whole, whenever the process is stopped.

    Several processes may write one file at once: each has a temporary file of its own beside it, the last to finish
    counts.

    Raises:
        ValueError: If the file cannot be written.
    """
    try:
        with part_beside(file) as part:
            with part.open("xb") as stream:
                torch.save(content, stream)
                stream.flush()
                os.fsync(stream.fileno())  # the content reaches the disk before the name does
            part.replace(file)
        _sync_folder(file.parent)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        raise ValueError(f"expected a file that can be written, got {file}: {error}; choose another place") from error


@contextlib.contextmanager
def part_beside(file: Path) -> Iterator[Path]:
    """Name a temporary file beside `file` that no other process has, make its folder, and remove it in the end.

    Raises:
        OSError: If `file` is a folder, or the folder of both cannot be made.
    """
    part = file.with_name(f"{file.name}.{secrets.token_hex(4)}.part")
    if file.is_dir():
        raise IsADirectoryError("it is a folder")
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield part
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def _sync_folder(folder: Path) -> None:
    """Let the new name survive a loss of power, where the system can open folders."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
