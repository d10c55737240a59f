"""The recipe of a pre-training and, as changes to it, the rows of the comparison.

The self-supervised rivals of Fig. 6 are rows, too: NT-Xent is equation (5) with alpha = 1 and zero centres.

simclr (Chen et al. 2020, 2002.05709): NT-Xent over two weak views of each image. Published: tau .1 to .5, colour
    jitter, crops of 8 to 100 % of the area, batches of 4,096 images, LARS.
rotnet (Golan and El-Yaniv 2018, 1805.10917): cross-entropy, equation (8), on transformations. Published: 72 of them,
    a WideResNet from scratch, a Dirichlet score of its own; here the four rotations, and our detectors.
csi (Tack et al. 2020, 2007.08176): NT-Xent in which each rotated copy is an instance of its own, and cross-entropy
    on the rotation. Published: tau .5, batches of 32 images, 1,000 epochs, LARS, a score of its own.
droc (Sohn et al. 2021, 2011.02578): NT-Xent over rotated copies without the class term. Published: tau .2, ResNet18
    from scratch, 2,048 epochs, SGD .01, weight decay 3e-4; a KDE and a linear OC-SVM on pooled features, here the
    detectors "kde" and "ocsvm".

Changed in all: images of 64 px, a start from ImageNet, number of steps and weak views of MSACL, tau .2, and MSACL's
learning rates times a factor that `search.py` finds for each.
"""

from dataclasses import dataclass, replace
from typing import Literal

from networks.encoders import Init
from torch import Tensor

from medmix import CutMixClasses, MedMix, NoiseClasses, PermutationClasses, RotationClasses

STEPS = 200
Strong = Literal["medmix", "permutation", "rotation", "cutmix", "noise"]


@dataclass(frozen=True)
class Recipe:
    """How an encoder is pre-trained. The defaults are MSACL for a start from ImageNet."""

    strong: Strong = "medmix"
    """Strong augmentation whose classes are learnt."""
    num_classes: int = 4
    """Classes of the strong augmentation; 1 leaves its first, which changes nothing."""
    lesion_min: float = 1 / 4
    """Smallest diameter of a lesion, as a share of the image side."""
    lesion_max: float = 1 / 2.3
    """Largest diameter of a lesion."""
    inversion: float = 0.5
    """Share of MedMix's lesions whose intensity curve is inverted."""
    crop_min: float = 0.8
    """Smallest area of the weak random crop."""
    centred: bool = True
    """Whether embeddings are centred by their class mean, equation (2); otherwise the centres are 0."""
    alpha: float = 2.0
    """Factor on the temperature within a class, equation (7); 1 leaves the calibration out."""
    temperature: float = 0.2
    """Temperature tau of equation (7)."""
    weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 0.0)
    """Weights of the terms (3), (5), (8) and (9) in equation (1)."""
    features: Literal["auto", "adapt", "keep"] = "auto"
    """What becomes of the start's features. "adapt" trains all layers, with the batch's statistics and colour changes
    in the weak views; "keep" leaves batch-norm, the layers up to layer2 and the colours as they are; "auto" keeps them
    where images have colours and the start is ImageNet."""
    adapt_lr: float = 0.03
    """Learning rate of the backbone where all its layers are trained."""
    keep_lr: float = 0.01
    """Learning rate of the layers behind layer2 where only they are trained."""
    projection_lr: float = 0.03
    """Learning rate of the projection."""
    heads_lr: float = 0.03
    """Learning rate of the loss's heads f_beta and f_gamma."""
    rates: tuple[float, float] = (1.0, 1.0)
    """Factors on these learning rates where all layers are trained, and where the late ones are: a row's own, as
    `search.py` finds them."""
    epochs: int | None = None
    """Passes over the healthy images; None makes about 200 steps of them."""
    batch_size: int = 16
    """Images in a batch; each gives 2 * num_classes views."""


_CCD = Recipe(strong="permutation", centred=False, alpha=1.0, weights=(0.0, 1.0, 1.0, 0.0))
_ROTATION = replace(_CCD, strong="rotation")

ROWS: dict[str, Recipe] = {
    "msacl": Recipe(),
    "ccd": replace(_CCD, rates=(0.3, 0.3)),  # Table 3, first row
    "ccd+medmix": replace(_CCD, strong="medmix"),
    "msacl-no-kappa": Recipe(alpha=1.0),  # MedMix and the MSACL loss without equation (7)
    "msacl-rotation": Recipe(strong="rotation"),  # Fig. 6, left
    "msacl-permutation": Recipe(strong="permutation"),
    "msacl-cutmix": Recipe(strong="cutmix"),
    "msacl-noise": Recipe(strong="noise"),
    # Fig. 6, right
    "simclr": replace(_CCD, num_classes=1, weights=(0.0, 1.0, 0.0, 0.0), batch_size=64, rates=(0.3, 0.3)),
    "rotnet": replace(_ROTATION, weights=(0.0, 0.0, 1.0, 0.0), rates=(1.0, 0.3)),
    "csi": _ROTATION,
    "droc": replace(_ROTATION, weights=(0.0, 1.0, 0.0, 0.0), rates=(1.0, 0.3)),
}
START_ROWS = ("start", "start-calibrated")  # no training; the second one ends with the calibration of all others


def recipe_for(row: str, base: Recipe, num_images: int, steps: int = STEPS) -> Recipe:
    """A row's recipe with what `base` changes in the defaults of MSACL, and with its number of epochs.

    Args:
        row: Name of the row.
        base: Recipe whose changes take the place of the row's.
        num_images: Healthy images to train on.
        steps: Steps of 16 images that the epochs make where none are set.

    Raises:
        ValueError: If there is no such row, or a number is too small.
    """
    if row not in ROWS:
        raise ValueError(f"expected a row of {', '.join([*START_ROWS, *ROWS])}, got {row!r}")
    if base.batch_size < 1 or (base.epochs is not None and base.epochs < 1):
        raise ValueError("expected --epochs and --batch-size of at least 1")
    if not min(base.rates) > 0:
        raise ValueError(f"expected --rates above 0, got {base.rates[0]} and {base.rates[1]}")
    recipe = replace(ROWS[row], **changes(base))
    if recipe.epochs is not None:
        return recipe
    steps_per_epoch = max(1, num_images // recipe.batch_size)
    return replace(recipe, epochs=max(1, round(steps / steps_per_epoch)))


def changes(options: object) -> dict[str, object]:
    """The fields in which a recipe, or another dataclass of options, differs from its defaults."""
    default = vars(type(options)())
    return {name: value for name, value in vars(options).items() if value != default[name]}


def strong_augmentation(recipe: Recipe) -> MedMix | PermutationClasses | RotationClasses | NoiseClasses:
    """Build the strong augmentation that a recipe names."""
    size = (recipe.lesion_min, recipe.lesion_max)
    if recipe.strong == "medmix":
        return MedMix(size=size, inversion=recipe.inversion)
    if recipe.strong == "cutmix":
        return CutMixClasses(size=size)
    others = {"permutation": PermutationClasses, "rotation": RotationClasses, "noise": NoiseClasses}
    return others[recipe.strong]()


def adapts(recipe: Recipe, images: Tensor, init: Init) -> bool:
    """Whether all layers are trained on these images (N, 3, S, S), uint8, rather than the late ones.

    ImageNet's first layers know colours and textures of photographs: they serve endoscopy as they are and are lost when
    trained, while grey scans of another kind of light need new ones.
    """
    if recipe.features != "auto":
        return recipe.features == "adapt"
    is_grey = (images[:, 0] == images[:, 1]).all() and (images[:, 1] == images[:, 2]).all()
    return init == "random" or bool(is_grey)
