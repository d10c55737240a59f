"""The weak augmentation A_0: random resized crop, flip, colour jitter and grayscale."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medmix._checks import check_images, check_jitter, check_probability, check_range
from medmix._random import drawing_device
from medmix.lesions.colour import jitter_colour

Params = dict[str, Tensor]
CACHED_VALUES = 2**21  # of the images that are worked on at once: 8 MB, measured


class WeakAugmentation(nn.Module):
    """Random resized crop, horizontal flip, colour jitter and grayscale: the weak augmentation A_0.

    Crop and flip are one bilinear resampling (without antialiasing: shrink images before, once and for all), jitter and
    grayscale one affine colour map per image. The map is clamped once, at the end, and its order is brightness,
    contrast, saturation, hue.

    Args:
        size: Output side, or (height, width), in pixels.
        scale: Smallest and largest area of the crop as a fraction of the image; a crop that sticks out is trimmed, so
            oblong images, in which no crop of that area and ratio fits, get smaller ones.
        ratio: Smallest and largest aspect ratio of the crop.
        flip_p: Probability of a horizontal flip.
        color_jitter: Brightness, contrast, saturation and hue strengths.
        jitter_p: Probability of the colour jitter.
        grayscale_p: Probability of a grey image (only with three channels).

    Raises:
        TypeError, ValueError: If an option is of the wrong type or out of range.

    Example:
        >>> WeakAugmentation(32)(torch.rand(4, 3, 64, 64)).shape
        torch.Size([4, 3, 32, 32])
    """

    def __init__(
        self,
        size: int | tuple[int, int],
        *,
        scale: tuple[float, float] = (0.8, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        flip_p: float = 0.5,
        color_jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1),
        jitter_p: float = 0.8,
        grayscale_p: float = 0.2,
    ) -> None:
        super().__init__()
        for p in (flip_p, jitter_p, grayscale_p):
            check_probability(p)
        check_range("scale", scale)
        if not 0 < scale[0] <= scale[1] <= 1:
            raise ValueError(f"expected 0 < smallest <= largest <= 1 in scale (crop area), got {scale}")
        check_range("ratio", ratio)
        if ratio[0] == 0:
            raise ValueError(f"expected 0 < smallest <= largest in ratio (crop width / height), got {ratio}")
        check_jitter(color_jitter)
        self.size = _height_and_width(size)
        self.scale = scale
        self.ratio = ratio
        self.flip_p = flip_p
        self.color_jitter = color_jitter
        self.jitter_p = jitter_p
        self.grayscale_p = grayscale_p

    def forward(
        self,
        images: Tensor,
        params: Params | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Augment images (B, C, H, W) in [0, 1] to (B, C, *size).

        Args:
            images: Images, floats in [0, 1].
            params: Parameters of `forward_parameters`, to replay them.
            generator: Source of randomness; None is torch's global one.

        Raises:
            TypeError, ValueError: If images are no such batch (values are looked at on the CPU only), or params were
                drawn for another number of images.
        """
        check_images(images)
        if params is None:
            params = self.forward_parameters(images.shape, generator=generator, device=images.device)
        crop = params["crop"]
        if len(crop) != len(images):
            raise ValueError(f"expected params for {len(images)} images, got those of {len(crop)}")
        if not fits_in_parts(images):
            return self._augment(images, params)
        views = images.new_empty(*images.shape[:2], *self.size)
        self.write_views(images, params, views)
        return views

    def write_views(
        self,
        images: Tensor,
        params: Params,
        views: Tensor,
    ) -> None:
        """Write views of images (B, C, H, W) into a tensor (B, C, *size), few at a time: what stays in the cache."""
        pixels = max(images[0].numel(), views[0].numel())
        step = max(1, CACHED_VALUES // pixels)
        for first in range(0, len(images), step):
            last = first + step
            some = {name: value[first:last] for name, value in params.items()}
            views[first:last] = self._augment(images[first:last], some)

    def _augment(self, images: Tensor, params: Params) -> Tensor:
        """Views of all images at once."""
        work = images.float() if images.dtype in (torch.float16, torch.bfloat16) else images
        grid = crop_grid(params["crop"].to(work.dtype), self.size)
        work = F.grid_sample(work, grid, padding_mode="border", align_corners=False)
        work = jitter_colour(work, self.color_jitter, params["colour"], params["grayscale"] > 0.5)
        return work.to(images.dtype)

    def forward_parameters(
        self,
        batch_shape: torch.Size | tuple[int, ...],
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
    ) -> Params:
        """Draw the crop as an affine map (B, 2, 3), the colour uniforms (B, 4) and the grayscale flags (B,)."""
        drawn_on = drawing_device(generator, device)
        batch, channels, image_height, image_width = batch_shape
        u = torch.rand((batch, 12), generator=generator, device=drawn_on).to(device or drawn_on)
        # the crop, in coordinates from -1 to 1, maps output to input: [[width, 0, x], [0, height, y]]
        height, width = _crop_size(u[:, 0], u[:, 1], self.scale, self.ratio, image_width / image_height)
        flip = torch.where(u[:, 2] < self.flip_p, -1.0, 1.0)
        shift_y = (1 - height) * (2 * u[:, 3] - 1)
        shift_x = (1 - width) * (2 * u[:, 4] - 1)
        zero = torch.zeros_like(flip)
        crop = torch.stack([width * flip, zero, shift_x, zero, height, shift_y], dim=1).view(-1, 2, 3)
        # an image that keeps its colours has the numbers that change nothing
        jittered = u[:, 5:6] < self.jitter_p
        colour = torch.where(jittered, u[:, 6:10], 0.5)
        grey = (u[:, 10] < self.grayscale_p).float() * (channels == 3)
        return {"crop": crop, "colour": colour, "grayscale": grey}

    def extra_repr(self) -> str:
        """All options, for `repr`."""
        names = ("size", "scale", "ratio", "flip_p", "color_jitter", "jitter_p", "grayscale_p")
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names)


def fits_in_parts(*batches: Tensor) -> bool:
    """Whether images can be augmented a few at a time: on a CPU, outside of autograd and the compiler."""
    if torch.compiler.is_compiling():
        return False
    on_cpu = all(images.device.type == "cpu" for images in batches)
    differentiable = torch.is_grad_enabled() and any(images.requires_grad for images in batches)
    return on_cpu and not differentiable


def _height_and_width(size: int | Sequence[int]) -> tuple[int, int]:
    """The output size from a side or (height, width)."""
    sides = tuple(size) if isinstance(size, Sequence) else (size, size)
    whole = all(isinstance(side, int) for side in sides)
    if len(sides) != 2 or not whole or min(sides) < 1:
        raise ValueError(f"expected size as a side or (height, width) in whole pixels >= 1, got {size!r}")
    return sides[0], sides[1]


def crop_grid(crop: Tensor, size: tuple[int, int]) -> Tensor:
    """Sampling grid (B, h, w, 2) of affine maps (B, 2, 3) that scale and shift, without affine_grid's products."""
    height, width = size
    rows = _pixel_centres(height, crop)
    columns = _pixel_centres(width, crop)
    y = crop[:, 1, 1, None] * rows + crop[:, 1, 2, None]  # (B, h)
    x = crop[:, 0, 0, None] * columns + crop[:, 0, 2, None]  # (B, w)
    every_y = y[:, :, None].expand(-1, height, width)
    every_x = x[:, None, :].expand(-1, height, width)
    return torch.stack([every_x, every_y], dim=-1)


def _pixel_centres(number: int, like: Tensor) -> Tensor:
    """The centres (N,) of so many pixels side by side, from -1 to 1."""
    steps = torch.arange(number, device=like.device, dtype=like.dtype)
    return (steps * 2 + 1) / number - 1


def _crop_size(
    area: Tensor,
    aspect: Tensor,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    image_aspect: float,
) -> tuple[Tensor, Tensor]:
    """Height and width of random crops as fractions of the image, from uniforms (B,); what sticks out is trimmed."""
    share = scale[0] + (scale[1] - scale[0]) * area
    # uniform in the logarithm: twice as wide is as likely as twice as high
    narrowest = math.log(ratio[0])
    widest = math.log(ratio[1])
    log_ratio = narrowest + (widest - narrowest) * aspect
    stretch = torch.exp(log_ratio) / image_aspect
    height = (share / stretch).sqrt()
    width = (share * stretch).sqrt()
    return height.clamp(max=1), width.clamp(max=1)
