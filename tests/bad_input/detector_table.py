"""What the entry points of detectors do with bad input, those of image folders apart."""

import copy
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch
from bad_cases import (
    CASES,
    FILES,
    FITTING,
    LOADERS,
    Cell,
    Entry,
    NoMeaning,
    Refused,
    Works,
    each_refused,
    images,
    is_finite,
    misspelt,
)
from bad_cases import no_meaning as none
from bad_cases import refused as refuse
from sklearn.exceptions import NotFittedError
from torch import Tensor, nn

import detectors
from detectors import IGD, FeatureExtractor, PaDiM, evaluate, export_onnx

NAN = float("nan")
IMAGE_CASES = tuple(CASES)[: tuple(CASES).index("mask shape")]
LABELS = torch.tensor([0, 0, 1, 1])


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.ReLU(), nn.Conv2d(4, 5, 2, 2)).eval()


def make_padim(**options: Any) -> PaDiM:
    given = {"layers": ("1", "2"), "num_features": 6, "blur_sigma": 1.0, "normalize": "imagenet"} | options
    return PaDiM(net(), generator=torch.Generator().manual_seed(0), **given)


@cache
def one_padim() -> PaDiM:
    return make_padim().fit([images()]).set_threshold([images()])


def fitted_padim() -> PaDiM:
    return copy.deepcopy(one_padim())


def make_igd(**options: Any) -> IGD:
    torch.manual_seed(0)
    given = {"image_size": 32, "scales": "global", "width": 1 / 32, "code_dim": 4} | options
    return IGD(nn.Sequential(nn.Conv2d(3, 4, 8, 8), nn.ReLU()), **given)


def fit_igd(thing: IGD, loader: Any, **options: Any) -> IGD:
    return thing.fit(loader, **{"epochs": 1, "progress": False} | options)


@cache
def one_igd() -> IGD:
    return fit_igd(make_igd(), [images()])


def fitted_igd() -> IGD:
    return copy.deepcopy(one_igd())


class Loader:
    """Says two batches, but yields one, fails, or changes the size."""

    def __init__(self, what: str, wrap: Any = lambda x: x) -> None:
        self.what = what
        self.wrap = wrap

    def __len__(self) -> int:
        return 2

    def __iter__(self) -> Iterator[Any]:
        yield self.wrap(images())
        if self.what == "raises":
            raise OSError("disk gone")
        if self.what == "changes":
            yield self.wrap(images(side=48))


class Command:
    """What a hostile pickle holds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.folder}/executed",)


def bad_file(case: str, folder: Path, whole: Any, foreign: Any) -> Path:
    """A file of this case; `whole` and `foreign` write a file of their own."""
    file = folder / "state.pt"
    if case == "truncated file":
        whole(file)
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    elif case == "garbage file":
        file.write_bytes(bytes(range(256)) * 8)
    elif case == "malicious file":
        torch.save({"state_dict": Command(folder)}, file)
    elif case == "foreign file":
        foreign(file)
    return file


def file_cells(read: Any, whole: Any, foreign: Any, foreign_message: str) -> dict[str, Cell]:
    """What `read(thing, file)` does with the five bad files."""
    expected = {
        "missing file": (FileNotFoundError, "found none at"),
        "truncated file": (ValueError, "damaged"),
        "garbage file": (ValueError, "damaged"),
        "malicious file": (ValueError, "nothing of it was executed"),
        "foreign file": (ValueError, foreign_message),
    }

    def cell(case: str) -> Cell:
        return Refused(*expected[case], lambda thing, folder: read(thing, bad_file(case, folder, whole, foreign)))

    return {case: cell(case) for case in FILES}


# Every detector looks at its images in one way.
LOOK: dict[str, Cell] = {
    **refuse(TypeError, dict.fromkeys(("numpy", "uint8", "uint16"), "convert, e.g. images.float() / 255")),
    **refuse(
        ValueError,
        {
            "0-255 floats": "divide 8-bit values by 255",
            "NaN": "got 1 NaN and 0 infinite values",
            "Inf": "got 0 NaN and 1 infinite values",
            "HWC": "channels come second, x.permute(0, 3, 1, 2)",
            "no batch": "images of shape (B, C, H, W)",
            "5-D": "images of shape (B, C, H, W)",
            "empty batch": "none of them 0",
            "meta device": "images on cpu",
            "other size": "resize them",
        },
    ),
    "B = 1": Works("one score, one map", is_finite),
    "constant": Works("finite", is_finite),
}
# A loader's batches are unpacked first, and moved to the detector.
BATCHES = LOOK | refuse(TypeError, {"numpy": "got ndarray"}) | refuse(ValueError, {"meta device": "which has none"})
NO_FILE = none("reads no file", *FILES)
NO_LOADER = none("takes a batch, no loader", *LOADERS)
NO_MASK = none("takes no mask", "mask shape")


def loader_cells(call: Any, empty: Any = (), wrap: Any = lambda x: x) -> dict[str, Cell]:
    """What `call(thing, loader)` does with loaders that fail."""
    return {
        "short loader": Refused(ValueError, "at least one batch", lambda thing, folder: call(thing, iter(empty))),
        "raising loader": Refused(OSError, "disk gone", lambda thing, folder: call(thing, Loader("raises", wrap))),
        "changing loader": Refused(
            ValueError, "resize them", lambda thing, folder: call(thing, Loader("changes", wrap))
        ),
    }


def unknown_option(call: Any) -> Refused:
    return Refused(TypeError, "unexpected keyword argument", lambda thing, folder: call(thing, optoin=1))


def forward_entry(name: str, fitted: Any, unfitted: Any, call: Any, **extra: Cell) -> Entry:
    """A detector's answer to images."""
    return Entry(
        name,
        fitted,
        lambda thing: thing.decision_function(images()) is not None and thing(images()).pred_score,
        give=call,
        cells=LOOK
        | NO_FILE
        | NO_LOADER
        | NO_MASK
        | none("predicts", "one image")
        | none("has no options", "out of range")
        | {
            "before fit": Refused(NotFittedError, "call fit(loader)", lambda thing, folder: call(unfitted(), images())),
            "misspelt option": unknown_option(lambda thing, **options: thing(images(), **options)),
        }
        | extra,
    )


def labelled(x: Any) -> tuple[Any, Tensor, Tensor]:
    """A batch with labels and masks."""
    count = len(x)
    masks = torch.zeros(count, 1, 32, 32, dtype=torch.bool)
    masks[2:, :, :5, :5] = True
    return x, LABELS.repeat(-(-count // 4))[:count], masks


def checkpoint_of(batch: int) -> Any:
    """Writes the checkpoint of a run with batches of this size."""
    return lambda file: fit_igd(make_igd(), images().split(batch), checkpoint=file)


PADIM_OPTIONS = (
    {"layers": "1"}, {"layers": ("1", "nine")}, {"num_features": 0}, {"num_features": 6.5}, {"eps": -1}, {"eps": NAN},
    {"eps": float("inf")}, {"blur_sigma": -1}, {"blur_sigma": NAN}, {"top_fraction": 2}, {"top_fraction": NAN},
    {"channels": [1]}, {"channels": torch.zeros(0).long()},
)  # fmt: skip
IGD_OPTIONS = (
    {"image_size": 33}, {"image_size": 32.0}, {"scales": "all"}, {"channels": 0}, {"channels": 3.0}, {"width": 0},
    {"width": NAN}, {"code_dim": 0}, {"code_dim": 4.5}, {"score": "sum"}, {"xi": 2}, {"xi": NAN}, {"nu": -1},
    {"rho": 2}, {"data_range": 0}, {"data_range": NAN}, {"chunk_size": 0}, {"chunk_size": 1.5}, {"projection": 3},
)  # fmt: skip
FIT_OPTIONS = ({"epochs": 0}, {"epochs": 1.5}, {"refresh_every": 0}, {"lr": -1}, {"lr": NAN}, {"resume": True})

ENTRIES = [
    Entry(
        "FeatureExtractor",
        lambda: FeatureExtractor(net(), ("1", "2"), normalize="imagenet"),
        lambda thing: thing(images())[1],
        give=lambda thing, x: thing(x),
        cells=LOOK
        | file_cells(
            lambda thing, file: FeatureExtractor(file, ("layer1",)),
            lambda file: torch.save({"architecture": "resnet18", "state_dict": net().state_dict()}, file),
            lambda file: torch.save({"architecture": "resnet18", "state_dict": net().state_dict()}, file),
            "is it the right architecture?",
        )
        | NO_LOADER
        | NO_MASK
        | none("is not fitted", *FITTING)
        | {
            "other size": Works("maps of another size", is_finite),
            "misspelt option": misspelt(FeatureExtractor),
            "out of range": Refused(
                ValueError,
                "expected",
                each_refused(
                    lambda **options: FeatureExtractor(**{"backbone": net(), "layers": ("1",)} | options),
                    {"backbone": 3},
                    {"layers": "1"},
                    {"normalize": "mean"},
                    {"normalize": ((0, 0, 0), (1, 1, 0))},
                    {"layers": ("nine", "1")},
                ),
            ),
        },
    ),
    Entry(
        "PaDiM.fit",
        make_padim,
        lambda thing: thing.fit([images()])(images()).pred_score,
        give=lambda thing, x: thing.fit([x])(images()),
        cells=BATCHES
        | NO_FILE
        | loader_cells(lambda thing, loader: thing.fit(loader))
        | {
            "B = 1": Refused(ValueError, "at least 2 samples"),
            "one image": Refused(ValueError, "fit on more images", lambda thing, folder: thing.fit([images(1)])),
            "mask shape": Works(
                "labels and masks are ignored",
                is_finite,
                lambda thing, folder: thing.fit([(images(), LABELS, torch.ones(4, 1, 9, 9))])(images()),
            ),
            "before fit": NoMeaning("is the fit"),
            "other size": Works(
                "the detector of that size",
                is_finite,
                lambda thing, folder: thing.fit([images(side=48)])(images(side=48)),
            ),
            "misspelt option": unknown_option(lambda thing, **options: thing.fit([images()], **options)),
            "out of range": Refused(ValueError, "expected", each_refused(make_padim, *PADIM_OPTIONS)),
        },
    ),
    Entry(
        "PaDiM.partial_fit",
        lambda: make_padim().partial_fit(images()),
        lambda thing: thing.finalize()(images()).pred_score,
        give=lambda thing, x: thing.partial_fit(x).finalize()(images()),
        cells=LOOK
        | NO_FILE
        | NO_LOADER
        | NO_MASK
        | none("has no options", "out of range")
        | {
            "meta device": Refused(ValueError, "which has none"),
            "B = 1": Works("one image more", is_finite),
            "one image": Refused(
                ValueError, "at least 2 samples", lambda thing, folder: make_padim().partial_fit(images(1)).finalize()
            ),
            "before fit": Refused(
                ValueError, "expected a Gaussian that has seen samples", lambda thing, folder: make_padim().finalize()
            ),
            "misspelt option": unknown_option(lambda thing, **options: thing.partial_fit(images(), **options)),
        },
    ),
    Entry(
        "PaDiM.merge",
        lambda: make_padim().partial_fit(images()),
        lambda thing: thing.finalize()(images()).pred_score,
        cells=none("takes a detector", *IMAGE_CASES, "mask shape", "one image", "constant", "out of range")
        | NO_FILE
        | none("takes no loader", *LOADERS)
        | {
            "before fit": Refused(
                ValueError, "call partial_fit or fit", lambda thing, folder: thing.merge(make_padim())
            ),
            "other size": Refused(
                ValueError,
                "same image size and channels",
                lambda thing, folder: thing.merge(make_padim().partial_fit(images(side=48))),
            ),
            "misspelt option": unknown_option(lambda thing, **options: thing.merge(fitted_padim(), **options)),
        },
    ),
    forward_entry("PaDiM.forward", fitted_padim, make_padim, lambda thing, x: thing(x)),
    forward_entry(
        "PaDiM.decision_function",
        fitted_padim,
        make_padim,
        lambda thing, x: torch.from_numpy(thing.decision_function(x)),
        **{"meta device": Refused(ValueError, "which has none")},
    ),
    Entry(
        "PaDiM.set_threshold",
        fitted_padim,
        lambda thing: torch.stack([thing.image_threshold, thing.pixel_threshold]),
        give=lambda thing, x: thing.set_threshold([x])(images()),
        cells=BATCHES
        | NO_FILE
        | loader_cells(lambda thing, loader: thing.set_threshold(loader))
        | {
            "mask shape": Works(
                "labels and masks are ignored",
                is_finite,
                lambda thing, folder: thing.set_threshold([(images(), LABELS, torch.ones(4, 1, 9, 9))])(images()),
            ),
            "before fit": Refused(
                NotFittedError, "call fit(loader)", lambda thing, folder: make_padim().set_threshold([images()])
            ),
            "one image": Works(
                "its own score", is_finite, lambda thing, folder: thing.set_threshold([images(1)])(images())
            ),
            "misspelt option": unknown_option(lambda thing, **options: thing.set_threshold([images()], **options)),
            "out of range": Refused(
                ValueError,
                "expected a quantile in (0, 1]",
                each_refused(
                    lambda quantile: fitted_padim().set_threshold([images()], quantile),
                    {"quantile": 0},
                    {"quantile": NAN},
                    {"quantile": 99},
                ),
            ),
        },
    ),
    Entry(
        "PaDiM.save",
        fitted_padim,
        lambda thing: thing(images()).pred_score,
        cells=none("takes no images", *IMAGE_CASES, "mask shape", "one image", "constant", "other size")
        | none("takes no loader", *LOADERS)
        | none("reads no file", "malicious file")
        | {
            "before fit": Works(
                "a file of an unfitted detector",
                lambda loaded: not loaded.is_fitted(),
                lambda thing, folder: (make_padim().save(folder / "a.pt"), make_padim().load(folder / "a.pt"))[1],
            ),
            "misspelt option": unknown_option(lambda thing, **options: thing.save("file", **options)),
            "out of range": Refused(TypeError, "expected metadata", lambda thing, folder: bad_metadata(folder)),
            "missing file": Works(
                "makes the folder", lambda file: file.is_file(), lambda thing, folder: saved(thing, folder / "a/b/c.pt")
            ),
            "truncated file": Works(
                "writes it anew", lambda file: file.stat().st_size > 99, lambda thing, folder: over(thing, folder)
            ),
            "garbage file": Works(
                "writes it anew", lambda file: file.stat().st_size > 99, lambda thing, folder: over(thing, folder)
            ),
            "foreign file": Refused(ValueError, "it is a folder", lambda thing, folder: thing.save(folder)),
        },
    ),
    Entry(
        "PaDiM.load",
        fitted_padim,
        lambda thing: thing(images()).pred_score,
        cells=none("takes no images", *IMAGE_CASES, "mask shape", "one image", "constant")
        | none("takes no loader", *LOADERS)
        | file_cells(
            lambda thing, file: thing.load(file),
            lambda file: fitted_padim().save(file),
            lambda file: fitted_igd().save(file),
            "expected a state of a PaDiM with",
        )
        | {
            "before fit": Works(
                "the fitted detector of the file",
                lambda loaded: loaded.is_fitted(),
                lambda thing, folder: make_padim().load(saved(thing, folder / "a.pt")),
            ),
            "other size": Works(
                "takes the file's size",
                is_finite,
                lambda thing, folder: fitted_padim().load(saved(make_padim().fit([images(side=48)]), folder / "a.pt"))(
                    images(side=48)
                ),
            ),
            "misspelt option": unknown_option(lambda thing, **options: thing.load("file", **options)),
            "out of range": Refused(
                ValueError,
                "eps=0.01 as here, got one saved with eps=0.5",
                lambda thing, folder: thing.load(saved(make_padim(eps=0.5).fit([images()]), folder / "a.pt")),
            ),
        },
    ),
    Entry(
        "IGD.fit",
        make_igd,
        lambda thing: fit_igd(thing, [images(2)])(images(2)).pred_score,
        same=False,
        give=lambda thing, x: fit_igd(thing, [x])(images()),
        cells=BATCHES
        | loader_cells(fit_igd)
        | file_cells(
            lambda thing, file: fit_igd(thing, [images()], checkpoint=file, resume=True),
            checkpoint_of(4),
            lambda file: fitted_padim().save(file),
            "expected a checkpoint of fit",
        )
        | {
            "0-255 floats": Refused(ValueError, "data_range=1"),
            "before fit": NoMeaning("is the fit"),
            "one image": Works("finite", is_finite, lambda thing, folder: fit_igd(thing, [images(1)])(images())),
            "mask shape": Works(
                "labels and masks are ignored",
                is_finite,
                lambda thing, folder: fit_igd(thing, [(images(), LABELS, torch.ones(4, 1, 9, 9))])(images()),
            ),
            "short loader": Refused(
                ValueError, "expected 2 batches in an epoch", lambda thing, folder: fit_igd(thing, Loader("ends"))
            ),
            "misspelt option": unknown_option(lambda thing, **options: fit_igd(thing, [images()], **options)),
            "out of range": Refused(
                ValueError,
                "expected the checkpoint",
                lambda thing, folder: (
                    each_refused(make_igd, *IGD_OPTIONS, {})(thing, folder),
                    each_refused(lambda **options: fit_igd(thing, [images()], **options), *FIT_OPTIONS)(thing, folder),
                ),
            ),
        },
    ),
    forward_entry(
        "IGD.forward",
        fitted_igd,
        make_igd,
        lambda thing, x: thing(x),
        **{"0-255 floats": Refused(ValueError, "data_range=1")},
    ),
    Entry(
        "IGD.losses",
        fitted_igd,
        lambda thing: thing(images()).pred_score,
        give=lambda thing, x: thing.losses(x),
        cells=LOOK
        | NO_FILE
        | NO_LOADER
        | NO_MASK
        | none("has no options with a range", "out of range")
        | {
            "numpy": Refused(TypeError, "got ndarray"),
            "0-255 floats": Refused(ValueError, "data_range=1"),
            "meta device": Refused(ValueError, "which has none"),
            "before fit": Refused(
                NotFittedError, "call fit(loader)", lambda thing, folder: make_igd().losses(images())
            ),
            "one image": Works("finite", is_finite, lambda thing, folder: thing.losses(images(1))),
            "misspelt option": unknown_option(lambda thing, **options: thing.losses(images(), **options)),
        },
    ),
    Entry(
        "evaluate",
        fitted_padim,
        lambda thing: thing(images()).pred_score,
        give=lambda thing, x: evaluate(thing, [labelled(x)]),
        cells=LOOK
        | NO_FILE
        | loader_cells(evaluate, wrap=labelled)
        | none("trains nothing", "one image")
        | {
            "no batch": Refused(ValueError, "images of shape (B, C, H, W)"),
            "meta device": Refused(ValueError, "which has none"),
            "B = 1": Works("NaN: one class only", lambda out: out["image_auroc"] != out["image_auroc"]),
            "constant": Works("AUROC .5", lambda out: out["image_auroc"] == 0.5),
            "mask shape": Refused(
                ValueError,
                "expected masks (B, 1, H, W)",
                lambda thing, folder: evaluate(thing, [(images(), LABELS, torch.ones(4, 1, 9, 9))]),
            ),
            "before fit": Refused(
                NotFittedError, "call fit(loader)", lambda thing, folder: evaluate(make_padim(), [labelled(images())])
            ),
            "misspelt option": unknown_option(lambda thing, **options: evaluate(thing, [], **options)),
            "out of range": Refused(
                ValueError,
                "specificity in [0, 1]",
                each_refused(
                    lambda **options: evaluate(fitted_padim(), [labelled(images())], **options),
                    {"specificity": NAN},
                    {"specificity": 95},
                ),
            ),
        },
    ),
    Entry(
        "load",
        fitted_padim,
        lambda thing: thing(images()).pred_score,
        cells=none("takes no images", *IMAGE_CASES, "mask shape", "one image", "constant", "other size")
        | none("takes no loader", *LOADERS)
        | file_cells(
            lambda thing, file: detectors.load(file, net()),
            lambda file: fitted_padim().save(file),
            lambda file: torch.save(fitted_padim().state_dict(), file),
            "expected a file of detector.save",
        )
        | {
            "before fit": Works(
                "an unfitted detector",
                lambda loaded: not loaded.is_fitted(),
                lambda thing, folder: detectors.load(saved(make_padim(), folder / "a.pt"), net()),
            ),
            "misspelt option": misspelt(detectors.load),
            "out of range": Refused(
                ValueError,
                "backbone=module",
                lambda thing, folder: detectors.load(saved(thing, folder / "a.pt")),
            ),
        },
    ),
    Entry(
        "export_onnx",
        fitted_padim,
        lambda thing: thing(images()).pred_score,
        cells=none("takes no images", *IMAGE_CASES, "mask shape", "one image", "constant", "other size")
        | none("takes no loader", *LOADERS)
        | none("reads no file", *FILES[1:])
        | none("has no options with a range", "out of range")
        | {
            "before fit": Refused(
                NotFittedError, "call fit(loader)", lambda thing, folder: export_onnx(make_padim(), folder / "a.onnx")
            ),
            "missing file": Refused(
                FileNotFoundError, "make it first", lambda thing, folder: export_onnx(thing, folder / "none" / "a.onnx")
            ),
            "misspelt option": unknown_option(lambda thing, **options: export_onnx(thing, "a.onnx", **options)),
        },
    ),
]


def saved(detector: detectors.AnomalyDetector, file: Path) -> Path:
    detector.save(file)
    return file


def over(detector: detectors.AnomalyDetector, folder: Path) -> Path:
    """Save over a file of rubbish."""
    file = folder / "a.pt"
    file.write_bytes(b"rubbish")
    return saved(detector, file)


def bad_metadata(folder: Path) -> None:
    detector = fitted_padim()
    detector.metadata = {"a": None}
    detector.save(folder / "a.pt")
