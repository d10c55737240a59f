"""Checks of what comes in; those that read values can be switched off, since on an accelerator they wait for it."""

import math
from numbers import Integral
from typing import Literal

import torch
from torch import Tensor

Validate = bool | Literal["auto"]
NORM_SLACK = 1e-3  # rounding of a mean of unit vectors, in half precision too


class NotFittedError(RuntimeError, ValueError, AttributeError):
    """The class centres were never set. Like scikit-learn's, also a ValueError and an AttributeError."""


def check_contrastive_options(temperature: float, alpha: float, positive: str, implementation: str) -> None:
    """Refuse options under which equation (5) has no meaning."""
    if not 0 < temperature < math.inf:
        raise ValueError(f"expected a finite temperature > 0, got {temperature}")
    if not 1 <= alpha < math.inf:
        raise ValueError(
            f"expected alpha >= 1, got {alpha}: below 1 samples of one class would repel each other more than those of "
            "different classes, and the literal equation (5) would repel the positive pair itself"
        )
    if positive not in ("paper", "nll", "decoupled"):
        raise ValueError(f"expected positive to be 'paper', 'nll' or 'decoupled', got {positive!r}")
    if implementation not in ("auto", "dense", "streaming"):
        raise ValueError(f"expected implementation to be 'auto', 'dense' or 'streaming', got {implementation!r}")


def check_whole(**options: int) -> None:
    """Check for whole numbers from 1 on."""
    for name, value in options.items():
        if not isinstance(value, Integral) or value < 1:
            raise ValueError(f"expected {name} as a whole number >= 1, got {value!r}")


def check_loss_options(gather_distributed: object, validate: object, position_input: object, normalize: object) -> None:
    """Refuse unknown values of the module's own options."""
    check_switch("gather_distributed", gather_distributed)
    check_switch("validate", validate)
    if position_input not in ("difference", "concat"):
        raise ValueError(f"expected position_input to be 'difference' or 'concat', got {position_input!r}")
    if not isinstance(normalize, bool):
        raise ValueError(f"expected normalize to be True or False, got {normalize!r}")


def check_switch(name: str, value: object) -> None:
    """Check for a switch that may be left to the library."""
    if not isinstance(value, bool) and value != "auto":
        raise ValueError(f"expected {name} to be True, False or 'auto', got {value!r}")


def check_centres(centres: Tensor) -> None:
    """Check for a floating tensor (C, D)."""
    if not isinstance(centres, Tensor):
        raise TypeError(f"expected centres to be a tensor, got {type(centres).__name__}")
    if not centres.is_floating_point():
        raise TypeError(f"expected centres to be floating, got {centres.dtype}: convert them with .float()")
    if centres.dim() != 2:
        raise ValueError(f"expected centres of shape (C, D), got {tuple(centres.shape)}")


def check_inside_sphere(centres: Tensor) -> None:
    """Refuse centres that cannot be means of unit vectors."""
    longest = centres.double().norm(dim=1).max().item()
    if longest > 1 + NORM_SLACK:
        raise ValueError(
            f"expected centres of norm <= 1, means of unit vectors, got one of norm {longest:.3g}: estimate them with "
            "fit_centres, or with estimate_centres(..., normalize=True), or make the loss with normalize=False"
        )


def check_views(
    z_a: Tensor, z_b: Tensor, labels: Tensor, centres: Tensor, *, validate: Validate, smallest: int
) -> None:
    """Check two views of each image, their classes and the centres."""
    check_centres(centres)
    check_embeddings("z_a", z_a, dim=centres.shape[-1])
    check_embeddings("z_b", z_b, dim=centres.shape[-1])
    if z_a.shape != z_b.shape:
        raise ValueError(f"expected both views in one shape, got z_a {tuple(z_a.shape)} and z_b {tuple(z_b.shape)}")
    check_classes("labels", labels, len(z_a))
    for name, tensor in (("z_b", z_b), ("labels", labels), ("centres", centres)):
        check_device(name, tensor, z_a)
    if len(z_a) < smallest:
        raise ValueError(
            f"expected at least {smallest} images (rows of z_a), got {len(z_a)}: there is nothing to contrast with"
        )
    if checks_values(validate, z_a):
        check_finite("z_a", z_a)
        check_finite("z_b", z_b)
        check_finite("centres", centres)
        check_range("labels", labels, len(centres))


def check_patch_pairs(patch_pairs: tuple[Tensor, Tensor, Tensor], dim: int, validate: Validate) -> None:
    """Check embeddings of two patches and their relative position."""
    if not (isinstance(patch_pairs, tuple) and len(patch_pairs) == 3):
        raise TypeError("expected patch_pairs to be a tuple (z_first, z_second, position)")
    z_first, z_second, position = patch_pairs
    check_embeddings("z_first", z_first, dim=dim)
    check_embeddings("z_second", z_second, dim=dim)
    if z_first.shape != z_second.shape:
        raise ValueError(
            f"expected both patches in one shape, got z_first {tuple(z_first.shape)} and z_second "
            f"{tuple(z_second.shape)}"
        )
    check_classes("position", position, len(z_first))
    check_device("z_second", z_second, z_first)
    check_device("position", position, z_first)
    if len(position) == 0:
        raise ValueError("expected at least one patch pair, got none: pass patch_pairs=None to leave the term out")
    if checks_values(validate, z_first):
        check_finite("z_first", z_first)
        check_finite("z_second", z_second)
        check_range("position", position, 8)


def check_features(
    features: tuple[Tensor, Tensor] | None,
    dim: int | None,
    count: int,
    validate: Validate,
) -> None:
    """Check what the augmentation head sees in place of the embeddings."""
    if (features is None) != (dim is None):
        raise ValueError(
            "expected features=(features_a, features_b) exactly when augmentation_dim is given; got "
            f"augmentation_dim={dim} and {'no ' if features is None else ''}features"
        )
    if features is None or dim is None:
        return
    if not (isinstance(features, tuple) and len(features) == 2):
        raise TypeError("expected features to be a tuple (features_a, features_b)")
    for name, feature in zip(("features[0]", "features[1]"), features, strict=True):
        check_embeddings(name, feature, dim=dim)
        if len(feature) != count:
            raise ValueError(f"expected {name} of {count} rows like the embeddings, got {len(feature)}")
        if checks_values(validate, feature):
            check_finite(name, feature)


def check_rows(
    name: str,
    rows: Tensor,
    classes_name: str,
    classes: Tensor,
    *,
    count: int,
    validate: Validate,
) -> None:
    """Check the rows of one term, at least one, and their classes in 0..count-1."""
    check_embeddings(name, rows)
    check_classes(classes_name, classes, len(rows))
    check_device(classes_name, classes, rows)
    if len(rows) == 0:
        raise ValueError(f"expected at least one row of {name}, got none: the mean of nothing is no number")
    if checks_values(validate, rows):
        check_finite(name, rows)
        check_range(classes_name, classes, count)


def check_device(name: str, tensor: Tensor, like: Tensor) -> None:
    """Check that a tensor is where the embeddings are."""
    if tensor.device != like.device:
        raise ValueError(
            f"expected {name} on {like.device} like the embeddings, got {tensor.device}: move it, or all of the loss "
            "with criterion.to(device)"
        )


def check_embeddings(name: str, z: Tensor, *, dim: int | None = None) -> None:
    """Check for a floating tensor (N, dim), of any dim where that is None."""
    if not isinstance(z, Tensor):
        raise TypeError(f"expected {name} to be a tensor, got {type(z).__name__}")
    if not z.is_floating_point():
        raise TypeError(f"expected {name} to be floating, got {z.dtype}: convert it with .float()")
    if z.dim() != 2 or dim not in (None, z.shape[1]):
        raise ValueError(
            f"expected {name} of shape (N, {'D' if dim is None else dim}), got {tuple(z.shape)}: one embedding a row"
        )


def check_classes(name: str, classes: Tensor, count: int) -> None:
    """Check for an int64 tensor (count,)."""
    if not isinstance(classes, Tensor):
        raise TypeError(f"expected {name} to be a tensor, got {type(classes).__name__}")
    if classes.dtype != torch.int64:
        raise TypeError(f"expected {name} to be int64, got {classes.dtype}: convert it with .long()")
    if classes.shape != (count,):
        raise ValueError(f"expected {name} of shape ({count},), one for each embedding, got {tuple(classes.shape)}")


def checks_values(validate: Validate, z: Tensor) -> bool:
    """Whether to check values too."""
    if validate == "auto":
        return z.device.type == "cpu" and not torch.compiler.is_compiling()
    return bool(validate)


def check_finite(name: str, z: Tensor) -> None:
    """Check that there is no NaN or infinity."""
    if z.is_meta:
        raise ValueError(f"expected {name} with values, got a meta tensor, which has none: compute it on a CPU or GPU")
    if not z.sum().isfinite() and not z.isfinite().all():  # one sum is the cheap way to see that all is well
        bad = (~z.isfinite()).any(dim=1).nonzero().flatten().tolist()
        raise ValueError(f"expected finite {name}, got NaN or infinity in rows {bad[:10]}: lower the learning rate?")


def check_range(name: str, classes: Tensor, count: int) -> None:
    """Check that all classes lie in 0..count-1."""
    if classes.numel() and not 0 <= classes.min() <= classes.max() < count:
        low = classes.min().item()
        high = classes.max().item()
        raise ValueError(f"expected {name} in 0..{count - 1}, got {low}..{high}")
