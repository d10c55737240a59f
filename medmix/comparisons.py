"""The strong augmentations that the paper compares MedMix with (Fig. 6): four classes each, same use as MedMix."""

import torch
from torch import Tensor, nn

from medmix.checks import check_images, check_label
from medmix.lesions import share_out
from medmix.medmix import MedMix, MedMixOutput
from medmix.options import is_number

NUM_CLASSES = 4


class _Classes(nn.Module):
    """A strong augmentation whose classes differ in what is done to the whole image."""

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> MedMixOutput:
        """Give each image a class, evenly over the batch.

        Args:
            images: (B, C, H, W), floats in [0, 1].
            generator: Source of randomness; None is torch's global one.

        Returns:
            Images, labels (B,) int64 in 0..3 and masks (B, 1, H, W) bool of the changed pixels: all or none.
        """
        check_images(images)
        drawn_on = generator.device if generator is not None else images.device
        uniform, shift = (torch.rand(n, generator=generator, device=drawn_on) for n in (len(images), 1))
        labels = share_out(uniform, shift, NUM_CLASSES).to(images.device)
        classes = range(NUM_CLASSES)
        every = torch.stack([self.augment_as(images, n, generator=generator) for n in classes])  # (4, B, C, H, W)
        output = every[labels, torch.arange(len(images), device=images.device)]
        return MedMixOutput(output, labels, (labels > 0)[:, None, None, None].expand(-1, 1, *images.shape[2:]).clone())

    def augment_as(self, images: Tensor, label: int, generator: torch.Generator | None = None) -> Tensor:
        """Images (B, C, H, W) of class `label`."""
        raise NotImplementedError


class RotationClasses(_Classes):
    """Class n is the (square) image turned by n quarter turns."""

    def augment_as(self, images: Tensor, label: int, generator: torch.Generator | None = None) -> Tensor:
        """Images (B, C, S, S) turned by `label` quarter turns."""
        check_label(label, NUM_CLASSES - 1)
        if images.shape[2] != images.shape[3]:
            raise ValueError(f"expected square images to rotate, got {tuple(images.shape)}: resize or crop them first")
        return torch.rot90(images, label, dims=(2, 3))


class PermutationClasses(_Classes):
    """CCD's permutations: class n swaps the top and bottom halves if n // 2, the left and right ones if n % 2."""

    def augment_as(self, images: Tensor, label: int, generator: torch.Generator | None = None) -> Tensor:
        """Images (B, C, H, W) with their halves swapped."""
        check_label(label, NUM_CLASSES - 1)
        rows, columns = images.shape[2] // 2 * (label // 2), images.shape[3] // 2 * (label % 2)
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
        if not is_number(step) or step <= 0:
            raise ValueError(f"expected step as a standard deviation above 0, got {step!r}")
        self.step = step

    def augment_as(self, images: Tensor, label: int, generator: torch.Generator | None = None) -> Tensor:
        """Images (B, C, H, W) with noise of standard deviation `label` * step."""
        check_label(label, NUM_CLASSES - 1)
        if label == 0:
            return images.clone()
        drawn_on = generator.device if generator is not None else images.device
        noise = torch.randn(images.shape, generator=generator, device=drawn_on).to(images)
        return (images + label * self.step * noise).clamp(0, 1)

    def extra_repr(self) -> str:
        """The step, for `repr`."""
        return f"step={self.step}"


class CutMixClasses(MedMix):
    """Class n has n unaltered rectangles pasted from other images (CutMix / CutPaste boxes).

    Args:
        size: Smallest and largest diagonal of a rectangle as a fraction of the shorter image side.
    """

    def __init__(self, size: tuple[float, float] = (1 / 4, 1 / 2.3)) -> None:
        super().__init__(
            size=size,
            shape="rectangle",
            softness=0,
            color_jitter=(0, 0, 0, 0),
            noise=(0, 0),
            nonlinear=None,
        )
