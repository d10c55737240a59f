"""Errors for input that cannot be meant: what was expected, what came, how to fix it."""

from collections.abc import Sequence
from numbers import Real

import torch
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


def check_batch(images: Tensor, mask: Tensor | None, foreground: Tensor | None) -> None:
    """Refuse images, or a mask or foreground, that MedMix cannot work on."""
    check_images(images)
    if mask is not None:
        check_container_mask(mask, images)
    if foreground is not None:
        check_mask(foreground, images.shape, images.device, "foreground")


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


def check_container_mask(mask: Tensor, images: Tensor) -> None:
    """Refuse a mask (B, C, H, W) that does not belong to the images."""
    if not isinstance(mask, Tensor):
        raise TypeError(f"expected the mask as a tensor (B, 1, H, W), got {type(mask).__name__}")
    if mask.dim() != 4 or mask.shape[0] != images.shape[0] or mask.shape[2:] != images.shape[2:]:
        raise ValueError(f"expected a mask (B, 1, H, W) for images {tuple(images.shape)}, got {tuple(mask.shape)}")
    if mask.device != images.device:
        raise ValueError(f"expected the mask on {images.device}, got {mask.device}: use mask.to(images.device)")


def check_params(params: dict[str, Tensor], images: Tensor, sides: Sequence[int], widths: dict[str, int]) -> None:
    """Refuse parameters that were not drawn for images of this shape, or by another MedMix.

    Args:
        params: Parameters to replay.
        images: (B, C, H, W).
        sides: The windows' sides that this MedMix works in.
        widths: How many numbers describe its lesions, by parameter.
    """
    if "forward_input_shape" not in params:
        raise ValueError(f"expected params of forward_parameters, got only {sorted(params)}: replay all of them")
    drawn = tuple(params["forward_input_shape"].tolist())
    if drawn != tuple(images.shape):
        raise ValueError(
            f"expected images {drawn}, for which the params were drawn, got {tuple(images.shape)}: "
            "replay on images of the same shape"
        )
    if params["window_sides"].tolist() != list(sides) or any(params[k].shape[-1] != n for k, n in widths.items()):
        raise ValueError(
            "expected params drawn by a MedMix of the same size, shape and nonlinear, got those of another: "
            "replay with the one that drew them, or with one of the same options"
        )


def check_inputs(inputs: Sequence[object], keys: Sequence[object], params: object, *drawing: object) -> None:
    """Refuse a number of inputs other than that of the data keys, and a replay that is asked to draw."""
    if len(inputs) != len(keys):
        raise TypeError(
            f"expected {len(keys)} positional input(s), one per data key, got {len(inputs)}: give params, foreground "
            'and generator by name, and a mask with data_keys=["input", "mask"]'
        )
    if params is not None and any(x is not None for x in drawing):
        raise ValueError("expected either params or foreground/generator, got both: a replay draws nothing")


def check_label(label: int, largest: int) -> None:
    """Refuse a class that an augmentation does not have."""
    if not 0 <= label <= largest:
        raise ValueError(
            f"expected a class in 0..{largest}, got {label}: use fewer classes, or a MedMix with that many num_lesions"
        )


def check_probability(p: float) -> None:
    """Refuse a probability outside [0, 1]."""
    if not isinstance(p, Real) or not 0 <= p <= 1:
        raise ValueError(f"expected a probability p in [0, 1], got {p!r}")
