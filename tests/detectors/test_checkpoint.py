"""Writing so that a file is the old one or the new one, whole: the order of steps, and disks that are full."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent / "igd"))

from igd_cases import small_detector, smooth_images

from detectors.checkpoint import write_safely


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="names of open files are asked of Linux")
def test_content_is_synced_then_renamed_then_the_folder_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    sync, replace = os.fsync, Path.replace

    def fsync(handle: int) -> None:
        target = Path(os.readlink(f"/proc/self/fd/{handle}"))
        is_written = target.stat().st_size > 0
        steps.append("sync the folder" if target == tmp_path else f"sync {target.suffix}, written: {is_written}")
        sync(handle)

    def rename(self: Path, target: Path) -> Path:
        assert self.parent == target.parent  # a rename within one folder is one step for the system
        steps.append(f"rename {self.suffix}")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", rename)
    write_safely({"a": torch.ones(1)}, tmp_path / "state.pt")
    assert steps == ["sync .part, written: True", "rename .part", "sync the folder"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("only root may mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_fills_up_leaves_the_old_file(small_disk: Path) -> None:
    file = small_disk / "state.pt"
    write_safely({"a": torch.ones(1)}, file)
    with pytest.raises(ValueError, match=r"expected a file that can be written, got .*; choose another place"):
        write_safely({"a": torch.ones(1_000_000)}, file)
    assert torch.load(file)["a"].item() == 1
    assert list(small_disk.iterdir()) == [file]


def test_igd_is_refused_before_its_first_step_where_the_disk_is_too_small(small_disk: Path) -> None:
    (small_disk / "others").write_bytes(bytes(900_000))
    with pytest.raises(ValueError, match=r"can be written \(.* MB\)"):
        small_detector().fit([smooth_images(2)], 1, checkpoint=small_disk / "igd.pt", on_step=pytest.fail)
    assert [file.name for file in small_disk.iterdir()] == ["others"]
