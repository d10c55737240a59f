"""What the entry points of msacl_loss do with bad input: embeddings (N, D) in the place of images."""

from typing import Any

import torch
from bad_cases import FILES, Cell, Entry, Refused, Works, each_refused, is_finite, misspelt
from bad_cases import no_meaning as none
from bad_cases import refused as refuse
from torch import Tensor, nn

from msacl_loss import (
    MSACLLoss,
    NotFittedError,
    augmentation_loss,
    calibrated_contrastive_loss,
    centre_distances,
    centring_loss,
    estimate_centres,
    position_loss,
)

NAN = float("nan")
CENTRES = torch.zeros(4, 8)


def rows(count: int = 8, dim: int = 8) -> Tensor:
    return torch.rand(count, dim, generator=torch.Generator().manual_seed(0))


def labels(z: Any) -> Tensor:
    return torch.arange(len(z)) % 4


def make_loss() -> MSACLLoss:
    criterion = MSACLLoss(embedding_dim=8)
    criterion.set_centres(CENTRES)
    return criterion


def batches(z: Any, embed: Any = None) -> list[tuple[Tensor, Tensor]]:
    return [(z, labels(z))]


def unfitted(thing: Any, folder: Any) -> Any:
    return MSACLLoss(embedding_dim=8)(rows(), rows(), labels(rows()))


# Every term looks at its embeddings in one way.
LOOK: dict[str, Cell] = {
    **refuse(TypeError, {"numpy": "to be a tensor", "uint8": ".float()", "uint16": ".float()"}),
    **refuse(
        ValueError,
        {
            "NaN": "NaN or infinity in rows",
            "Inf": "NaN or infinity in rows",
            "no batch": "one embedding a row",
            "5-D": "one embedding a row",
            "empty batch": "got none",
            "meta device": "got meta",
            "other size": "one embedding a row",
        },
    ),
    "0-255 floats": Works("embeddings have any scale", is_finite),
    "constant": Works("finite", is_finite),
    **none("embeddings have no channels", "HWC"),
    **none("takes no mask", "mask shape"),
    **none("reads no file", *FILES),
}
NO_LOADER = none("takes a batch, no loader", "short loader", "raising loader", "changing loader")
NOTHING_FITTED = none("is not fitted", "before fit", "one image")
ONE_ROW = {"B = 1": Works("one row is enough", is_finite)}
LOSS_OPTIONS = (
    {"temperature": 0}, {"temperature": NAN}, {"alpha": 0.5}, {"alpha": NAN}, {"positive": "all"},
    {"weights": (1, 1, 1)}, {"weights": (1, 1, 1, NAN)}, {"implementation": "fast"}, {"gather_distributed": 1.5},
    {"validate": "no"},
    {"embedding_dim": 0}, {"embedding_dim": 8.5}, {"num_classes": -1}, {"augmentation_dim": 0},
    {"position_input": "sum"}, {"normalize": "yes"},
)  # fmt: skip


def wider(z: Tensor) -> Tensor:
    return z.repeat(1, 2)


def loss_of(function: Any, options: tuple[dict[str, Any], ...] = (), **extra: Cell) -> Entry:
    """A term as a pure function of logits and classes."""
    return Entry(
        function.__name__,
        lambda: function,
        lambda thing: thing(rows(), labels(rows())),
        give=lambda thing, z: thing(z, labels(z)),
        right=rows,
        cells=LOOK
        | NO_LOADER
        | NOTHING_FITTED
        | ONE_ROW
        | none("has no options with a range", "out of range")
        | {
            "meta device": Refused(ValueError, "on meta like the embeddings, got cpu"),
            "other size": Refused(ValueError, "0..2", lambda thing, folder: thing(rows(dim=3), labels(rows()))),
            "misspelt option": misspelt(function),
        }
        | extra,
    )


def counted(z: Tensor, broken: str = "") -> Any:
    """A loader of two batches, the second of which is broken."""
    yield z, labels(z)
    if broken == "raises":
        raise OSError("disk gone")
    yield wider(z), labels(z)


CENTRE_CELLS: dict[str, Cell] = (
    LOOK
    | none("sets what others need", "before fit")
    | {
        "empty batch": Refused(ValueError, "samples of all 4 classes"),
        "B = 1": Refused(ValueError, "samples of all 4 classes"),
        "meta device": Refused(ValueError, "which has none"),
        "other size": Refused(ValueError, "one embedding a row"),
    }
)


def refused_loaders(call: Any) -> dict[str, Cell]:
    return {
        "short loader": Refused(ValueError, "samples of all 4 classes", lambda thing, folder: call(thing, iter(()))),
        "raising loader": Refused(OSError, "disk gone", lambda thing, folder: call(thing, counted(rows(), "raises"))),
        "changing loader": Refused(
            ValueError, "expected embed(images) of shape (N, 8)", lambda thing, folder: call(thing, counted(rows()))
        ),
    }


ENTRIES = [
    Entry(
        "MSACLLoss",
        make_loss,
        lambda thing: thing(rows(), rows().flip(0), labels(rows())).total.detach(),
        give=lambda thing, z: thing(z, z, labels(z)),
        right=rows,
        cells=LOOK
        | NO_LOADER
        | none("trains nothing on images", "one image")
        | {
            "empty batch": Refused(ValueError, "at least 2 images"),
            "B = 1": Refused(ValueError, "at least 2 images"),
            "meta device": Refused(ValueError, "criterion.to(device)"),
            "before fit": Refused(NotFittedError, "call fit_centres", unfitted),
            "other size": Refused(
                ValueError, "z_a of shape (N, 8)", lambda thing, folder: thing(*2 * [wider(rows())], labels(rows()))
            ),
            "misspelt option": misspelt(MSACLLoss),
            "out of range": Refused(ValueError, "expected", each_refused(MSACLLoss, *LOSS_OPTIONS)),
            "foreign file": Refused(
                RuntimeError,
                "Missing key(s)",
                lambda thing, folder: thing.load_state_dict(nn.Linear(8, 8).state_dict()),
            ),
        },
    ),
    Entry(
        "MSACLLoss.fit_centres",
        make_loss,
        lambda thing: thing.centres.clone(),
        give=lambda thing, z: thing.fit_centres(nn.Identity(), batches(z)).centres,
        right=rows,
        cells=CENTRE_CELLS
        | refused_loaders(lambda thing, loader: thing.fit_centres(nn.Identity(), loader))
        | {
            "one image": Refused(
                ValueError,
                "samples of all 4 classes",
                lambda thing, folder: thing.fit_centres(nn.Identity(), batches(rows(1))),
            ),
            "other size": Refused(
                ValueError,
                "centres of shape (4, 8)",
                lambda thing, folder: thing.fit_centres(nn.Identity(), batches(wider(rows()))),
            ),
            "misspelt option": Refused(
                TypeError, "unexpected keyword", lambda thing, folder: thing.fit_centres(nn.Identity(), [], optoin=1)
            ),
            "out of range": Refused(
                TypeError,
                "expected batches (images, labels)",
                lambda thing, folder: thing.fit_centres(nn.Identity(), rows()),
            ),
        },
    ),
    Entry(
        "estimate_centres",
        lambda: estimate_centres,
        lambda thing: thing(nn.Identity(), batches(rows()), num_classes=4),
        give=lambda thing, z: thing(nn.Identity(), batches(z), num_classes=4),
        right=rows,
        cells=CENTRE_CELLS
        | refused_loaders(lambda thing, loader: thing(nn.Identity(), loader, num_classes=4))
        | {
            "one image": Refused(
                ValueError,
                "samples of all 4 classes",
                lambda thing, folder: thing(nn.Identity(), batches(rows(1)), num_classes=4),
            ),
            "misspelt option": misspelt(estimate_centres),
            "out of range": Refused(
                TypeError,
                "expected embed as a function",
                each_refused(
                    estimate_centres,
                    {"embed": nn.Identity(), "batches": [], "num_classes": 0},
                    {"embed": 3, "batches": [], "num_classes": 4},
                ),
            ),
        },
    ),
    Entry(
        "calibrated_contrastive_loss",
        lambda: calibrated_contrastive_loss,
        lambda thing: thing(rows(), rows().flip(0), labels(rows()), CENTRES),
        give=lambda thing, z: thing(z, z, labels(z), CENTRES),
        right=rows,
        cells=LOOK
        | NO_LOADER
        | NOTHING_FITTED
        | {
            "empty batch": Refused(ValueError, "at least 2 images"),
            "B = 1": Refused(ValueError, "at least 2 images"),
            "meta device": Refused(ValueError, "on meta like the embeddings, got cpu"),
            "misspelt option": misspelt(calibrated_contrastive_loss),
            "out of range": Refused(
                ValueError,
                "finite eps >= 0",
                each_refused(
                    lambda **options: calibrated_contrastive_loss(rows(), rows(), labels(rows()), CENTRES, **options),
                    *LOSS_OPTIONS[:5],
                    {"implementation": "fast"},
                    {"gather_distributed": 1.5},
                    {"eps": -1},
                    {"eps": NAN},
                ),
            ),
        },
    ),
    loss_of(augmentation_loss),
    loss_of(position_loss),
    Entry(
        "centring_loss",
        lambda: centring_loss,
        lambda thing: thing(rows(), labels(rows()), CENTRES),
        give=lambda thing, z: thing(z, labels(z), CENTRES),
        right=rows,
        cells=LOOK
        | NO_LOADER
        | NOTHING_FITTED
        | ONE_ROW
        | none("has no options with a range", "out of range")
        | {
            "meta device": Refused(ValueError, "on meta like the embeddings, got cpu"),
            "misspelt option": misspelt(centring_loss),
        },
    ),
    Entry(
        "centre_distances",
        lambda: centre_distances,
        lambda thing: thing(rows()),
        give=lambda thing, z: thing(z),
        right=rows,
        cells=LOOK
        | NO_LOADER
        | NOTHING_FITTED
        | none("has no options", "out of range")
        | {
            "no batch": Refused(ValueError, "centres of shape (C, D)"),
            "5-D": Refused(ValueError, "centres of shape (C, D)"),
            "other size": Refused(ValueError, "centres of shape (C, D)"),
            "empty batch": Works("no distances", lambda out: out.shape == (0, 0)),
            "B = 1": Works("one zero", lambda out: out.tolist() == [[0.0]]),
            "meta device": Refused(ValueError, "which has none"),
            "misspelt option": misspelt(centre_distances),
        },
    ),
]
