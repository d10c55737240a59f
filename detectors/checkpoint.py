"""Reading files that may be damaged or hostile: tensors and plain containers only, no code is executed."""

import pickle
import warnings
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import torch
from torch import Tensor


def read_state(file: str | Path) -> dict[str, Any]:
    """Read a dictionary that `torch.save` wrote, onto the CPU.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, holds anything but tensors and plain containers, or no dictionary.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about pickle protocols: whatever is unknown raises anyway
            state = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise FileNotFoundError(f"expected a file written by torch.save, found none at {file}") from None
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"expected {file} to hold tensors and plain containers only; it holds other objects or is damaged, and "
            "nothing of it was executed: write it with torch.save(detector.state_dict(), file)"
        ) from error
    except (RuntimeError, EOFError, BadZipFile, ValueError, KeyError, OSError) as error:
        raise ValueError(f"expected {file} to be a whole file of torch.save, but it is damaged: {error}") from error
    if not isinstance(state, dict):
        raise ValueError(f"expected a dictionary in {file}, got {type(state).__name__}: save a state_dict")
    return state


def state_of_model(state: dict[str, Any], file: str | Path) -> dict[str, Tensor]:
    """The state_dict in a checkpoint: the dictionary itself, or its "state_dict"."""
    tensors = state.get("state_dict", state)
    if not isinstance(tensors, dict) or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in tensors.items()
    ):
        raise ValueError(f'expected a state_dict, or a dictionary with one as "state_dict", in {file}')
    return tensors
