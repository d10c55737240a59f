"""The strong augmentations that the paper compares MedMix with (Fig. 6): four classes each, same use as MedMix."""

import math

import torch
from torch import Tensor, nn

from medmix._checks import check_images, check_label, is_number
from medmix._containers import MedMixOutput, plain
from medmix._random import assign_classes, drawing_device, uniform_source
from medmix.medmix import MedMix

NUM_CLASSES = 4


class _Classes(nn.Module):
    """A strong augmentation whose classes differ in what is done to the whole image."""

    def forward(
        self,
        images: Tensor,
        generator: torch.Generator | None = None,
    ) -> MedMixOutput:
        """Give each image a class, evenly over the batch.

        Args:
            images: (B, C, H, W), floats in [0, 1].
            generator: Source of randomness; None is torch's global one.

        Returns:
            Images, labels (B,) int64 in 0..3 and masks (B, 1, H, W) bool of the changed pixels: all or none.
        """
        given = images
        images = plain(images)
        check_images(images)
        batch, _, height, width = images.shape
        uniform = uniform_source(generator, drawing_device(generator, images.device))
        labels = assign_classes(uniform(batch), uniform(1), NUM_CLASSES).to(images.device)
        # all classes of all images, of which each image keeps one: no look at the labels, which a GPU would wait for
        classes = [self.augment_as(images, label, generator=generator) for label in range(NUM_CLASSES)]
        row = torch.arange(batch, device=images.device)
        output = torch.stack(classes)[labels, row]  # (4, B, C, H, W) -> (B, C, H, W)
        changed = (labels > 0)[:, None, None, None]
        masks = changed.expand(-1, 1, height, width).clone()
        return MedMixOutput(output, labels, masks).typed_as(given)

    def augment_as(
        self,
        images: Tensor,
        label: int,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Images (B, C, H, W) of class `label`."""
        raise NotImplementedError


class RotationClasses(_Classes):
    """Class n is the (square) image turned by n quarter turns."""

    def augment_as(
        self,
        images: Tensor,
        label: int,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Images (B, C, S, S) turned by `label` quarter turns."""
        check_label(label, NUM_CLASSES - 1)
        if images.shape[2] != images.shape[3]:
            raise ValueError(f"expected square images to rotate, got {tuple(images.shape)}: resize or crop them first")
        return torch.rot90(images, label, dims=(2, 3))


class PermutationClasses(_Classes):
    """CCD's permutations: class n swaps the top and bottom halves if n // 2, the left and right ones if n % 2."""

    def augment_as(
        self,
        images: Tensor,
        label: int,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Images (B, C, H, W) with their halves swapped."""
        check_label(label, NUM_CLASSES - 1)
        height, width = images.shape[2:]
        rows = height // 2 * (label // 2)
        columns = width // 2 * (label % 2)
        return images.roll((rows, columns), dims=(2, 3))


class NoiseClasses(_Classes):
    """Class n has Gaussian noise of standard deviation n * step.

    Args:
        step: Standard deviation of class 1, on images in [0, 1].

    Raises:
        ValueError: If the step is not a positive number.
    """

    def __init__(self, step: float = 0.1) -> None:
        super().__init__()
        if not (is_number(step) and 0 < step < math.inf):
            raise ValueError(f"expected step as a standard deviation above 0, got {step!r}")
        self.step = step

    def augment_as(
        self,
        images: Tensor,
        label: int,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Images (B, C, H, W) with noise of standard deviation `label` * step."""
        check_label(label, NUM_CLASSES - 1)
        if label == 0:
            return images.clone()
        drawn_on = drawing_device(generator, images.device)
        noise = torch.randn(images.shape, generator=generator, device=drawn_on).to(images)
        std = label * self.step
        return (images + std * noise).clamp(0, 1)

    def extra_repr(self) -> str:
        """The step, for `repr`."""
        return f"step={self.step}"


def CutMixClasses(size: tuple[float, float] = (1 / 4, 1 / 2.3)) -> MedMix:  # noqa: N802 - named as the others are
    """Class n has n unaltered rectangles pasted from other images (CutMix / CutPaste boxes).

    It is a MedMix that alters nothing.

    Args:
        size: Smallest and largest diagonal of a rectangle as a fraction of the shorter image side.
    """
    return MedMix(
        size=size,
        shape="rectangle",
        softness=0,
        color_jitter=(0, 0, 0, 0),
        noise=(0, 0),
        nonlinear=None,
    )
