"""Views for contrastive learning: the weak augmentation A_0, and two weak views of each strong class (eq. 4)."""

import math
from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medmix.appearance import jitter_colour
from medmix.checks import check_images, check_probability
from medmix.options import check_jitter, check_range

Params = dict[str, Tensor]


class StrongAugmentation(Protocol):
    """What `MultiClassViews` asks of a strong augmentation: images of a given class."""

    def augment_as(self, images: Tensor, label: int, generator: torch.Generator | None = None) -> Tensor:
        """Images (B, C, H, W) of class `label`."""


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
        self.size = height_and_width(size)
        self.scale, self.ratio, self.flip_p = scale, ratio, flip_p
        self.color_jitter, self.jitter_p, self.grayscale_p = color_jitter, jitter_p, grayscale_p

    def forward(self, images: Tensor, params: Params | None = None, generator: torch.Generator | None = None) -> Tensor:
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
        if len(params["crop"]) != len(images):
            raise ValueError(f"expected params for {len(images)} images, got those of {len(params['crop'])}")
        work = images.float() if images.dtype in (torch.float16, torch.bfloat16) else images
        grid = crop_grid(params["crop"].to(work.dtype), self.size)
        work = F.grid_sample(work, grid, padding_mode="border", align_corners=False)
        return jitter_colour(work, self.color_jitter, params["colour"], params["grayscale"] > 0.5).to(images.dtype)

    def forward_parameters(
        self,
        batch_shape: torch.Size | tuple[int, ...],
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
    ) -> Params:
        """Draw the crop as an affine map (B, 2, 3), the colour uniforms (B, 4) and the grayscale flags (B,)."""
        drawn_on = generator.device if generator is not None else torch.device(device or "cpu")
        u = torch.rand((batch_shape[0], 12), generator=generator, device=drawn_on).to(device or drawn_on)
        height, width = crop_size(u[:, 0], u[:, 1], self.scale, self.ratio, batch_shape[3] / batch_shape[2])
        flip = torch.where(u[:, 2] < self.flip_p, -1.0, 1.0)
        zero = torch.zeros_like(flip)
        shift_y, shift_x = (1 - height) * (2 * u[:, 3] - 1), (1 - width) * (2 * u[:, 4] - 1)
        crop = torch.stack([width * flip, zero, shift_x, zero, height, shift_y], dim=1).view(-1, 2, 3)
        colour = torch.where(u[:, 5:6] < self.jitter_p, u[:, 6:10], torch.full_like(u[:, 6:10], 0.5))
        grey = (u[:, 10] < self.grayscale_p).float() * (batch_shape[1] == 3)
        return {"crop": crop, "colour": colour, "grayscale": grey}

    def extra_repr(self) -> str:
        """All options, for `repr`."""
        names = ("size", "scale", "ratio", "flip_p", "color_jitter", "jitter_p", "grayscale_p")
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names)


def height_and_width(size: int | Sequence[int]) -> tuple[int, int]:
    """The output size from a side or (height, width)."""
    sides = tuple(size) if isinstance(size, Sequence) else (size, size)
    if len(sides) != 2 or not all(isinstance(n, int) and n > 0 for n in sides):
        raise ValueError(f"expected size as a side or (height, width) in whole pixels >= 1, got {size!r}")
    return sides[0], sides[1]


def crop_grid(crop: Tensor, size: tuple[int, int]) -> Tensor:
    """Sampling grid (B, h, w, 2) of affine maps (B, 2, 3) that scale and shift, without affine_grid's products."""
    rows, columns = ((torch.arange(n, device=crop.device, dtype=crop.dtype) * 2 + 1) / n - 1 for n in size)
    y = crop[:, 1, 1, None] * rows + crop[:, 1, 2, None]  # (B, h)
    x = crop[:, 0, 0, None] * columns + crop[:, 0, 2, None]  # (B, w)
    shape = (-1, size[0], size[1])
    return torch.stack([x[:, None, :].expand(shape), y[:, :, None].expand(shape)], dim=-1)


def crop_size(
    area: Tensor, aspect: Tensor, scale: tuple[float, float], ratio: tuple[float, float], image_aspect: float
) -> tuple[Tensor, Tensor]:
    """Height and width of random crops as fractions of the image, from uniforms (B,); what sticks out is trimmed."""
    share = scale[0] + (scale[1] - scale[0]) * area
    log_ratio = math.log(ratio[0]) + (math.log(ratio[1]) - math.log(ratio[0])) * aspect
    stretch = torch.exp(log_ratio) / image_aspect
    return (share / stretch).sqrt().clamp(max=1), (share * stretch).sqrt().clamp(max=1)


class MultiClassViews(nn.Module):
    """Two weak views of every image under every strong class: x^(n, 0) and x^(n, 1) of equation (4).

    Lesions may lie anywhere in an image: crop the images to the anatomy before.

    Args:
        strong: The strong augmentation, `MedMix` or another with its `augment_as`; a class is built with its defaults.
        weak: The weak augmentation, called once per view on all strongly augmented images at once.
        num_classes: Number of strong classes C (0..C-1).

    Raises:
        ValueError: If `num_classes` is no whole number >= 1 or, at the call, more than the strong augmentation has.

    Example:
        >>> from medmix import MedMix
        >>> views = MultiClassViews(MedMix, WeakAugmentation(64), num_classes=4)
        >>> view_a, view_b, labels = views(torch.rand(2, 3, 64, 64))
        >>> view_a.shape, labels
        (torch.Size([8, 3, 64, 64]), tensor([0, 1, 2, 3, 0, 1, 2, 3]))
    """

    def __init__(
        self, strong: StrongAugmentation | type[StrongAugmentation], weak: WeakAugmentation, num_classes: int = 4
    ) -> None:
        super().__init__()
        if not isinstance(num_classes, int) or num_classes < 1:
            raise ValueError(f"expected at least one class as a whole number, got num_classes={num_classes!r}")
        self.strong = strong() if isinstance(strong, type) else strong
        self.weak = weak
        self.num_classes = num_classes

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Make the views of images (B, C, H, W) in [0, 1].

        Returns:
            First views and second views (B * classes, C, h, w), and labels (B * classes,) int64. Row i of both is one
            strongly augmented image; an image's classes stand next to each other.
        """
        check_images(images)
        per_class = [self.strong.augment_as(images, label, generator=generator) for label in range(self.num_classes)]
        strong = torch.stack(per_class, dim=1).flatten(0, 1)  # (B * classes, C, H, W)
        labels = torch.arange(self.num_classes, device=images.device).repeat(len(images))
        return self.weak(strong, generator=generator), self.weak(strong, generator=generator), labels

    def extra_repr(self) -> str:
        """The number of classes, for `repr`; the augmentations have lines of their own."""
        return f"num_classes={self.num_classes}"
