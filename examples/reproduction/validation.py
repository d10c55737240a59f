"""A test set made of training images alone, to choose settings without seeing a test image."""

import torch
from data import Dataset, draw_lesions

from medmix import MedMix


def held_out(data: Dataset, kind: str, seed: int) -> Dataset:
    """A validation set without any test image: each fifth training image, normal and with synthetic lesions."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.arange(len(data.train)) % 5 == 0
    normal = data.train[chosen]
    if kind == "drawn":
        sick, masks = draw_lesions(normal, generator)
    else:
        mixed = MedMix(num_lesions=(1, 2, 3))(normal.float() / 255, generator=generator)
        sick, masks = (mixed.images * 255).round().to(torch.uint8), mixed.masks
    labels = torch.arange(2).repeat_interleave(len(normal))
    return Dataset(
        data.train[~chosen], torch.cat([normal, sick]), labels, torch.cat([torch.zeros_like(masks), masks])
    )  # fmt: skip
