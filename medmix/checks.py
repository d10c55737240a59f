"""Errors for input that cannot be meant: what was expected, what came, how to fix it."""

from collections.abc import Sequence
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
    if not isinstance(images, Tensor):
        raise TypeError(
            f"expected a torch.Tensor (B, C, H, W), got {type(images).__name__}: "
            "convert arrays with torch.from_numpy(array).permute(0, 3, 1, 2).float() / 255"
        )
    if not images.is_floating_point():
        raise TypeError(f"expected floating-point images in [0, 1], got {images.dtype}: convert with x.float() / 255")
    if images.dim() != 4:
        hint = "add the batch dimension with x[None]" if images.dim() == 3 else "merge the leading dimensions"
        raise ValueError(f"expected images (B, C, H, W), got shape {tuple(images.shape)}: {hint}")
    if 0 in images.shape:
        raise ValueError(f"expected at least one image and pixel, got shape {tuple(images.shape)}")
    if images.shape[3] in (1, 3) and images.shape[1] > 4:
        raise ValueError(f"expected (B, C, H, W), got {tuple(images.shape)}, channels last: use x.permute(0, 3, 1, 2)")
    if images.device.type == "cpu" and not torch.compiler.is_compiling():
        check_values(images)


def check_values(images: Tensor) -> None:
    """Refuse NaN and values outside [0, 1] by more than rounding."""
    low, high = torch.aminmax(images.detach())
    if not (low >= -1e-3 and high <= 1 + 1e-3):  # also false for NaN
        if torch.isnan(low):
            raise ValueError(f"expected finite images, got {int(images.isnan().sum())} NaN values: remove them first")
        raise ValueError(
            f"expected images in [0, 1], got values from {float(low):.4g} to {float(high):.4g}: "
            "divide 8-bit values by 255, and normalise after augmentation"
        )


def check_mask(mask: Tensor, images_shape: torch.Size, device: torch.device, name: str) -> None:
    """Refuse a mask that is not (B, 1, H, W) bool on the images' device."""
    expected = (images_shape[0], 1, *images_shape[2:])
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        kind = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"expected {name} as a bool tensor {expected}, got {kind}: convert with {name} > 0.5")
    if tuple(mask.shape) != expected:
        raise ValueError(f"expected {name} of shape {expected}, got {tuple(mask.shape)}: one channel, the images' size")
    if mask.device != device:
        raise ValueError(f"expected {name} on {device}, got {mask.device}: move it with {name}.to(images.device)")


def check_container_mask(mask: Tensor, shape: torch.Size, device: torch.device | None = None) -> None:
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


def check_label(label: int, largest: int, more: str = "") -> None:
    """Refuse a class that an augmentation does not have; `more` says how it gets more of them."""
    if not 0 <= label <= largest:
        raise ValueError(f"expected a class in 0..{largest}, got {label}: use fewer classes{more}")


def check_probability(p: float) -> None:
    """Refuse a probability outside [0, 1]."""
    if not isinstance(p, Real) or not 0 <= p <= 1:
        raise ValueError(f"expected a probability p in [0, 1], got {p!r}")
