"""The file of a run of IGD's training: written after each epoch, refused whole where it is of another run."""

import copy
import os
import reprlib
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from torch import nn

from detectors.checkpoint import part_beside, read_state, write_safely
from detectors.igd.training import Training

LONGEST_REASON = 300  # characters; the whole error is the cause of the one raised


class Run:
    """A training that can be stopped after any epoch and go on as if nothing had happened.

    Args:
        detector: What is trained.
        training: Its optimisers.
        generators: The sources of randomness, by name.
        settings: What a run that goes on has to share with the one that wrote the file.
        epochs: How many it shall have in the end.
        file: Where to write after each epoch, or None.
    """

    def __init__(
        self,
        detector: nn.Module,
        training: Training,
        generators: dict[str, torch.Generator],
        settings: dict[str, Any],
        epochs: int,
        file: str | Path | None,
    ) -> None:
        self.detector = detector
        self.training = training
        self.generators = generators
        self.settings = settings | {"generators": " and ".join(generators)}
        self.file = None if file is None else Path(file)
        self.epochs = epochs
        self.epoch = 0

    def start(self, resume: bool) -> None:
        """Go on from the file where that is wanted, and see that it can be written.

        Raises:
            FileNotFoundError: If there is no file to resume from.
            ValueError: If none is given, or it is damaged, holds other objects, is of another run or cannot be written.
        """
        if resume and self.file is None:
            raise ValueError("expected the checkpoint to resume from, got None: pass checkpoint=FILE with resume=True")
        if self.file is not None:
            if resume:
                self.load(self.file)
            _prepare_file(self.file, self._final_size())

    def end_epoch(self) -> None:
        """Count an epoch and write the file where there is one."""
        self.epoch += 1
        if self.file is not None:
            self.save(self.file)

    def save(self, file: Path) -> None:
        """Write the run's state so that a stop in mid-write loses nothing."""
        write_safely(self.state_dict(), file)

    def load(self, file: Path) -> None:
        """Go on from a file, without executing anything from it; if it is refused, nothing has changed.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is damaged, holds other objects or is of another run.
        """
        state = read_state(file)
        before = copy.deepcopy(self.state_dict())
        missing = [name for name in before if name not in state]
        if missing:
            raise ValueError(
                f"expected a checkpoint of fit in {file}, which lacks {missing}: a state_dict goes to load"
            )
        _check_settings(state["settings"], before["settings"], file)
        try:
            self.load_state_dict(state)
        except Exception as error:  # whatever a hostile file makes fail
            self.load_state_dict(before)
            reason = shorten(f"{type(error).__name__}: {error}", LONGEST_REASON)
            raise ValueError(
                f"expected a checkpoint of this run in {file}, got one that does not fit: {reason}; make the detector "
                "as for the run that wrote it, or start anew without resume"
            ) from error

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on as if nothing had happened."""
        return {
            "settings": self.settings,
            "detector": self.detector.state_dict(),
            **self.training.state_dict(),
            "epoch": self.epoch,
            "random": {name: generator.get_state() for name, generator in self.generators.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; another state raises whatever it makes fail, perhaps half-way."""
        epoch = state["epoch"]
        if type(epoch) is not int or epoch < 0:
            raise ValueError(f"after epoch {reprlib.repr(epoch)}")
        if epoch > self.epochs:
            raise ValueError(f"it has run {epoch} epochs already, so epochs={self.epochs} is too few")
        self.detector.load_state_dict(state["detector"])
        self.training.load_state_dict(state)
        for name, generator in self.generators.items():
            generator.set_state(state["random"][name])
        self.epoch = epoch

    def _final_size(self) -> int:
        """About how many bytes the file will have: the detector, and Adam's two moments of what is trained."""
        tensors = self.detector.state_dict().values()
        trained = [p for p in self.detector.parameters() if p.requires_grad]
        state: int = sum(tensor.nbytes for tensor in tensors)
        moments: int = 2 * sum(parameter.nbytes for parameter in trained)
        return state + moments


def random_sources(
    loader: Any,
    generator: torch.Generator | None,
    device: torch.device,
) -> dict[str, torch.Generator]:
    """The sources of randomness of a run: torch's own, the loader's where it has one, the interpolations'."""
    sources = {"torch": torch.default_generator}
    if device.type == "cuda":
        sources["cuda"] = torch.cuda.default_generators[device.index or 0]
    given = {"loader": getattr(loader, "generator", None), "generator": generator}
    for name, source in given.items():
        if isinstance(source, torch.Generator):
            sources[name] = source
    return sources


def _prepare_file(file: Path, size: int) -> None:
    """Make the folder of a checkpoint and take up its room for a moment: better refused before the first epoch.

    Raises:
        ValueError: If the file cannot be written, or has no room.
    """
    # Where the system can: real blocks, so that quotas and small file systems count.
    reserve = getattr(os, "posix_fallocate", lambda handle, offset, length: None)
    try:
        with part_beside(file) as part, part.open("xb") as stream:
            reserve(stream.fileno(), 0, size)
    except OSError as error:
        raise ValueError(
            f"expected a checkpoint file that can be written ({size / 1e6:.1f} MB), got {file}: {error}; choose "
            "another place"
        ) from error


def _check_settings(saved: Any, own: dict[str, Any], file: Path) -> None:
    """Refuse a checkpoint of a run with other settings, naming those that differ.

    Raises:
        ValueError: If one differs.
    """
    if not isinstance(saved, dict):
        raise ValueError(f"expected a checkpoint of this run in {file}, got {type(saved).__name__} as its settings")
    differing = []
    for name, mine in own.items():
        theirs = saved.get(name)
        # Types first: a hostile tensor has no truth value, and True equals 1.
        if type(theirs) is not type(mine) or theirs != mine:
            differing.append(name)
    if differing:
        here = _listed(own, differing)
        there = _listed(saved, differing)
        raise ValueError(
            f"expected a checkpoint of this run in {file}, with {here}, got one with {there}: resume with {there}, "
            "or start anew without resume"
        )


def _listed(settings: dict[str, Any], names: list[str]) -> str:
    """Settings as keyword arguments."""
    parts = []
    for name in names:
        value = reprlib.repr(settings.get(name))
        parts.append(f"{name}={value}")
    return ", ".join(parts)
