"""What MedMix's options may be, and the errors for everything else."""

import math
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any, get_args

from kornia.constants import DataKey

from medmix.appearance import Nonlinear
from medmix.blending import Blending
from medmix.checks import check_probability
from medmix.outlines import Shape
from medmix.warps import Deformation

OPTIONS = ("num_lesions", "size", "shape", "blending", "softness", "color_jitter", "noise", "nonlinear", "deformation")
DATA_KEYS = ({DataKey.INPUT}, {DataKey.INPUT, DataKey.MASK})


def check_options(**options: Any) -> None:
    """Refuse options that cannot be meant.

    Raises:
        TypeError, ValueError: If an option has the wrong type or is out of range.
    """
    check_probability(options["p"])
    lesion_numbers(options["num_lesions"])
    check_size(options["size"])
    check_jitter(options["color_jitter"])
    check_range("noise", options["noise"])
    for name, kind, absent in (
        ("shape", Shape, ()),
        ("blending", Blending, ()),
        ("nonlinear", Nonlinear, (None,)),
        ("deformation", Deformation, (None,)),
    ):
        allowed = (*get_args(kind), *absent)
        if options[name] not in allowed:
            raise ValueError(f"expected {name} to be one of {allowed}, got {options[name]!r}")
    if not (is_number(options["softness"]) and 0 <= options["softness"] <= 1):
        raise ValueError(f"expected softness in [0, 1], got {options['softness']!r}")
    if {DataKey.get(key) for key in options["data_keys"]} not in DATA_KEYS:
        raise ValueError(f"expected data_keys ['input'] or ['input', 'mask'], got {list(options['data_keys'])}")


def lesion_numbers(num_lesions: int | Sequence[int]) -> tuple[int, ...]:
    """The possible numbers of lesions; refuses anything but whole ones."""
    numbers = tuple(num_lesions) if isinstance(num_lesions, Iterable) else (num_lesions,)
    if not all(isinstance(n, int) and not isinstance(n, bool) for n in numbers):
        raise TypeError(f"expected num_lesions as an int or several, got {num_lesions!r}: convert with int()")
    if not numbers or min(numbers) < 0:
        raise ValueError(f"expected numbers of lesions >= 0, got num_lesions={num_lesions}")
    return numbers


def check_size(size: tuple[float, float]) -> None:
    """Refuse a size that is not a range of fractions."""
    check_range("size", size)
    if not 0 < size[0] <= size[1] <= 1:
        raise ValueError(
            f"expected 0 < smallest <= largest <= 1 in size (fractions of the shorter image side), got {size}: "
            "a lesion cannot be larger than the image"
        )


def check_jitter(strengths: Sequence[float]) -> None:
    """Refuse colour jitter other than four strengths in [0, 1], the hue's at most .5."""
    if not is_numbers(strengths, 4) or not all(0 <= s <= 1 for s in strengths):
        raise ValueError(
            f"expected color_jitter as (brightness, contrast, saturation, hue), all in [0, 1], got {strengths!r}"
        )
    if strengths[3] > 0.5:
        raise ValueError(f"expected a hue strength of at most .5 (half a turn) in color_jitter, got {strengths[3]}")


def check_range(name: str, values: Sequence[float]) -> None:
    """Refuse anything but two numbers, 0 <= smallest <= largest."""
    if not is_numbers(values, 2):
        raise TypeError(f"expected {name} as two numbers (smallest, largest), got {values!r}")
    if not 0 <= values[0] <= values[1]:
        raise ValueError(f"expected 0 <= smallest <= largest in {name}, got {values}")


def is_numbers(values: object, count: int) -> bool:
    """Whether this is a sequence of so many numbers."""
    return isinstance(values, Sequence) and len(values) == count and all(is_number(v) for v in values)


def is_number(value: object) -> bool:
    """Whether this is a number."""
    return isinstance(value, Real)


def check_room(slots: int, batch_shape: Sequence[int]) -> None:
    """Refuse images (B, C, H, W) in which that many lesions cannot stay apart."""
    if len(batch_shape) != 4:
        raise ValueError(f"expected batch_shape (B, C, H, W), got {tuple(batch_shape)}: give images.shape")
    height, width = batch_shape[2:]
    side = 3 * math.ceil(math.sqrt(slots))
    if min(height, width) < side:
        raise ValueError(
            f"expected images of at least {side} x {side} pixels for {slots} lesions, got {height} x {width}: "
            "use larger images or fewer lesions"
        )
