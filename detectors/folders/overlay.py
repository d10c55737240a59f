"""Heat maps as colours over an image."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from detectors.inputs import SLACK

Limits = tuple[float, float]

# Black, purple, red, orange, pale yellow: brighter is more anomalous, for the colour-blind, too.
_ANCHORS = (
    (0, 0, 4),
    (87, 16, 110),
    (188, 55, 84),
    (249, 142, 9),
    (252, 255, 164),
)


def map_limits(maps: Tensor, pixel_threshold: float | None = None) -> Limits:
    """Return the values that get no colour and full colour, the same for all images of a run.

    Args:
        maps: All anomaly maps (N, 1, h, w).
        pixel_threshold: Value above which a pixel counts as anomalous: it gets half of the colour, whatever the run
            holds, so that normal images do not light up. Without it the highest value gets full colour.

    Raises:
        TypeError: If the maps are no floating-point tensor.
        ValueError: If their shape is wrong, or they are not finite.
    """
    _check_maps(maps, 4)
    if pixel_threshold is not None and not math.isfinite(pixel_threshold):
        raise ValueError(f"expected a finite pixel_threshold or None, got {pixel_threshold}")
    low = float(maps.float().median())
    high = float(maps.max())
    if pixel_threshold is not None:
        high = low + 2 * (pixel_threshold - low)
    return low, max(high, low + 1e-12)


def heat_colours(anomaly_map: Tensor, limits: Limits) -> Tensor:
    """Return colour and opacity (4, h, w) in [0, 1] of a map (1, h, w): what is at the lower limit is clear."""
    low, high = limits
    above = anomaly_map[0].float() - low
    level = above / (high - low)
    level = level.clamp(0, 1)  # (h, w)

    # Each pixel lies between two anchors of the colour scale.
    anchors = level.new_tensor(_ANCHORS) / 255
    last = len(anchors) - 1
    place = level * last
    left = place.long().clamp(max=last - 1)
    share = place - left
    right = left + 1
    colours = torch.lerp(anchors[left], anchors[right], share[..., None])  # (h, w, 3)
    colours = colours.permute(2, 0, 1)

    opacity = level[None]
    return torch.cat([colours, opacity])


def overlay(image: Tensor, anomaly_map: Tensor, limits: Limits, opacity: float = 0.7) -> Tensor:
    """Lay a heat map over an image.

    Args:
        image: (1 or 3, H, W) in [0, 1].
        anomaly_map: (1, h, w), brought to the image's size.
        limits: Map values that get no colour and full colour, of `map_limits`.
        opacity: Of full colour, in [0, 1].

    Returns:
        The picture (3, H, W) in [0, 1].

    Raises:
        TypeError: If image or map is no floating-point tensor.
        ValueError: If a shape is wrong, the map is not finite or the image far outside [0, 1].

    Example:
        >>> overlay(torch.rand(1, 48, 64), torch.rand(1, 16, 16), (0.0, 1.0)).shape
        torch.Size([3, 48, 64])
    """
    check_picture(image)
    _check_maps(anomaly_map, 3)
    low, high = limits
    if not low < high or not 0 <= opacity <= 1:
        raise ValueError(f"expected limits (low, high) and an opacity in [0, 1], got {limits} and {opacity}")
    heat = heat_colours(anomaly_map, limits)
    size = (image.shape[1], image.shape[2])
    heat = F.interpolate(heat[None], size=size, mode="bilinear")[0]
    colours = heat[:3]
    weight = opacity * heat[3:]
    below = image.float().expand(3, -1, -1)
    picture = torch.lerp(below, colours, weight)
    return picture.clamp(0, 1)


def check_picture(image: Tensor) -> None:
    """Refuse what is no picture (1 or 3, H, W) in [0, 1], such as bytes, which would come out white."""
    if not isinstance(image, Tensor) or not image.is_floating_point():
        got = image.dtype if isinstance(image, Tensor) else type(image).__name__
        raise TypeError(f"expected an image of floats in [0, 1], got {got}: convert it, image.float() / 255")
    shape = tuple(image.shape)
    if len(shape) != 3 or shape[0] not in (1, 3) or 0 in shape:
        raise ValueError(f"expected an image (1 or 3, H, W), got {shape}: one image, channels first")
    if image.device.type == "meta":
        raise ValueError("expected an image with values, got a meta tensor, which has none")
    low, high = (float(value) for value in torch.aminmax(image))
    if not (low >= -SLACK and high <= 1 + SLACK):
        raise ValueError(f"expected an image in [0, 1], got values from {low:.4g} to {high:.4g}: divide bytes by 255")


def _check_maps(maps: Tensor, dimensions: int) -> None:
    """Refuse what are no finite maps of one channel."""
    if not isinstance(maps, Tensor) or not maps.is_floating_point():
        got = maps.dtype if isinstance(maps, Tensor) else type(maps).__name__
        raise TypeError(f"expected anomaly maps as a floating-point tensor, got {got}: take prediction.anomaly_map")
    shape = tuple(maps.shape)
    if len(shape) != dimensions or shape[-3] != 1 or 0 in shape:
        expected = "(N, 1, h, w)" if dimensions == 4 else "(1, h, w)"
        raise ValueError(f"expected anomaly maps of shape {expected}, got {shape}")
    if maps.device.type == "meta" or not bool(maps.isfinite().all()):
        raise ValueError("expected finite anomaly maps, got NaN, infinite or no values: check where they come from")
