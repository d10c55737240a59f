"""The schedule of IGD's training: Gaussian refresh, one critic step per step, decay, checkpoints."""

import os
import reprlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from detectors.checkpoint import read_state
from detectors.igd.patches import patches_by_step
from detectors.inputs import with_progress

if TYPE_CHECKING:
    from detectors.igd.igd import IGD

BETAS = (0.0, 0.9)
WEIGHT_DECAY = 1e-6
DECAY_POWER = 0.9
StepCallback = Callable[[int, dict[str, Tensor]], None]


class Training:
    """A fit that can be stopped and resumed after any epoch.

    Args:
        detector: The detector to train.
        loader: Batches of normal images; has a length and can be iterated anew.
        epochs: Passes over the loader; the learning rate reaches 0 at their end.
        lr: Learning rate at the start.
        refresh_every: Epochs between two refreshes of centre and sigma.
        generator: Draws the shares of the interpolations.
    """

    def __init__(
        self,
        detector: "IGD",
        loader: Any,
        epochs: int,
        lr: float,
        refresh_every: int,
        generator: torch.Generator | None,
    ) -> None:
        self.steps_per_epoch = length_of(loader)
        if epochs < 1 or refresh_every < 1 or self.steps_per_epoch == 0:
            got = f"{epochs}, {refresh_every} and {self.steps_per_epoch}"
            raise ValueError(f"expected at least 1 epoch, refresh_every and batch of images, got {got}")
        self.detector, self.loader, self.epochs = detector, loader, epochs
        self.lr, self.refresh_every, self.generator = lr, refresh_every, generator
        self.optimisers = {
            scale: (
                torch.optim.Adam(detector.generator_parameters(scale), lr, BETAS, weight_decay=WEIGHT_DECAY),
                torch.optim.Adam(detector.critic_parameters(scale), lr, BETAS),
            )
            for scale in detector.scales
        }
        self.epoch = 0
        self.steps = 0

    def run_epoch(self, progress: bool, on_step: StepCallback | None) -> None:
        """One pass over the loader, after the refresh where one is due."""
        if self.epoch % self.refresh_every == 0:
            self.detector.refresh(self.loader)
        self.detector.train()
        bar = with_progress(self.loader, f"epoch {self.epoch + 1}/{self.epochs}", progress)
        for images in self.detector.batches(bar, self.detector.input_shape):
            terms = self.step(images)
            if on_step is not None:
                on_step(self.epoch, terms)
        self.epoch += 1

    def step(self, images: Tensor) -> dict[str, Tensor]:
        """Train every model on a batch; returns the loss terms by "<scale>/<term>": means over it, detached."""
        decay = max(0.0, 1 - self.steps / (self.epochs * self.steps_per_epoch)) ** DECAY_POWER
        terms: dict[str, Tensor] = {}
        for scale in self.detector.scales:
            parts = [images] if scale == "global" else patches_by_step(images)
            count = sum(map(len, parts))
            for part in parts:
                for name, value in self.model_step(scale, part, self.lr * decay).items():
                    term = f"{scale}/{name}"
                    terms[term] = len(part) / count * value + terms.get(term, 0)  # stays on the device
        self.steps += 1
        return terms

    def model_step(self, scale: str, images: Tensor, lr: float) -> dict[str, Tensor]:
        """One step of encoder and decoder, then one of the critic, on images of the model's own size."""
        model = self.detector.model(scale)
        batch = model.training_pass(images, self.detector.features(images, scale), self.generator)
        losses, critic = model.losses(batch), model.critic_loss(batch)
        for optimiser, loss in zip(self.optimisers[scale], (losses.total, critic), strict=True):
            optimiser.param_groups[0]["lr"] = lr
            optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimiser.step()
        return {name: value.detach() for name, value in (losses._asdict() | {"critic": critic}).items()}

    def settings(self) -> dict[str, Any]:
        """What the learning rate depends on: a resumed run has to share it."""
        return {"epochs": self.epochs, "steps_per_epoch": self.steps_per_epoch}

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on as if nothing had happened."""
        return {
            "settings": self.settings(),
            "detector": self.detector.state_dict(),
            "optimisers": {s: [o.state_dict() for o in pair] for s, pair in self.optimisers.items()},
            "epoch": self.epoch,
            "steps": self.steps,
            "random": [generator.get_state() for generator in self.generators()],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError: If the checkpoint is of a run with other settings.
        """
        check_settings(state["settings"], self.settings())
        self.detector.load_state_dict(state["detector"])
        for scale, pair in self.optimisers.items():
            for optimiser, saved in zip(pair, state["optimisers"][scale], strict=True):
                optimiser.load_state_dict(saved)
        self.epoch, self.steps = state["epoch"], state["steps"]
        for generator, saved in zip(self.generators(), state["random"], strict=True):
            generator.set_state(saved.cpu())

    def generators(self) -> list[torch.Generator]:
        """The sources of randomness of a run: torch's own, the loader's where it has one, the interpolations'."""
        device = self.detector.device
        cuda = [torch.cuda.default_generators[device.index or 0]] if device.type == "cuda" else []
        own = [getattr(self.loader, "generator", None), self.generator]
        return [torch.default_generator, *cuda, *(g for g in own if isinstance(g, torch.Generator))]

    def load(self, file: str | Path | None) -> None:
        """Go on from a checkpoint file, without executing anything from it.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If none is given, or it is damaged, holds other objects or is of another run.
        """
        if file is None:
            raise ValueError("expected the checkpoint to resume from, got None: pass checkpoint=FILE with resume=True")
        state = read_state(file)
        missing = [name for name in self.state_dict() if name not in state]
        if missing:
            raise ValueError(
                f"expected a checkpoint of fit in {file}, which lacks {missing}: a state_dict goes to load"
            )
        self.load_state_dict(state)

    def save(self, file: Path) -> None:
        """Write the state so that a stop in mid-write loses nothing."""
        part = part_of(file)
        torch.save(self.state_dict(), part)
        os.replace(part, file)


def check_settings(saved: Any, own: dict[str, Any]) -> None:
    """Refuse a checkpoint of a run with other settings, naming those that differ.

    Raises:
        ValueError: If one differs.
    """
    if not isinstance(saved, dict):
        raise ValueError(f"expected a checkpoint of this run, got settings of type {type(saved).__name__}")
    differing = [n for n, mine in own.items() if (type(saved.get(n)), saved.get(n)) != (type(mine), mine)]
    if differing:
        mine, theirs = (", ".join(f"{n}={reprlib.repr(run.get(n))}" for n in differing) for run in (own, saved))
        raise ValueError(
            f"expected a checkpoint of this run with {mine}, got one with {theirs}: resume with {theirs}, or "
            "start anew without resume"
        )


def length_of(loader: Any) -> int:
    """How many batches a loader holds, on which the learning rate depends.

    Raises:
        TypeError: If it does not say.
    """
    try:
        return len(loader)
    except (TypeError, NotImplementedError):
        raise TypeError(
            f"expected a loader with a length that can be iterated anew, got {type(loader).__name__} without one: pass "
            "list(batches), or a DataLoader over a dataset with a length"
        ) from None


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


def part_of(file: Path) -> Path:
    """Where a checkpoint is written before it takes its name."""
    return file.with_name(file.name + ".part")
