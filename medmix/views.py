"""Views for contrastive learning: two weak views of each image under each strong class, equation (4)."""

import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from medmix._checks import check_images, check_mask
from medmix._containers import plain
from medmix.weak import WeakAugmentation, fits_in_parts

WeakView = WeakAugmentation | Callable[[Tensor], Tensor]


class StrongAugmentation(Protocol):
    """What `MultiClassViews` asks of a strong augmentation: images of a given class."""

    def augment_as(
        self,
        images: Tensor,
        label: int,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Images (B, C, H, W) of class `label`; with an argument `foreground`, it can be told where lesions may lie."""


class MultiClassViews(nn.Module):
    """Two weak views of every image under every strong class: x^(n, 0) and x^(n, 1) of equation (4).

    Args:
        strong: The strong augmentation, `MedMix` or another with its `augment_as`; a class or function is called
            without arguments to build one.
        weak: The weak augmentation, called once per view on all strongly augmented images at once: `WeakAugmentation`,
            a kornia augmentation, or any function from images (N, C, H, W) to images. A torchvision v2 transform draws
            once for a whole batch and is therefore called image by image.
        num_classes: Number of strong classes C (0..C-1).

    Raises:
        TypeError: If `strong` has no `augment_as`, or `weak` cannot be called.
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
        weak: WeakView,
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
        if not callable(weak):
            raise TypeError(f"expected weak as a function of images (N, C, H, W), got {type(weak).__name__}")
        self.strong: StrongAugmentation = built
        self.weak = weak
        self.num_classes = num_classes

    def forward(
        self,
        images: Tensor,
        generator: torch.Generator | None = None,
        foreground: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Make the views of images (B, C, H, W) in [0, 1].

        Args:
            images: Images, floats in [0, 1].
            generator: Source of randomness; None is torch's global one. A weak augmentation that takes no `generator`
                is called with torch's global generator seeded from it; its state is restored afterwards.
            foreground: (B, 1, H, W) bool, the anatomy: lesions stay inside.

        Returns:
            First views and second views (B * classes, C, h, w), and labels (B * classes,) int64. Row i of both is one
            strongly augmented image; an image's classes stand next to each other.

        Raises:
            TypeError: If there is a foreground and `strong.augment_as` takes none, or `weak` gives no tensor.
            ValueError: If a foreground has no room for the lesions of every class: a class would not hold its number.
        """
        images = plain(images)
        check_images(images)
        strong = self._strong_images(images, generator, foreground)
        labels = torch.arange(self.num_classes, device=images.device).repeat(len(images))
        if isinstance(self.weak, WeakAugmentation) and fits_in_parts(*strong):
            for one in strong:
                check_images(one)
            view_a = _views_of_classes(strong, self.weak, generator)
            view_b = _views_of_classes(strong, self.weak, generator)
        else:
            together = torch.stack(strong, dim=1).flatten(0, 1)  # (B * classes, C, H, W)
            view_a = self._weak_view(together, generator)
            view_b = self._weak_view(together, generator)
        return view_a, view_b, labels

    def _strong_images(
        self,
        images: Tensor,
        generator: torch.Generator | None,
        foreground: Tensor | None,
    ) -> list[Tensor]:
        """The images (B, C, H, W) of each class."""
        options: dict[str, Any] = {"generator": generator}
        if foreground is not None:
            check_mask(foreground, images.shape, images.device, "foreground")
            if "foreground" not in inspect.signature(self.strong.augment_as).parameters:
                kind = type(self.strong).__name__
                raise TypeError(f"expected a strong augmentation that takes a foreground, got {kind}: use MedMix")
            options["foreground"] = foreground
        return [self.strong.augment_as(images, label, **options) for label in range(self.num_classes)]

    def _weak_view(
        self,
        images: Tensor,
        generator: torch.Generator | None,
    ) -> Tensor:
        """One weak view of each image."""
        if generator is None:
            view = self._call_weak(images)
        elif "generator" in inspect.signature(self._weak_function).parameters:
            view = self.weak(images, generator=generator)  # type: ignore[call-arg]
        else:
            seed = torch.randint(2**62, (), generator=generator, device=generator.device)
            with torch.random.fork_rng():
                torch.manual_seed(int(seed))
                view = self._call_weak(images)
        if not isinstance(view, Tensor) or len(view) != len(images):
            got = tuple(view.shape) if isinstance(view, Tensor) else type(view).__name__
            raise TypeError(f"expected weak to give one view per image, a tensor ({len(images)}, C, h, w), got {got}")
        return plain(view)

    @property
    def _weak_function(self) -> Callable[..., Tensor]:
        """What a call of the weak augmentation runs."""
        return self.weak.forward if isinstance(self.weak, nn.Module) else self.weak

    def _call_weak(self, images: Tensor) -> Tensor:
        """Views drawn for each image on its own."""
        if isinstance(self.weak, v2.Transform):
            return torch.stack([self.weak(image) for image in images])
        return self.weak(images)

    def extra_repr(self) -> str:
        """The number of classes, for `repr`; the augmentations have lines of their own."""
        return f"num_classes={self.num_classes}"


def _views_of_classes(
    strong: list[Tensor],
    weak: WeakAugmentation,
    generator: torch.Generator | None,
) -> Tensor:
    """One weak view (B * classes, C, h, w) of each image of each class, written straight to its place.

    The numbers are drawn for all of them together, as `weak` itself would.
    """
    batch, channels, height, width = strong[0].shape
    classes = len(strong)
    device = strong[0].device
    params = weak.forward_parameters((batch * classes, channels, height, width), generator, device)
    views = strong[0].new_empty(batch, classes, channels, *weak.size)
    for label, images in enumerate(strong):
        own = {name: value[label::classes] for name, value in params.items()}
        weak.write_views(images, own, views[:, label])
    return views.flatten(0, 1)
