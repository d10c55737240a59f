"""The file of a run of IGD's training: written after each epoch, refused whole where it is of another run."""

import copy
import os
import reprlib
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch

from detectors.checkpoint import read_state
from detectors.igd.training import Training

LONGEST_REASON = 300  # characters; the whole error is the cause of the one raised


def prepare_file(file: Path) -> None:
    """Make the folder of a checkpoint and try to write there: better refused before the first epoch than after it.

    Raises:
        ValueError: If the file cannot be written.
    """
    part = part_of(file)
    try:
        if file.is_dir():
            raise IsADirectoryError("it is a folder")
        file.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
        part.unlink(missing_ok=True)
    except OSError as error:
        raise ValueError(
            f"expected a checkpoint file that can be written, got {file}: {error}; choose another place"
        ) from error


def save_run(training: Training, file: Path) -> None:
    """Write a run's state so that a stop in mid-write loses nothing."""
    part = part_of(file)
    torch.save(training.state_dict(), part)
    os.replace(part, file)


def load_run(training: Training, file: str | Path | None) -> None:
    """Go on from a checkpoint file, without executing anything from it; if it is refused, nothing has changed.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If none is given, or it is damaged, holds other objects or is of another run.
    """
    if file is None:
        raise ValueError("expected the checkpoint to resume from, got None: pass checkpoint=FILE with resume=True")
    state, before = read_state(file), copy.deepcopy(training.state_dict())
    missing = [name for name in before if name not in state]
    if missing:
        raise ValueError(f"expected a checkpoint of fit in {file}, which lacks {missing}: a state_dict goes to load")
    check_settings(state["settings"], before["settings"], file)
    try:
        training.load_state_dict(state)
    except Exception as error:  # whatever a hostile file makes fail
        training.load_state_dict(before)
        reason = shorten(f"{type(error).__name__}: {error}", LONGEST_REASON)
        raise ValueError(
            f"expected a checkpoint of this run in {file}, got one that does not fit: {reason}; make the detector as "
            "for the run that wrote it, or start anew without resume"
        ) from error


def check_settings(saved: Any, own: dict[str, Any], file: str | Path) -> None:
    """Refuse a checkpoint of a run with other settings, naming those that differ.

    Raises:
        ValueError: If one differs.
    """
    if not isinstance(saved, dict):
        raise ValueError(f"expected a checkpoint of this run in {file}, got {type(saved).__name__} as its settings")
    differing = [n for n, mine in own.items() if (type(saved.get(n)), saved.get(n)) != (type(mine), mine)]
    if differing:
        mine, theirs = (", ".join(f"{n}={reprlib.repr(run.get(n))}" for n in differing) for run in (own, saved))
        raise ValueError(
            f"expected a checkpoint of this run in {file}, with {mine}, got one with {theirs}: resume with {theirs}, "
            "or start anew without resume"
        )


def part_of(file: Path) -> Path:
    """Where a checkpoint is written before it takes its name."""
    return file.with_name(file.name + ".part")
