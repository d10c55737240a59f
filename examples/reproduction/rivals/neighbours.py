"""Nearest neighbours of frozen features, as bars: no rivals of the paper's, but readers ask.

`Neighbours`: mean distance of an image's pooled features to the nearest healthy ones.
`MemoryBank`: distance of each patch's features (layers 2 and 3, averaged over 3 x 3, joined) to the nearest healthy
patch, as PatchCore (Roth et al. 2022, arXiv 2106.08265) without its coreset (a random subset bounds the memory), the
weight on its image score and the blur of its maps.
"""

from collections.abc import Iterable
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detectors import AnomalyDetector, FeatureExtractor


class Neighbours(AnomalyDetector):
    """Mean distance of pooled features to the nearest healthy ones; the map is flat.

    Args:
        backbone: Maps images (B, 3, H, W) to pooled features (B, D).
        neighbours: How many to average over.
    """

    def __init__(self, backbone: nn.Module, neighbours: int = 5) -> None:
        super().__init__()
        self.backbone = backbone.eval()
        self.neighbours = neighbours
        self.register_late_buffer("bank")

    @torch.no_grad()
    def fit(self, loader: Iterable[Any]) -> Self:
        """Remember the features of healthy images."""
        features = []
        for images in self.batches(loader):
            features.append(self.backbone(images))
            self.remember_shape(images)
        self.bank = torch.cat(features)  # (N, D)
        return self.eval()

    def is_fitted(self) -> bool:
        """Whether `fit` has run."""
        return self.bank is not None

    def score(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean distance to the nearest neighbours."""
        score = self.distances(images).mean(1)
        return score, score[:, None, None, None].expand(-1, 1, *images.shape[2:])

    def distances(self, images: Tensor) -> Tensor:
        """Distances to the nearest neighbours, (B, neighbours)."""
        distances = torch.cdist(self.backbone(images), self.bank)  # (B, N)
        return distances.topk(self.neighbours, largest=False).values


class MemoryBank(AnomalyDetector):
    """Distance of each patch to the nearest healthy one; the image's score is the map's maximum.

    Args:
        backbone: A module with the layers.
        layers: The layers whose maps are joined.
        size: Most patches to remember.
        generator: Chooses them.
    """

    def __init__(
        self,
        backbone: nn.Module,
        layers: tuple[str, ...] = ("layer2", "layer3"),
        size: int = 10_000,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.extract = FeatureExtractor(backbone, layers)
        self.size = size
        self.generator = generator
        self.register_late_buffer("bank")

    @torch.no_grad()
    def fit(self, loader: Iterable[Any]) -> Self:
        """Remember patches of healthy images."""
        patches = []
        for images in self.batches(loader):
            patches.append(self._embedding(images).movedim(1, -1).flatten(0, 2))
            self.remember_shape(images)
        every = torch.cat(patches)  # (N h w, D)
        chosen = torch.randperm(len(every), generator=self.generator)[: self.size]
        self.bank = every[chosen.to(every.device)]
        return self.eval()

    def is_fitted(self) -> bool:
        """Whether `fit` has run."""
        return self.bank is not None

    def score(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Distances to the nearest patches, resized to the image."""
        embedding = self._embedding(images)  # (B, D, h, w)
        nearest = torch.cdist(embedding.movedim(1, -1).flatten(0, 2), self.bank).amin(1)
        distances = nearest.view(len(images), 1, *embedding.shape[2:])
        heat = F.interpolate(distances, images.shape[2:], mode="bilinear", align_corners=False)
        return distances.flatten(1).amax(1), heat

    def _embedding(self, images: Tensor) -> Tensor:
        """Maps of the layers, smoothed, on the finest grid and joined: (B, D, h, w)."""
        maps = [F.avg_pool2d(m, 3, stride=1, padding=1) for m in self.extract(images)]
        resized = [F.interpolate(m, maps[0].shape[2:], mode="bilinear", align_corners=False) for m in maps]
        return torch.cat(resized, dim=1)
