"""What the entry points of medmix do with bad input."""

import torch
from bad_cases import FILES, LOADERS, Cell, Entry, Refused, Works, each_refused, images, is_finite, misspelt
from bad_cases import no_meaning as none
from bad_cases import refused as refuse
from torch import Tensor

from medmix import (
    CutMixClasses,
    MedMix,
    MultiClassViews,
    NeighbourPatches,
    NoiseClasses,
    PermutationClasses,
    RandomNonlinearIntensity,
    RotationClasses,
    WeakAugmentation,
)

NAN = float("nan")


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def small_mask(rows: int = 16) -> Tensor:
    return torch.ones(4, 1, rows, rows, dtype=torch.bool)


# Every augmentation looks at its images in one way.
LOOK: dict[str, Cell] = {
    **refuse(TypeError, {"numpy": "torch.from_numpy(array)", "uint8": "x.float() / 255", "uint16": "x.float() / 255"}),
    **refuse(
        ValueError,
        {
            "0-255 floats": "divide 8-bit values by 255",
            "NaN": "got 1 NaN values",
            "Inf": "expected images in [0, 1]",
            "HWC": "x.permute(0, 3, 1, 2)",
            "no batch": "x[None]",
            "5-D": "merge the leading dimensions",
            "empty batch": "at least one image",
            "meta device": "which has none",
        },
    ),
    **none("is not fitted", "before fit", "one image"),
    **none("reads no file", *FILES),
    **none("takes a batch, no loader", *LOADERS),
}
NO_MASK = none("takes no mask", "mask shape")
ANY_SIZE = Works("each batch has its own size", is_finite)
CONSTANT = Works("finite", is_finite)

MEDMIX_OPTIONS = (
    {"p": 2}, {"p": NAN}, {"size": (0.5, 1.5)}, {"size": (NAN, NAN)}, {"num_lesions": -1}, {"shape": "star"},
    {"blending": "soft"}, {"softness": NAN}, {"color_jitter": (NAN, 0, 0, 0)}, {"noise": (0, float("inf"))},
    {"nonlinear": "gamma"}, {"inversion": 2}, {"deformation": "twirl"}, {"data_keys": ["bbox"]},
)  # fmt: skip
WEAK_OPTIONS = (
    {"size": 0}, {"size": 16.0}, {"scale": (0, 1)}, {"scale": (NAN, 1)}, {"ratio": (0, 1)}, {"flip_p": 2},
    {"color_jitter": (0, NAN, 0, 0)}, {"jitter_p": -1}, {"grayscale_p": NAN},
)  # fmt: skip


def classes(name: str, make, *options: dict) -> Entry:
    """One of the strong augmentations for comparison."""
    range_cell = each_refused(make, *options) if options else None
    rotation = make is RotationClasses
    turned = Refused(ValueError, "expected square images", lambda thing, folder: thing(images()[:, :, :20]))
    return Entry(
        name,
        make,
        lambda thing: thing(images(), generator=seeded())[0],
        give=lambda thing, x: thing(x, generator=seeded()),
        cells=LOOK
        | NO_MASK
        | {
            "B = 1": Works("one image of a random class", is_finite),
            "constant": CONSTANT,
            "other size": turned if rotation else ANY_SIZE,
            "misspelt option": misspelt(make),
        }
        | (
            {"out of range": Refused(ValueError, "expected", range_cell)}
            if range_cell
            else none("has no options", "out of range")
        ),
    )


ENTRIES = [
    Entry(
        "MedMix",
        lambda: MedMix((0, 1)),
        lambda thing: thing(images(), generator=seeded())[0],
        give=lambda thing, x: thing(x, generator=seeded()),
        cells=LOOK
        | {
            "B = 1": Works("lesions from the image's own patches", is_finite),
            "mask shape": Refused(
                ValueError,
                "one channel, the images' size",
                lambda thing, folder: thing(images(), foreground=small_mask()),
            ),
            "constant": CONSTANT,
            "other size": Refused(
                ValueError,
                "expected images (4, 3, 48, 48)",
                lambda thing, folder: thing(images(), params=thing.forward_parameters((4, 3, 48, 48))),
            ),
            "misspelt option": misspelt(MedMix),
            "out of range": Refused(ValueError, "expected", each_refused(MedMix, *MEDMIX_OPTIONS)),
        },
    ),
    Entry(
        "MultiClassViews",
        lambda: MultiClassViews(MedMix((0, 1)), WeakAugmentation(16), num_classes=2),
        lambda thing: thing(images(), generator=seeded())[0],
        give=lambda thing, x: thing(x, generator=seeded()),
        cells=LOOK
        | {
            "B = 1": Works("two views of each class", lambda out: out[2].tolist() == [0, 1]),
            "mask shape": Refused(
                ValueError,
                "one channel, the images' size",
                lambda thing, folder: thing(images(), foreground=small_mask()),
            ),
            "constant": CONSTANT,
            "other size": ANY_SIZE,
            "misspelt option": misspelt(MultiClassViews),
            "out of range": Refused(
                ValueError,
                "at least one class",
                each_refused(
                    MultiClassViews,
                    {"strong": 1, "weak": WeakAugmentation(16)},
                    {"strong": MedMix, "weak": 1},
                    {"strong": MedMix, "weak": WeakAugmentation(16), "num_classes": 0},
                ),
            ),
        },
    ),
    Entry(
        "WeakAugmentation",
        lambda: WeakAugmentation(16),
        lambda thing: thing(images(), generator=seeded()),
        give=lambda thing, x: thing(x, generator=seeded()),
        cells=LOOK
        | NO_MASK
        | {
            "B = 1": Works("one view", lambda out: out.shape == (1, 3, 16, 16)),
            "constant": CONSTANT,
            "other size": Works("views of the same size", lambda out: out.shape == (4, 3, 16, 16)),
            "misspelt option": misspelt(WeakAugmentation),
            "out of range": Refused(
                ValueError,
                "expected",
                each_refused(lambda **o: WeakAugmentation(**{"size": 16} | o), *WEAK_OPTIONS),
            ),
        },
    ),
    Entry(
        "NeighbourPatches",
        lambda: NeighbourPatches(8),
        lambda thing: thing(images(), generator=seeded())[0],
        give=lambda thing, x: thing(x, generator=seeded()),
        cells=LOOK
        | NO_MASK
        | {
            "B = 1": Works("one pair", lambda out: out[0].shape == (1, 3, 8, 8)),
            "constant": CONSTANT,
            "other size": Refused(
                ValueError, "use a smaller patch_size", lambda thing, folder: thing(images(4, side=10))
            ),
            "misspelt option": misspelt(NeighbourPatches),
            "out of range": Refused(
                ValueError,
                "at least 2 whole pixels",
                each_refused(NeighbourPatches, {"patch_size": 8.0}, {"patch_size": 1}),
            ),
        },
    ),
    Entry(
        "RandomNonlinearIntensity",
        RandomNonlinearIntensity,
        lambda thing: thing(images()) * 0,
        give=lambda thing, x: thing(x),
        cells=LOOK
        | NO_MASK
        | {
            "no batch": Works("kornia's way: (1, C, H, W) comes out", lambda out: out.shape == (1, 3, 32, 32)),
            "5-D": Refused(ValueError, "(C, H, W)"),
            "B = 1": Works("one image", is_finite),
            "constant": CONSTANT,
            "other size": ANY_SIZE,
            "misspelt option": misspelt(RandomNonlinearIntensity),
            "out of range": Refused(
                ValueError,
                "expected",
                each_refused(RandomNonlinearIntensity, {"curve": "a"}, {"invert_p": NAN}, {"p": 2}),
            ),
        },
    ),
    classes("RotationClasses", RotationClasses),
    classes("PermutationClasses", PermutationClasses),
    classes("NoiseClasses", NoiseClasses, {"step": 0}, {"step": float("inf")}, {"step": NAN}),
    classes("CutMixClasses", CutMixClasses, {"size": (0.5, 0.1)}, {"size": (NAN, 1)}, {"size": (0.5, 2)}),
]
