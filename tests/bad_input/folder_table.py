"""What the entry points about image folders and reports do with bad input."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bad_cases import (
    CASES,
    FILES,
    FITTING,
    LOADERS,
    Cell,
    Entry,
    Refused,
    Works,
    each_refused,
    images,
    is_finite,
    misspelt,
    spoilt,
)
from bad_cases import no_meaning as none
from bad_cases import refused as refuse
from detector_table import Command
from PIL import Image
from torch import Tensor

from detectors import ImageFiles, LabelledFiles, map_limits, overlay, write_report

NAN = float("nan")
METADATA = {"image_size": 16, "image_channels": 3}


def grey(side: int = 20, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (side, side + 4), dtype=np.uint8)


def folder_of(folder: Path, *pictures: Any, suffix: str = "tif") -> Path:
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{number}.{suffix}")
    return folder


def read(folder: Path, **options: Any) -> Tensor:
    """All images of a folder."""
    return torch.stack(list(ImageFiles(folder, 16, **options)))


def unit(result: Tensor) -> bool:
    return bool(((result >= 0) & (result <= 1)).all())


def with_value(value: float) -> Any:
    picture = grey().astype(np.float32) / 255
    picture[3, 3] = value
    return picture


def written(folder: Path, content: bytes, name: str = "0.png") -> Path:
    (folder / name).write_bytes(content)
    return folder


def half_a_picture(folder: Path) -> Path:
    folder_of(folder, grey(), suffix="png")
    whole = (folder / "0.png").read_bytes()
    return written(folder, whole[: len(whole) // 2])


def constant_pictures() -> Any:
    """Empty X-rays and empty computed tomograms."""
    return np.full((9, 9), 7, dtype=np.uint16), np.full((9, 9), -1000, dtype=np.float32)


def two_frames(folder: Path) -> Path:
    first, second = (Image.fromarray(grey(seed=seed)) for seed in (0, 1))
    first.save(folder / "0.tif", save_all=True, append_images=[second])
    return folder


def vanishing(folder: Path) -> Any:
    files = ImageFiles(folder_of(folder, grey(), grey()), 16)
    files.files[1].unlink()
    return list(files)


def labelled_folder(folder: Path, mask: Any = None, missing: str = "") -> Path:
    for name in ("normal", "abnormal", "masks"):
        if name != missing:
            (folder / name).mkdir()
            picture = mask if name == "masks" and mask is not None else grey()
            folder_of(folder / name, picture)
    return folder


def read_labelled(folder: Path) -> Any:
    return [part for item in LabelledFiles(folder, METADATA) for part in item]


def no_images(message: str, make: Any) -> Refused:
    """The only file cannot be used, so that there is none."""
    return Refused(FileNotFoundError, message, lambda thing, folder: read(make(folder)))


FILE_ENTRY: dict[str, Cell] = {
    **none("reads files, takes no tensors", "HWC", "no batch", "meta device"),
    **none("is not fitted", *FITTING),
    "numpy": Refused(TypeError, "PathLike", lambda thing, folder: ImageFiles(grey(), 16)),
    "uint8": Works("divided by 255", unit, lambda thing, folder: read(folder_of(folder, grey()))),
    "uint16": Works(
        "scaled by the bits in use",
        unit,
        lambda thing, folder: read(folder_of(folder, grey().astype(np.uint16) * 16)),
    ),
    "0-255 floats": Works(
        "scaled by the values in use", unit, lambda thing, folder: read(folder_of(folder, grey().astype(np.float32)))
    ),
    "NaN": no_images("not finite", lambda folder: folder_of(folder, with_value(NAN))),
    "Inf": no_images("not finite", lambda folder: folder_of(folder, with_value(float("inf")))),
    "5-D": no_images("holds 2 images", two_frames),
    "empty batch": no_images("no file at all", lambda folder: folder),
    "B = 1": Works("one image", unit, lambda thing, folder: read(folder_of(folder, grey()))),
    "mask shape": none("takes no mask", "mask shape")["mask shape"],
    "constant": Works("finite", is_finite, lambda thing, folder: read(folder_of(folder, *constant_pictures()))),
    "other size": Works("resized", unit, lambda thing, folder: read(folder_of(folder, grey(), grey(50)))),
    "misspelt option": misspelt(ImageFiles),
    "out of range": Refused(
        ValueError,
        "expected",
        lambda thing, folder: each_refused(
            lambda **options: ImageFiles(folder_of(folder, grey()), **{"size": 16} | options),
            {"size": 0},
            {"size": 1.5},
            {"channels": 2},
            {"deep_range": (1, 1)},
            {"deep_range": (0, NAN)},
            {"deep_range": (0, float("inf"))},
        )(thing, folder),
    ),
    "missing file": Refused(FileNotFoundError, "a folder of images", lambda thing, folder: read(folder / "none")),
    "truncated file": no_images("damaged", half_a_picture),
    "garbage file": no_images("damaged", lambda folder: written(folder, bytes(range(256)))),
    "malicious file": no_images("damaged", lambda folder: written(folder, pickle.dumps(Command(folder)))),
    "foreign file": no_images("unknown suffix .txt", lambda folder: written(folder, b"text", "a.txt")),
    "short loader": none("is a dataset: its length is that of its files", "short loader")["short loader"],
    "raising loader": Refused(ValueError, "cannot be read any more", lambda thing, folder: vanishing(folder)),
    "changing loader": Works("resized", unit, lambda thing, folder: read(folder_of(folder, grey(), grey(50)))),
}
PICTURE = {
    **refuse(
        TypeError, {"numpy": "image.float() / 255", "uint8": "image.float() / 255", "uint16": "image.float() / 255"}
    ),
    **refuse(
        ValueError,
        {
            "0-255 floats": "divide bytes by 255",
            "NaN": "an image in [0, 1]",
            "Inf": "an image in [0, 1]",
            "meta device": "which has none",
        },
    ),
    **refuse(ValueError, dict.fromkeys(("HWC", "5-D", "empty batch"), "one image, channels first")),
}
MAPS = {
    **refuse(TypeError, dict.fromkeys(("numpy", "uint8", "uint16"), "take prediction.anomaly_map")),
    **refuse(ValueError, {"NaN": "expected finite", "Inf": "expected finite", "meta device": "expected finite"}),
    **refuse(ValueError, dict.fromkeys(("HWC", "no batch", "5-D", "empty batch"), "maps of shape")),
    "0-255 floats": Works("scores have any scale", lambda out: out[0] < out[1]),
    "B = 1": Works("one map", lambda out: out[0] < out[1]),
    "constant": Works("an empty range of 1e-12", lambda out: out[0] < out[1]),
}
NOT_HERE = {
    **none("is not fitted", *FITTING),
    **none("reads no file", *FILES),
    **none("takes no loader", *LOADERS),
    **none("takes no mask", "mask shape"),
}


def report(folder: Path, images_: Any, count: int = 4, **options: Any) -> Any:
    page = folder / "page.html"
    names = [str(number) for number in range(count)]
    write_report(page, names, images_, torch.rand(count), torch.rand(count, 1, 8, 8), **options)
    return page.stat().st_size > 1000


def each_picture(case: str) -> Cell:
    """The report gets its images one by one."""
    cell = PICTURE[case]
    assert isinstance(cell, Refused)
    return Refused(cell.error, cell.message, lambda thing, folder: report(folder, [spoilt_picture(case)], 1))


def spoilt_picture(case: str) -> Any:
    return spoilt(images()[0], case)


def nothing(thing: Any) -> Tensor:
    """There is no object that could be spoilt."""
    return torch.zeros(1)


ENTRIES = [
    Entry("ImageFiles", lambda: ImageFiles, nothing, cells=FILE_ENTRY),
    Entry(
        "LabelledFiles",
        lambda: LabelledFiles,
        nothing,
        cells=none("as ImageFiles, which reads the files", *CASES)
        | none("is not fitted", *FITTING)
        | {
            "mask shape": Works(
                "resized to the image",
                is_finite,
                lambda thing, folder: read_labelled(labelled_folder(folder, grey(60))),
            ),
            "B = 1": Works(
                "one image of each kind", is_finite, lambda t, folder: read_labelled(labelled_folder(folder))
            ),
            "constant": Works(
                "an empty mask",
                lambda out: not out[5].any(),
                lambda thing, folder: read_labelled(labelled_folder(folder, np.zeros((9, 9), dtype=np.uint8))),
            ),
            "misspelt option": misspelt(LabelledFiles),
            "out of range": Refused(
                ValueError,
                "metadata of ImageFiles",
                lambda thing, folder: LabelledFiles(labelled_folder(folder), {"side": 3}),
            ),
            "missing file": Refused(
                FileNotFoundError,
                "a folder of images",
                lambda thing, folder: read_labelled(labelled_folder(folder, missing="abnormal")),
            ),
        },
    ),
    Entry(
        "overlay",
        lambda: overlay,
        nothing,
        give=lambda thing, x: thing(x, torch.rand(1, 8, 8), (0.0, 1.0)),
        right=lambda: images()[0],
        cells=PICTURE
        | NOT_HERE
        | {
            "no batch": Refused(ValueError, "one image, channels first"),
            "B = 1": Works("a grey image in colour", lambda out: out.shape == (3, 32, 32)),
            "constant": Works("finite", is_finite),
            "other size": Refused(ValueError, "one image, channels first"),
            "mask shape": Refused(
                ValueError,
                "maps of shape (1, h, w)",
                lambda thing, folder: overlay(images()[0], torch.rand(8, 8), (0.0, 1.0)),
            ),
            "misspelt option": misspelt(overlay),
            "out of range": Refused(
                ValueError,
                "expected",
                each_refused(
                    lambda **options: overlay(images()[0], torch.rand(1, 8, 8), **{"limits": (0.0, 1.0)} | options),
                    {"limits": (1.0, 0.0)},
                    {"limits": (0.0, NAN)},
                    {"opacity": 2.0},
                    {"opacity": NAN},
                ),
            ),
        },
    ),
    Entry(
        "map_limits",
        lambda: map_limits,
        nothing,
        give=lambda thing, x: thing(x),
        right=lambda: images()[:, :1],
        cells=MAPS
        | NOT_HERE
        | {
            "other size": Refused(ValueError, "maps of shape (N, 1, h, w)"),
            "misspelt option": misspelt(map_limits),
            "out of range": Refused(
                ValueError, "finite pixel_threshold", lambda thing, folder: map_limits(images()[:, :1], NAN)
            ),
        },
    ),
    Entry(
        "write_report",
        lambda: write_report,
        nothing,
        cells={case: each_picture(case) for case in PICTURE}
        | NOT_HERE
        | {
            "no batch": Refused(
                ValueError, "one image, channels first", lambda t, folder: report(folder, images()[0], 3)
            ),
            "B = 1": Works("a page of one image", bool, lambda thing, folder: report(folder, images(1), 1)),
            "constant": Works("a page", bool, lambda thing, folder: report(folder, torch.zeros(4, 1, 8, 8))),
            "other size": Works(
                "each image has its own size",
                bool,
                lambda t, folder: report(folder, [images()[0], images(side=9)[0]], 2),
            ),
            "mask shape": Refused(
                ValueError,
                "maps of shape (N, 1, h, w)",
                lambda t, folder: write_report(folder / "a", ["a"], images(1), torch.rand(1), torch.rand(1, 8, 8)),
            ),
            "misspelt option": misspelt(write_report),
            "out of range": Refused(
                ValueError,
                "expected finite scores",
                lambda t, folder: write_report(
                    folder / "a", ["a"], images(1), torch.tensor([NAN]), torch.rand(1, 1, 8, 8)
                ),
            ),
            "missing file": Refused(
                FileNotFoundError, "make it first", lambda thing, folder: report(folder / "none", images())
            ),
            "short loader": Refused(
                ValueError, "expected 4 images as there are names, got 2", lambda t, folder: report(folder, images(2))
            ),
            "raising loader": Refused(OSError, "disk gone", lambda t, folder: report(folder, failing())),
            "changing loader": Works(
                "each image has its own size",
                bool,
                lambda t, folder: report(folder, [images()[0], images(side=9)[0]], 2),
            ),
        },
    ),
]


def failing() -> Any:
    yield images()[0]
    raise OSError("disk gone")
