"""The words of the tables: what can be wrong with input, and what an entry point does about it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

CASES = {
    "numpy": "a NumPy array",
    "uint8": "integers of 8 bits",
    "uint16": "integers of 16 bits",
    "0-255 floats": "floats that were not divided by 255",
    "NaN": "one NaN",
    "Inf": "one infinite value",
    "HWC": "channels last",
    "no batch": "the batch dimension is missing",
    "5-D": "one dimension too many",
    "empty batch": "no row",
    "B = 1": "one row",
    "meta device": "tensors on another device (meta)",
    "mask shape": "a mask of another shape",
    "before fit": "used before it was fitted",
    "one image": "one training image in all",
    "constant": "every value the same",
    "other size": "images of another size than before",
    "misspelt option": "an option that does not exist",
    "out of range": "options out of range (each that there is)",
    "missing file": "no such file",
    "truncated file": "the first half of a file",
    "garbage file": "random bytes as a file",
    "malicious file": "a file that would run a command",
    "foreign file": "a whole file of something else",
    "short loader": "a loader that ends early",
    "raising loader": "a loader that raises in the middle",
    "changing loader": "a loader whose batches change size",
}
FILES = ("missing file", "truncated file", "garbage file", "malicious file", "foreign file")
LOADERS = ("short loader", "raising loader", "changing loader")
FITTING = ("before fit", "one image")

Act = Callable[[Any, Path], Any]


@dataclass(frozen=True)
class Refused:
    """An error of this kind, whose message holds this piece, and nothing has changed."""

    error: type[Exception]
    message: str
    act: Act | None = None  # None: the entry gets its images, changed as the case says


@dataclass(frozen=True)
class Works:
    """It is no mistake; in words and by a check, what comes out."""

    result: str
    check: Callable[[Any], bool]
    act: Act | None = None


@dataclass(frozen=True)
class NoMeaning:
    """The case cannot happen here."""

    why: str


Cell = Refused | Works | NoMeaning


@dataclass(frozen=True)
class Entry:
    """A public entry point.

    Attributes:
        name: As users write it.
        fresh: Makes what is called.
        use: Calls it rightly; the finite tensor that it returns must be the same before and after a refusal.
        give: Calls it with these images or embeddings.
        right: Images or embeddings that are right.
        cells: What it does, by case; all of them.
        same: Whether `use` returns the same tensor each time; a training goes on from where it was.
    """

    name: str
    fresh: Callable[[], Any]
    use: Callable[[Any], Tensor]
    cells: dict[str, Cell]
    give: Callable[[Any, Any], Any] | None = None
    right: Callable[[], Tensor] = field(default=lambda: images())
    same: bool = True


def images(count: int = 4, side: int = 32, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def spoilt(right: Tensor, case: str) -> Any:
    """The right images or embeddings, with what the case says."""
    changed = right.clone()
    if case in ("NaN", "Inf"):
        changed.view(-1)[7] = float(case)
        return changed
    return {
        "numpy": lambda: right.numpy(),
        "uint8": lambda: (right * 255).byte(),
        "uint16": lambda: (right * 65535).int().to(torch.uint16),
        "0-255 floats": lambda: right * 255,
        "HWC": lambda: right.movedim(-3, -1).contiguous(),
        "no batch": lambda: right[0],
        "5-D": lambda: right.reshape(1, *(1,) * (4 - right.ndim), *right.shape),
        "empty batch": lambda: right[:0],
        "B = 1": lambda: right[:1],
        "meta device": lambda: right.to("meta"),
        "constant": lambda: torch.full_like(right, 0.5),
        "other size": lambda: images(4, 48),
    }[case]()


def no_meaning(why: str, *cases: str) -> dict[str, Cell]:
    return {case: NoMeaning(why) for case in cases}


def refused(error: type[Exception], messages: dict[str, str]) -> dict[str, Cell]:
    return {case: Refused(error, message) for case, message in messages.items()}


def is_finite(result: Any) -> bool:
    """Whether all tensors in it are finite."""
    parts = [result] if isinstance(result, Tensor) else result
    return all(bool(part.isfinite().all()) for part in parts if isinstance(part, Tensor) and part.is_floating_point())


def each_refused(call: Callable[..., Any], *options: dict[str, Any]) -> Act:
    """An act that tries all these options: each must be refused by a message of ours; the last one's error goes on."""

    def act(thing: Any, folder: Path) -> Any:
        for one in options[:-1]:
            with pytest.raises((TypeError, ValueError), match="expected"):
                call(**one)
        return call(**options[-1])

    return act


def misspelt(call: Callable[..., Any]) -> Refused:
    return Refused(TypeError, "unexpected keyword argument", lambda thing, folder: call(optoin=1))
