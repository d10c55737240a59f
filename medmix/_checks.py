"""Checks of input and options; an error says what was expected, what came and how to fix it."""

import math
from collections.abc import Iterable, Sequence
from numbers import Real

import torch
from kornia.constants import DataKey
from torch import Tensor


def check_images(images: Tensor) -> None:
    """Refuse anything but a floating-point batch (B, C, H, W); on the CPU also values outside [0, 1].

    Raises:
        TypeError: If it is no floating-point tensor.
        ValueError: If the shape is wrong or, on the CPU, a value is not in [0, 1]. (On a GPU that look would make the
            host wait.)
    """
    check_tensor(images)
    shape = tuple(images.shape)
    if len(shape) != 4:
        hint = "add the batch dimension with x[None]" if len(shape) == 3 else "merge the leading dimensions"
        raise ValueError(f"expected images (B, C, H, W), got shape {shape}: {hint}")
    if 0 in shape:
        raise ValueError(f"expected at least one image and pixel, got shape {shape}")
    if shape[3] in (1, 3) and shape[1] > 4:
        raise ValueError(f"expected (B, C, H, W), got {shape}, channels last: use x.permute(0, 3, 1, 2)")
    if images.device.type == "cpu" and not torch.compiler.is_compiling():
        check_values(images)


def check_tensor(images: Tensor) -> None:
    """Refuse anything but a floating-point tensor with values."""
    if not isinstance(images, Tensor):
        kind = type(images).__name__
        raise TypeError(
            f"expected a torch.Tensor (B, C, H, W), got {kind}: "
            "convert arrays with torch.from_numpy(array).permute(0, 3, 1, 2).float() / 255"
        )
    if not images.is_floating_point():
        raise TypeError(f"expected floating-point images in [0, 1], got {images.dtype}: convert with x.float() / 255")
    if images.device.type == "meta":
        raise ValueError("expected images with values, got a meta tensor, which has none: make it on the CPU or a GPU")


def check_values(images: Tensor) -> None:
    """Refuse NaN and values outside [0, 1] by more than rounding."""
    low, high = torch.aminmax(images.detach())
    if torch.isnan(low):
        number = int(images.isnan().sum())
        raise ValueError(f"expected finite images, got {number} NaN values: remove them first")
    if low < -1e-3 or high > 1 + 1e-3:
        raise ValueError(
            f"expected images in [0, 1], got values from {float(low):.4g} to {float(high):.4g}: "
            "divide 8-bit values by 255, and normalise after augmentation"
        )


def check_mask(
    mask: Tensor,
    images_shape: torch.Size,
    device: torch.device,
    name: str,
) -> None:
    """Refuse a mask that is not (B, 1, H, W) bool on the images' device."""
    expected = (images_shape[0], 1, *images_shape[2:])
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        kind = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"expected {name} as a bool tensor {expected}, got {kind}: convert with {name} > 0.5")
    shape = tuple(mask.shape)
    if shape != expected:
        raise ValueError(f"expected {name} of shape {expected}, got {shape}: one channel, the images' size")
    if mask.device != device:
        raise ValueError(f"expected {name} on {device}, got {mask.device}: move it with {name}.to(images.device)")


def check_container_mask(
    mask: Tensor,
    shape: torch.Size,
    device: torch.device | None = None,
) -> None:
    """Refuse a mask (B, C, H, W) that does not belong to images of this shape and, if given, device."""
    if not isinstance(mask, Tensor):
        raise TypeError(f"expected the mask as a tensor (B, 1, H, W), got {type(mask).__name__}")
    if mask.dim() != 4 or mask.shape[0] != shape[0] or mask.shape[2:] != shape[2:]:
        raise ValueError(f"expected a mask (B, 1, H, W) for images {tuple(shape)}, got {tuple(mask.shape)}")
    if device is not None and mask.device != device:
        raise ValueError(f"expected the mask on {device}, got {mask.device}: use mask.to(images.device)")


def check_inputs(inputs: Sequence[object], keys: Sequence[DataKey], params: object, *drawing: object) -> None:
    """Refuse inputs that do not match the data keys, other data keys, and a replay that is asked to draw."""
    if not {DataKey.INPUT, DataKey.MASK}.issuperset(keys):
        names = [key.name.lower() for key in keys]
        raise ValueError(f"expected data_keys of 'input' and 'mask', got {names}: lesions change nothing else")
    if DataKey.INPUT not in keys and params is None:
        raise ValueError("expected params with data_keys ['mask'], got None: a mask alone can only be replayed")
    if len(inputs) != len(keys):
        raise TypeError(
            f"expected {len(keys)} positional input(s), one per data key, got {len(inputs)}: give params, foreground "
            'and generator by name, and a mask with data_keys=["input", "mask"]'
        )
    if params is not None and any(x is not None for x in drawing):
        raise ValueError("expected either params or foreground/generator, got both: a replay draws nothing")


def check_label(
    label: int,
    largest: int,
    more: str = "",
) -> None:
    """Refuse a class that an augmentation does not have; `more` says how it gets more of them."""
    if not 0 <= label <= largest:
        raise ValueError(f"expected a class in 0..{largest}, got {label}: use fewer classes{more}")


def check_probability(p: float, name: str = "p") -> None:
    """Refuse a probability outside [0, 1]."""
    if not isinstance(p, Real) or not 0 <= p <= 1:
        raise ValueError(f"expected a probability {name} in [0, 1], got {p!r}")


def check_choice(
    name: str,
    value: object,
    allowed: Sequence[object],
) -> None:
    """Refuse an option that is none of the allowed ones."""
    if value not in allowed:
        raise ValueError(f"expected {name} to be one of {allowed}, got {value!r}")


def check_softness(softness: float) -> None:
    """Refuse a softness outside [0, 1]."""
    if not (is_number(softness) and 0 <= softness <= 1):
        raise ValueError(f"expected softness in [0, 1], got {softness!r}")


def check_data_keys(data_keys: Sequence[str]) -> None:
    """Refuse data keys that a MedMix cannot have for good."""
    keys = {DataKey.get(key) for key in data_keys}
    if keys not in ({DataKey.INPUT}, {DataKey.INPUT, DataKey.MASK}):
        raise ValueError(f"expected data_keys ['input'] or ['input', 'mask'], got {list(data_keys)}")


def lesion_numbers(num_lesions: int | Sequence[int]) -> tuple[int, ...]:
    """The possible numbers of lesions; refuses anything but whole ones."""
    numbers = tuple(num_lesions) if isinstance(num_lesions, Iterable) else (num_lesions,)
    if any(type(number) is bool or not isinstance(number, int) for number in numbers):
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
    if not is_numbers(strengths, 4) or not all(0 <= strength <= 1 for strength in strengths):
        raise ValueError(
            f"expected color_jitter as (brightness, contrast, saturation, hue), all in [0, 1], got {strengths!r}"
        )
    if strengths[3] > 0.5:
        raise ValueError(f"expected a hue strength of at most .5 (half a turn) in color_jitter, got {strengths[3]}")


def check_range(name: str, values: Sequence[float]) -> None:
    """Refuse anything but two finite numbers, 0 <= smallest <= largest."""
    if not is_numbers(values, 2):
        raise TypeError(f"expected {name} as two numbers (smallest, largest), got {values!r}")
    if not 0 <= values[0] <= values[1] < math.inf:
        raise ValueError(f"expected 0 <= smallest <= largest in {name}, got {values}")


def is_numbers(values: object, count: int) -> bool:
    """Whether this is a sequence of so many numbers."""
    if not isinstance(values, Sequence) or len(values) != count:
        return False
    return all(is_number(value) for value in values)


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
