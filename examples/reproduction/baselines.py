"""Scores without any learning: what a detector must beat before its figure means anything."""

import torch
import torch.nn.functional as F
from data import Dataset
from sklearn.covariance import LedoitWolf
from torch import Tensor


def trivial_scores(data: Dataset) -> dict[str, Tensor]:
    """Mean intensity and sharpness, either way round, and an 8 x 8 thumbnail's distance; one value per test image."""
    test = data.test.float() / 255
    bright, sharp = test.mean((1, 2, 3)), sharpness(test)
    return {
        "brightness": bright,
        "darkness": -bright,
        "sharpness": sharp,
        "blur": -sharp,
        "8 x 8 thumbnail Mahalanobis": thumbnail_distance(data.train.float() / 255, test),
    }


def sharpness(images: Tensor) -> Tensor:
    """Variance of the Laplacian of the grey image: (B, 3, H, W) -> (B,)."""
    laplacian = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]]).view(1, 1, 3, 3)
    return F.conv2d(images.mean(1, keepdim=True), laplacian).var((1, 2, 3))


def thumbnail_distance(train: Tensor, test: Tensor) -> Tensor:
    """Squared Mahalanobis distance of each test thumbnail to the healthy ones."""
    small = [F.interpolate(x, size=(8, 8), mode="area").flatten(1).numpy() for x in (train, test)]
    return torch.from_numpy(LedoitWolf().fit(small[0]).mahalanobis(small[1]))
