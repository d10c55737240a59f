"""Files of long runs: checkpoints that survive a stop, and folders that are checked before the first step."""

import os
import shutil
from pathlib import Path

import torch


def save_durably(state: object, file: Path) -> None:
    """Write a file so that a stop or a loss of power in mid-write leaves the old one; so does another writer."""
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    with part.open("wb") as stream:
        torch.save(state, stream)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(part, file)


def check_folder(folder: Path, num_bytes: int = 300_000_000) -> None:
    """Make a folder for results and see that it takes files, before hours of work.

    Raises:
        ValueError: If it cannot be made or written, or too little space is left.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".probe"
        probe.write_bytes(b"0")
        probe.unlink()
    except OSError as error:
        raise ValueError(f"expected a folder that takes files, got {folder} ({error}): choose another --out") from error
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        needed = num_bytes // 1_000_000
        raise ValueError(f"expected {needed} MB of space in {folder}, found {free // 1_000_000}: make room first")
