"""Folders of long runs, checked before the first step."""

import shutil
from pathlib import Path


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
