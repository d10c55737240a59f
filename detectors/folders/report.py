"""One self-contained HTML page about a folder of scored images."""

import base64
import json
from collections.abc import Iterable, Sequence
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from detectors.folders.overlay import Limits, check_picture, heat_colours, map_limits

_DATA = "/*DATA*/null"  # where the page takes its data


def write_report(
    file: str | Path,
    names: Sequence[str],
    images: Iterable[Tensor],
    scores: Tensor,
    maps: Tensor,
    *,
    threshold: float | None = None,
    pixel_threshold: float | None = None,
    title: str = "Anomaly scores",
    notes: Sequence[str] = (),
) -> None:
    """Write a page with all images, their heat maps under an opacity slider, their scores and the threshold.

    The page needs no network and no other file. It can be sorted and filtered, and follows the reader's light or dark
    setting.

    Args:
        file: The page to write; its folder must exist.
        names: What each of the N images is called.
        images: N images (1 or 3, H, W) in [0, 1], each of its own size; small ones keep the page small.
        scores: Image scores (N,), higher is more anomalous.
        maps: Anomaly maps (N, 1, h, w).
        threshold: Score above which an image counts as anomalous; None marks none.
        pixel_threshold: The same for a pixel; it only sets the colours' range.
        title: Heading of the page.
        notes: Lines below the heading, such as which files were left out.

    Raises:
        FileNotFoundError: If the page's folder does not exist.
        TypeError: If images, scores or maps are no floating-point tensors.
        ValueError: If numbers or shapes are wrong, scores or maps not finite, or an image is far outside [0, 1].

    Example:
        >>> import tempfile
        >>> import torch
        >>> folder = tempfile.TemporaryDirectory()
        >>> page = Path(folder.name, "report.html")
        >>> write_report(page, ["a.png"], [torch.rand(3, 64, 64)], torch.tensor([0.5]), torch.rand(1, 1, 16, 16))
        >>> "a.png" in page.read_text(encoding="utf-8")
        True
        >>> folder.cleanup()
    """
    _check_page(Path(file), names, scores, maps)
    limits = map_limits(maps, pixel_threshold)
    values = scores.tolist()
    entries = []
    for position, image in enumerate(images):
        if position == len(names):
            raise ValueError(f"expected {len(names)} images as there are names, got more")
        entries.append(_entry(names[position], image, values[position], maps[position], limits))
    if len(entries) != len(names):
        raise ValueError(f"expected {len(names)} images as there are names, got {len(entries)}")
    data = {"title": title, "notes": list(notes), "threshold": threshold, "images": entries}
    template = files("detectors.folders").joinpath("report.html").read_text(encoding="utf-8")
    page = template.replace(_DATA, _script_safe(data))
    Path(file).write_text(page, encoding="utf-8")


def _check_page(file: Path, names: Sequence[str], scores: Tensor, maps: Tensor) -> None:
    """Refuse a page that cannot be written, and names, scores and maps that do not belong together."""
    same_number = len(names) == len(scores) == len(maps)
    if not same_number or len(names) == 0:
        raise ValueError(
            f"expected as many names as scores and maps, and some, got {len(names)}, {len(scores)} and {len(maps)}"
        )
    if not file.absolute().parent.is_dir():
        raise FileNotFoundError(f"expected a folder for the page, found none at {file.parent}: make it first")
    if not isinstance(scores, Tensor) or scores.ndim != 1:
        got = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise TypeError(f"expected scores as a tensor (N,), got {got}: take prediction.pred_score")
    if not bool(scores.isfinite().all()):
        raise ValueError("expected finite scores, got NaN or infinite ones: check the images that they are of")


def _entry(
    name: str,
    image: Tensor,
    score: float,
    anomaly_map: Tensor,
    limits: Limits,
) -> dict[str, Any]:
    """Return all that the page knows about one image."""
    check_picture(image)
    return {
        "name": name,
        "score": score,
        "width": image.shape[2],
        "height": image.shape[1],
        "image": _data_url(image, "JPEG"),
        "heat": _data_url(heat_colours(anomaly_map, limits), "PNG"),
    }


def _data_url(image: Tensor, kind: str) -> str:
    """Encode an image (1, 3 or 4, H, W) in [0, 1] as a URL that holds it."""
    values = image.detach().cpu().float().clamp(0, 1) * 255
    stored = values.round().byte()
    channels_last = stored[0] if len(stored) == 1 else stored.permute(1, 2, 0)
    buffer = BytesIO()
    Image.fromarray(channels_last.numpy()).save(buffer, kind, quality=88)
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"data:image/{kind.lower()};base64,{encoded}"


def _script_safe(data: object) -> str:
    """JSON that no file name can break out of the page's script with."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
