"""Damaged files of every kind are refused or bring back what was saved; `flips.py` prints the table of 10,000."""

import os
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

from flips import KINDS, try_flips

from detectors.checkpoint import read_state

FLIPS = int(os.environ.get("MSACL_FLIPS", "40"))


def is_large(kind: str) -> bool:
    return "pre-training" in kind


CHOICES = [pytest.param(kind, marks=pytest.mark.slow) if is_large(kind) else kind for kind in KINDS]


@pytest.mark.parametrize("kind", CHOICES)
def test_damaged_files_are_refused_or_change_nothing(kind: str, tmp_path: Path) -> None:
    _, share = KINDS[kind]
    flips = max(2, round(FLIPS * share))
    tally = try_flips(kind, flips, seed=0, folder=tmp_path)
    assert tally.wrong == 0
    assert tally.refused + tally.equal == flips


def test_a_tensor_marked_as_a_folder_is_refused(tmp_path: Path) -> None:
    """torch leaves its memory unset."""
    file = tmp_path / "state.pt"
    torch.save({"a": torch.ones(3)}, file)
    content = bytearray(file.read_bytes())
    name = content.rindex(b"state/data/0")  # in the list of all records; the attributes end 4 bytes before it
    content[name - 8] |= 0x10
    file.write_bytes(content)
    with pytest.raises(ValueError, match="marked as a folder"):
        read_state(file)
