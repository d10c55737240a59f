"""What MedMix takes and gives back, alone and in the pipelines of others: kornia's protocol and torchvision's types."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from kornia.constants import DataKey
from torch import Tensor
from torchvision import tv_tensors


class MedMixOutput(NamedTuple):
    """Augmented images (B, C, H, W), labels (B,) int64 = number of lesions, lesion masks (B, 1, H, W) bool.

    Masks are `torchvision.tv_tensors.Mask`, and images `tv_tensors.Image` where they came as such, so that
    torchvision's v2 transforms act on both alike; both still are tensors.
    """

    images: Tensor
    labels: Tensor
    masks: Tensor

    def typed_as(self, images: Tensor) -> "MedMixOutput":
        """The output with the types that torchvision's v2 transforms go by; `images` are those that came."""
        return MedMixOutput(wrap_as(self.images, images), self.labels, tv_tensors.Mask(self.masks))


def plain(value: Tensor) -> Tensor:
    """The tensor without torchvision's type, which would slow every operation down; anything else stays."""
    return value.as_subclass(Tensor) if isinstance(value, tv_tensors.TVTensor) else value


def wrap_as(value: Tensor, like: Tensor) -> Tensor:
    """The tensor with torchvision's type of another, if that has one."""
    if not isinstance(like, tv_tensors.TVTensor):
        return value
    wrapped: Tensor = tv_tensors.wrap(value, like=like)
    return wrapped


def join_masks(given: Tensor, lesions: Tensor) -> Tensor:
    """A given mask with the lesions OR-ed into it, in its own foreground value.

    Args:
        given: (B, C, H, W) or (C, H, W): bool, or 0 and one positive value such as 1, 3 or 255; where it is empty, 1 is
            written.
        lesions: (B, 1, H, W) or (1, H, W) bool.

    Raises:
        ValueError: If a mask on the CPU holds other values. (On a GPU that look would make the host wait.)
    """
    if given.dtype == torch.bool:
        return given | lesions
    largest = given.amax()  # stays on the device
    if given.device.type == "cpu" and not ((given == 0) | (given == largest)).all():
        values = sorted(set(given.flatten().tolist()))[:5]
        raise ValueError(
            f"expected a mask of 0 and one positive value for lesions to be written in, got the values {values}: "
            "binarise it, mask > 0, and resample masks with mode='nearest'"
        )
    foreground = torch.where(largest > 0, largest, torch.ones_like(largest))
    return torch.where(lesions, foreground, given)


def in_order(
    output: MedMixOutput,
    keys: Sequence[DataKey],
    inputs: Sequence[Tensor],
) -> Tensor | list[Tensor]:
    """Kornia's protocol: one output per data key, of its input's type, not in a list where it is alone."""
    outputs = []
    for key, given in zip(keys, inputs, strict=True):
        value = output.images if key == DataKey.INPUT else output.masks
        outputs.append(wrap_as(value, given))
    return outputs if len(outputs) > 1 else outputs[0]
