"""The schedule of IGD's training: Gaussian refresh, one critic step per step, decay; its whole state."""

import reprlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

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
        """What a run that goes on has to share with the one that wrote its checkpoint."""
        scales = self.detector.scales
        return {
            "epochs": self.epochs,
            "steps_per_epoch": self.steps_per_epoch,
            "scales": "both" if len(scales) == 2 else scales[0],
            "freeze_backbone": "shared" in self.detector.backbones,
            "generators": " and ".join(self.generators()),
        }

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on as if nothing had happened."""
        return {
            "settings": self.settings(),
            "detector": self.detector.state_dict(),
            "optimisers": {s: [o.state_dict()["state"] for o in pair] for s, pair in self.optimisers.items()},
            "epoch": self.epoch,
            "steps": self.steps,
            "random": {name: generator.get_state() for name, generator in self.generators().items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; another state raises whatever it makes fail, perhaps half-way."""
        epoch, steps = state["epoch"], state["steps"]
        if type(epoch) is not int or type(steps) is not int or not 0 <= epoch <= self.epochs or steps < 0:
            raise ValueError(f"after epoch {reprlib.repr(epoch)} and step {reprlib.repr(steps)}")
        self.detector.load_state_dict(state["detector"])
        for scale, pair in self.optimisers.items():
            for optimiser, saved in zip(pair, state["optimisers"][scale], strict=True):
                load_moments(optimiser, saved)
        for name, generator in self.generators().items():
            generator.set_state(state["random"][name])
        self.epoch, self.steps = epoch, steps

    def generators(self) -> dict[str, torch.Generator]:
        """The sources of randomness of a run: torch's own, the loader's where it has one, the interpolations'."""
        device = self.detector.device
        cuda = {"cuda": torch.cuda.default_generators[device.index or 0]} if device.type == "cuda" else {}
        own = {"loader": getattr(self.loader, "generator", None), "generator": self.generator}
        given = {name: generator for name, generator in own.items() if isinstance(generator, torch.Generator)}
        return {"torch": torch.default_generator, **cuda, **given}


def load_moments(optimiser: torch.optim.Adam, saved: dict[int, dict[str, Tensor]]) -> None:
    """Give Adam its moments back; its options stay those it was made with.

    Raises:
        ValueError: If the moments are not of the parameters' shapes.
    """
    for index, moments in saved.items():
        shape = optimiser.param_groups[0]["params"][index].shape
        shapes = {name: value.shape for name, value in moments.items()}
        if shapes != {"step": (), "exp_avg": shape, "exp_avg_sq": shape}:
            raise ValueError(f"moments of shapes {reprlib.repr(shapes)} for parameter {index} of {tuple(shape)}")
    optimiser.load_state_dict(optimiser.state_dict() | {"state": saved})


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
