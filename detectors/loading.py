"""Rebuild a detector from its own file.

The file of `detector.save` holds {"format", "kind", "backbone", "metadata", "state_dict"}; the options are the state's.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from detectors.base import FILE_FORMAT, AnomalyDetector
from detectors.checkpoint import read_state, state_of_model
from detectors.description import check_metadata, decode_options

FIELDS = {"kind": str, "backbone": (str, type(None)), "metadata": dict, "state_dict": dict}


def load(file: str | Path, backbone: nn.Module | None = None) -> AnomalyDetector:
    """Rebuild a detector from the file that `detector.save` wrote, without executing anything from it.

    Args:
        file: Its path.
        backbone: The network, where the detector was made with a module rather than a name: any weights will do, the
            file's replace them.

    Returns:
        The detector as it was saved, thresholds and metadata included, on the CPU and in evaluation mode. A class of
        your own is found by its name once it is imported.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged or no detector's, or `backbone` is needed or does not fit.

    Example:
        >>> import tempfile
        >>> from detectors import PaDiM
        >>> file = f"{tempfile.mkdtemp()}/padim.pt"
        >>> PaDiM("resnet18", weights=None, num_features=9).fit([torch.rand(4, 3, 32, 32)]).save(file)
        >>> load(file)(torch.rand(2, 3, 32, 32)).pred_score.shape
        torch.Size([2])
    """
    saved = read_state(file)
    if saved.get("format") != FILE_FORMAT:
        raise ValueError(
            f"expected a file of detector.save ({FILE_FORMAT!r}) in {file}, got {_short(list(saved))}: a state_dict "
            "goes to the load method of a detector made alike"
        )
    for name, kind in FIELDS.items():
        if not isinstance(saved.get(name), kind):  # type: ignore[arg-type]
            raise ValueError(f"expected {name} in {file} as detector.save writes it, got {_short(saved.get(name))}")
    state = state_of_model(saved, file)
    detector_class = _class_named(saved["kind"], file)
    chosen = backbone if backbone is not None else saved["backbone"]
    try:
        check_metadata(saved["metadata"])
        options = decode_options(state.get("options", torch.zeros(0)))
        detector = detector_class.rebuild(options, chosen)
        detector.load_state_dict(state)
    except Exception as error:  # whatever a hostile file makes fail
        raise ValueError(
            f"expected a whole {saved['kind']} in {file}, got one that cannot be rebuilt: {error}"
        ) from error
    detector.metadata = saved["metadata"]
    return detector.eval()


def _class_named(name: str, file: str | Path) -> type[AnomalyDetector]:
    """The detector class of that name among all that are imported."""
    classes: dict[str, type[AnomalyDetector]] = {}
    waiting: list[type[AnomalyDetector]] = [AnomalyDetector]  # type: ignore[type-abstract]
    while waiting:
        below = waiting.pop().__subclasses__()
        classes |= {one.__name__: one for one in below}
        waiting += below
    if name not in classes:
        raise ValueError(f"expected a detector among {sorted(classes)} in {file}, got {name[:80]!r}: import its class")
    return classes[name]


def _short(value: Any) -> str:
    return repr(value)[:80]
