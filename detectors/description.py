"""Describe a detector beside its tensors: its options, which are part of its state, and its metadata."""

import json
from typing import Any

import torch
from torch import Tensor

Options = dict[str, Any]  # values as JSON has them: bool, int, float, str, None, list
Metadata = dict[str, Any]  # str, bool, int, float, or a list of them


def encode_options(options: Options) -> Tensor:
    """Write options as bytes of JSON (N,), uint8: a tensor like the rest of a state."""
    text = json.dumps(options, sort_keys=True)
    values = list(text.encode())
    return torch.tensor(values, dtype=torch.uint8)


def decode_options(encoded: Tensor) -> Options:
    """Read what `encode_options` wrote.

    Raises:
        ValueError: If it holds something else.
    """
    try:
        options = json.loads(bytes(encoded.tolist()))
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"expected options as bytes of JSON in the state, got {error}") from error
    if not isinstance(options, dict):
        raise ValueError(f"expected options by name in the state, got {type(options).__name__}")
    return options


def check_options(saved: Options, own: Options, kind: str) -> None:
    """Refuse a state that was saved with other options: its scores would change and its thresholds would not.

    Raises:
        ValueError: If one differs; the message names it.
    """
    encoded = encode_options(own)
    own = decode_options(encoded)  # a tuple is a list there
    mine = ""
    theirs = ""
    for name in sorted({*own, *saved}):
        here = own.get(name)
        there = saved.get(name)
        if not _same(here, there):
            mine += f", {name}={here!r}"
            theirs += f", {name}={str(there)[:80]}"
    if mine:
        mine = mine.removeprefix(", ")
        theirs = theirs.removeprefix(", ")
        raise ValueError(
            f"expected a state of a {kind} with {mine} as here, got one saved with {theirs}: make the {kind} with the "
            "options of the state, or use detectors.load(file), which reads them from the file of detector.save"
        )


def check_metadata(metadata: Metadata) -> None:
    """Refuse notes that a safe file cannot hold.

    Raises:
        TypeError: If a name is no text or a value is no text, number or list of them.
    """
    for name, value in metadata.items():
        values = value if isinstance(value, list) else [value]
        plain = all(isinstance(one, (str, bool, int, float)) for one in values)
        if not isinstance(name, str) or not plain:
            got = f"{name!r}: {value!r}"[:80]
            raise TypeError(f"expected metadata of text, numbers and lists of them by name, got {got}")


def _same(one: Any, other: Any) -> bool:
    # 1 == 1.0 == True in Python, and 1 is fine where 1.0 was saved; True is not.
    if isinstance(one, bool) != isinstance(other, bool):
        return False
    return bool(one == other)
