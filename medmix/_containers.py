"""What MedMix gives back, alone and in the pipelines of others."""

from typing import NamedTuple

import torch
from kornia.constants import DataKey
from torch import Tensor


class MedMixOutput(NamedTuple):
    """Augmented images (B, C, H, W), labels (B,) int64 = number of lesions, lesion masks (B, 1, H, W) bool."""

    images: Tensor
    labels: Tensor
    masks: Tensor


def join_masks(given: Tensor, lesions: Tensor) -> Tensor:
    """A given mask of 0 and 1, or bool, with the lesions OR-ed into it."""
    return given | lesions if given.dtype == torch.bool else torch.where(lesions, torch.ones_like(given), given)


def in_order(output: MedMixOutput, keys: list[DataKey]) -> Tensor | list[Tensor]:
    """Kornia's protocol: one output per data key, not in a list where it is alone."""
    outputs = [output.images if key == DataKey.INPUT else output.masks for key in keys]
    return outputs if len(outputs) > 1 else outputs[0]
