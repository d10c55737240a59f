"""PANDA: Reiss et al. 2021, "PANDA: Adapting pretrained features for anomaly detection and segmentation".

Pooled features of a pre-trained network are drawn towards their centre, L = mean |f(x) - c|^2 with c frozen before the
first step (their compactness loss), and the score is the mean squared distance to the nearest training features (2 of
them). The features would collapse in the end, so training stops early, for each sample on its own ("PANDA-SES"): the
score is the largest, over the checkpoints, of the sample's distance divided by that of the training images.

Published: ResNet152 whose first blocks stay frozen, in evaluation mode, SGD with lr 1e-2, momentum .9 and weight decay
5e-5, gradients clipped at 1e-3, batch 32. Changed: another backbone, 64 px, one checkpoint per epoch.
"""

import copy
from collections.abc import Iterable
from typing import Any, Self

import torch
from torch import Tensor, nn

from detectors import AnomalyDetector
from rivals.neighbours import Neighbours

NEIGHBOURS = 2
LARGEST_GRADIENT = 1e-3


class PANDA(AnomalyDetector):
    """Nearest neighbours of features that were drawn towards their centre.

    Args:
        backbone: Maps images (B, 3, H, W) to pooled features (B, D); copies of it are trained.
        trained: Names of the backbone's parts that are fine-tuned.
        epochs: Passes over the healthy images; a checkpoint after each.
        lr: Learning rate of SGD.

    Attributes:
        history: Mean loss of each epoch, for the training curve.
    """

    def __init__(
        self,
        backbone: nn.Module,
        trained: tuple[str, ...] = ("layer3", "layer4"),
        *,
        epochs: int = 5,
        lr: float = 1e-2,
    ) -> None:
        super().__init__()
        self.backbone = backbone.eval()
        self.trained = trained
        self.epochs = epochs
        self.lr = lr
        self.checkpoints = nn.ModuleList()
        self.typical: list[Tensor] = []  # mean squared distance of the training images at each checkpoint
        self.history: list[dict[str, float]] = []

    def fit(self, loader: Iterable[Any]) -> Self:
        """Draw the features of healthy images together, in evaluation mode: batch-norm stays as it is."""
        backbone = copy.deepcopy(self.backbone)
        self.checkpoints = nn.ModuleList()
        self.typical = []
        self.history = []
        self._remember(backbone, loader)
        centre = self.checkpoints[0].bank.mean(0)
        parameters = [p for name in self.trained for p in backbone.get_submodule(name).parameters()]
        optimiser = torch.optim.SGD(parameters, self.lr, momentum=0.9, weight_decay=5e-5)
        for _ in range(self.epochs):
            losses = []
            for images in self.batches(loader):
                loss = (backbone(images) - centre).square().sum(1).mean()
                optimiser.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(parameters, LARGEST_GRADIENT)
                optimiser.step()
                losses.append(loss.detach())
                self.remember_shape(images)
            self._remember(backbone, loader)
            self.history.append({"compactness": float(torch.stack(losses).mean())})
        return self.eval()

    def is_fitted(self) -> bool:
        """Whether `fit` has run."""
        return len(self.checkpoints) == self.epochs + 1

    def score(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The largest ratio of a sample's distance and the training images' over the checkpoints; the map is flat."""
        ratios = [
            checkpoint.distances(images).square().mean(1) / typical
            for checkpoint, typical in zip(self.checkpoints, self.typical, strict=True)
        ]
        score = torch.stack(ratios).amax(0)  # (epochs + 1, B) -> (B,)
        return score, score[:, None, None, None].expand(-1, 1, *images.shape[2:])

    def _remember(self, backbone: nn.Module, loader: Iterable[Any]) -> None:
        """Keep a copy of the backbone with its bank, and the training images' own mean squared distance."""
        checkpoint = Neighbours(copy.deepcopy(backbone), NEIGHBOURS).fit(loader)
        distances = torch.cdist(checkpoint.bank, checkpoint.bank)
        others = distances.topk(NEIGHBOURS + 1, largest=False).values[:, 1:]  # the nearest is the image itself
        self.checkpoints.append(checkpoint)
        self.typical.append(others.square().mean())
