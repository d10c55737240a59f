"""What comes in: batches of any loader, and the checks of their images."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

Shape = tuple[int, int, int]
SLACK = 0.5  # of a range: resampling overshoots, a wrong scale is much further out


class Batch(NamedTuple):
    """One batch of a loader: images, and what is known about them."""

    image: Any  # (B, C, H, W)
    label: Any = None  # (B,) 1 or True = anomalous
    mask: Any = None  # (B, 1, H, W) or (B, H, W), bool or 0-1


def unpack(batch: Any) -> Batch:
    """Read a batch: a tensor, an (image, label, mask) tuple or its beginning, a dict or an object with these names.

    Names are "image", "label" or "gt_label", "mask" or "gt_mask" (anomalib's batches fit).

    Raises:
        TypeError: If no images can be found in it.

    Example:
        >>> unpack((torch.rand(2, 3, 8, 8), torch.tensor([0, 1]))).label
        tensor([0, 1])
    """
    if isinstance(batch, Tensor):
        return Batch(batch)
    if isinstance(batch, Mapping):
        found = batch
    elif isinstance(batch, (tuple, list)) and len(batch) > 0:
        found = dict(zip(("image", "label", "mask"), batch, strict=False))
    else:
        known = ("image", "label", "mask", "gt_label", "gt_mask")
        found = {name: getattr(batch, name) for name in known if hasattr(batch, name)}
    if "image" not in found:
        names = sorted(map(str, found))
        having = f" with {names}" if names else ""
        raise TypeError(
            'expected a tensor, an (image, ...) tuple or a dict with "image" as batch, got '
            f"{type(batch).__name__}{having}"
        )
    label = found.get("gt_label", found.get("label"))
    mask = found.get("gt_mask", found.get("mask"))
    return Batch(found["image"], label, mask)


def check_images(
    images: Any, shape: Shape | None = None, *, finite: bool = True, device: torch.device | None = None
) -> None:
    """Refuse what is not a batch of floating-point images (B, C, H, W), of this shape (C, H, W) where it is given.

    Raises:
        TypeError: If it is not a floating-point tensor.
        ValueError: If the dimensions are wrong, it is not on this device where one is given, or values are missing or
            not finite; the message counts them.
    """
    if not isinstance(images, Tensor) or not images.is_floating_point():
        got = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(f"expected images as a floating-point tensor, got {got}: convert, e.g. images.float() / 255")
    if images.ndim != 4 or 0 in images.shape:
        raise ValueError(f"expected images of shape (B, C, H, W), none of them 0, got {tuple(images.shape)}")
    if shape is not None and tuple(images.shape[1:]) != shape:
        own_shape = tuple(images.shape[1:])
        is_last = own_shape == (*shape[1:], shape[0])
        hint = (
            "channels come second, x.permute(0, 3, 1, 2)" if is_last else "resize them, or fit a detector at this size"
        )
        raise ValueError(f"expected images (C, H, W) = {shape} as in training, got {own_shape}: {hint}")
    if device not in (None, images.device):
        raise ValueError(f"expected images on {device}, got {images.device}: move them, images.to({str(device)!r})")
    if not finite or torch.compiler.is_compiling():
        return
    if images.device.type == "meta":
        raise ValueError("expected images with values, got a meta tensor, which has none: make it on the CPU or a GPU")
    if not all_finite(images):
        nan = int(images.isnan().sum())
        infinite = int(images.isinf().sum())
        raise ValueError(f"expected finite images, got {nan} NaN and {infinite} infinite values: check their source")


def all_finite(values: Tensor) -> bool:
    """Whether no value is NaN or infinite: then their sum is neither, in one pass that writes nothing."""
    total = values.sum()
    if bool(total.isfinite()):
        return True
    each = values.isfinite()  # the sum of large numbers may overflow
    return bool(each.all())


def check_unit_range(images: Tensor) -> None:
    """Refuse images that were not scaled to [0, 1]; half of the range beyond it is left to resampling.

    Raises:
        ValueError: If a value is far outside.
    """
    if torch.compiler.is_compiling():
        return
    low, high = (float(value) for value in torch.aminmax(images.detach()))
    if low < -SLACK or high > 1 + SLACK:
        raise ValueError(
            f"expected images in [0, 1], which the backbone's normalisation takes, got values from {low:.4g} to "
            f"{high:.4g}: divide 8-bit values by 255, or pass normalize=None where they are normalised already"
        )


def check_span(images: Tensor, data_range: float) -> None:
    """Refuse images whose values lie much further apart than they are said to.

    Raises:
        ValueError: If they do.
    """
    if torch.compiler.is_compiling():
        return
    low, high = (float(value) for value in torch.aminmax(images.detach()))
    if high - low > (1 + SLACK) * data_range:
        raise ValueError(
            f"expected values at most data_range={data_range:g} apart, got {low:.4g} to {high:.4g}: divide 8-bit "
            "values by 255, or make the detector with the data_range of such images"
        )


def shape_of(values: Tensor) -> Shape:
    """Shape (C, H, W) of a batch."""
    return values.shape[1], values.shape[2], values.shape[3]


def with_progress(loader: Iterable[Any], description: str, progress: bool) -> Iterable[Any]:
    """The loader, under a bar where that is wanted; where tqdm is not installed, the description is printed instead."""
    if not progress:
        return loader
    try:
        from tqdm import tqdm  # type: ignore[import-untyped]
    except ImportError:
        print(description, flush=True)
        return loader
    bar: Iterable[Any] = tqdm(loader, desc=description, leave=False)
    return bar
