"""Views for contrastive learning: two weak views of each image under each strong class, equation (4)."""

from collections.abc import Callable
from types import FunctionType
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from medmix._checks import check_images
from medmix.weak import WeakAugmentation


class StrongAugmentation(Protocol):
    """What `MultiClassViews` asks of a strong augmentation: images of a given class."""

    def augment_as(self, images: Tensor, label: int, generator: torch.Generator | None = None) -> Tensor:
        """Images (B, C, H, W) of class `label`."""


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
        self,
        strong: StrongAugmentation | Callable[[], StrongAugmentation],
        weak: WeakAugmentation,
        num_classes: int = 4,
    ) -> None:
        super().__init__()
        if not isinstance(num_classes, int) or num_classes < 1:
            raise ValueError(f"expected at least one class as a whole number, got num_classes={num_classes!r}")
        built: Any = strong() if isinstance(strong, type | FunctionType) else strong
        if not callable(getattr(built, "augment_as", None)):
            raise TypeError(
                f"expected strong with a method augment_as(images, label, generator=None), got {type(built).__name__}: "
                "use MedMix or one of the comparisons, or give your augmentation that method"
            )
        self.strong: StrongAugmentation = built
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
