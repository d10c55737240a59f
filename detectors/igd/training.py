"""Training of IGD's models: one step of encoder and decoder, one of the critic, at a rate that falls to 0."""

import reprlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from detectors.igd.options import check_whole
from detectors.igd.scales import Scale

BETAS = (0.0, 0.9)
WEIGHT_DECAY = 1e-6
DECAY_POWER = 0.9
StepCallback = Callable[[int, dict[str, Tensor]], None]


class Training:
    """The optimisers of each scale, and how many steps they have made.

    Args:
        scales: What to train, by name.
        lr: Learning rate at the start.
        total_steps: Batches of images until the learning rate is 0.
        generator: Draws the shares of the interpolations.
    """

    def __init__(
        self, scales: Mapping[str, Scale], lr: float, total_steps: int, generator: torch.Generator | None
    ) -> None:
        self.scales = scales
        self.lr = lr
        self.total_steps = total_steps
        self.generator = generator
        self.steps = 0
        self.optimisers = {name: _optimisers(scale, lr) for name, scale in scales.items()}

    def step(self, images: Tensor) -> dict[str, Tensor]:
        """Train every scale on a batch; returns the loss terms by "<scale>/<term>": means over it, detached."""
        remaining = max(0.0, 1 - self.steps / self.total_steps)
        lr = self.lr * remaining**DECAY_POWER
        terms: dict[str, Tensor] = {}
        for name, scale in self.scales.items():
            batches = scale.training_batches(images)
            count = sum(len(inputs) for inputs in batches)
            for inputs in batches:
                # A term of the whole batch is the mean of its parts, weighted by their inputs; it stays on the device.
                share = len(inputs) / count
                for term, value in self.scale_step(name, inputs, lr).items():
                    key = f"{name}/{term}"
                    so_far = terms.get(key, 0)
                    terms[key] = share * value + so_far
        self.steps += 1
        return terms

    def scale_step(self, name: str, inputs: Tensor, lr: float) -> dict[str, Tensor]:
        """One step of encoder and decoder, then one of the critic, on inputs of the scale's model."""
        scale = self.scales[name]
        batch = scale.training_pass(inputs, self.generator)
        losses = scale.model.losses(batch)
        critic = scale.model.critic_loss(batch)
        for_generator, for_critic = self.optimisers[name]
        _descend(for_generator, losses.total, lr)
        _descend(for_critic, critic, lr)
        terms = losses._asdict() | {"critic": critic}
        return {term: value.detach() for term, value in terms.items()}

    def state_dict(self) -> dict[str, Any]:
        """Steps and moments, by scale: of encoder and decoder, then of the critic."""
        moments = {}
        for name, pair in self.optimisers.items():
            states = [optimiser.state_dict() for optimiser in pair]
            moments[name] = [state["state"] for state in states]
        return {"steps": self.steps, "optimisers": moments}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; another state raises whatever it makes fail, perhaps half-way."""
        steps = state["steps"]
        if type(steps) is not int or steps < 0:
            raise ValueError(f"after step {reprlib.repr(steps)}")
        for name, pair in self.optimisers.items():
            saved = state["optimisers"][name]
            for optimiser, moments in zip(pair, saved, strict=True):
                _load_moments(optimiser, moments)
        self.steps = steps


def _optimisers(scale: Scale, lr: float) -> tuple[torch.optim.Adam, torch.optim.Adam]:
    """Adam of encoder and decoder, and of the critic."""
    trained = scale.generator_parameters()
    generator = torch.optim.Adam(trained, lr, BETAS, weight_decay=WEIGHT_DECAY)
    critic = torch.optim.Adam(scale.critic_parameters(), lr, BETAS)
    return generator, critic


def _descend(optimiser: torch.optim.Optimizer, loss: Tensor, lr: float) -> None:
    """One step of an optimiser at this rate."""
    optimiser.param_groups[0]["lr"] = lr
    optimiser.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    optimiser.step()


def _load_moments(optimiser: torch.optim.Adam, saved: dict[int, dict[str, Tensor]]) -> None:
    """Give Adam its moments back; its options stay those it was made with.

    Raises:
        ValueError: If the moments are not of the parameters' shapes.
    """
    parameters = optimiser.param_groups[0]["params"]
    for index, moments in saved.items():
        shape = parameters[index].shape
        shapes = {name: value.shape for name, value in moments.items()}
        expected = {"step": (), "exp_avg": shape, "exp_avg_sq": shape}
        if shapes != expected:
            raise ValueError(f"moments of shapes {reprlib.repr(shapes)} for parameter {index} of {tuple(shape)}")
    own = optimiser.state_dict()
    optimiser.load_state_dict(own | {"state": saved})


def count_steps(loader: Any, epochs: int, refresh_every: int) -> int:
    """How many batches a loader holds, on which the learning rate depends.

    Raises:
        TypeError: If it does not say.
        ValueError: If there is nothing to train on, or for.
    """
    try:
        steps = len(loader)
    except (TypeError, NotImplementedError):
        raise TypeError(
            f"expected a loader with a length that can be iterated anew, got {type(loader).__name__} without one: pass "
            "list(batches), or a DataLoader over a dataset with a length"
        ) from None
    check_whole(epochs=epochs, refresh_every=refresh_every)
    if min(epochs, refresh_every, steps) < 1:
        got = f"{epochs}, {refresh_every} and {steps}"
        raise ValueError(f"expected at least 1 epoch, refresh_every and batch of images, got {got}")
    return steps


def check_length(steps: int, expected: int) -> None:
    """Refuse a loader that ended early, such as one that was used up: it would train on less, or on nothing.

    Raises:
        ValueError: If an epoch had fewer steps than expected.
    """
    if steps < expected:
        raise ValueError(
            f"expected {expected} batches in an epoch, as the loader's length says, got {steps}: pass list(batches), "
            "or a DataLoader over a dataset of the right length"
        )
