"""The heads f_beta of equation (8) and f_gamma of equation (9), and how they see embeddings."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from msacl_loss.checks import check_whole
from msacl_loss.vectors import unit_vectors

NUM_POSITIONS = 8
PositionInput = Literal["difference", "concat"]


class ClassifierHeads(nn.Module):
    """The two classifiers of the pretext tasks; `MSACLLoss`, which has them, explains the arguments."""

    def __init__(
        self,
        embedding_dim: int,
        num_classes: int,
        augmentation_dim: int | None,
        position_input: PositionInput,
        normalize: bool,
    ) -> None:
        super().__init__()
        dimensions = {"embedding_dim": embedding_dim, "num_classes": num_classes}
        if augmentation_dim is not None:
            dimensions["augmentation_dim"] = augmentation_dim
        check_whole(**dimensions)
        self.augmentation_dim = augmentation_dim
        self.position_input = position_input
        self.normalize = normalize
        self.augmentation_head = nn.Linear(augmentation_dim or embedding_dim, num_classes)
        position_dim = 2 * embedding_dim if position_input == "concat" else embedding_dim
        self.position_head = nn.Sequential(
            nn.Linear(position_dim, embedding_dim),
            nn.ReLU(),
            nn.Linear(embedding_dim, NUM_POSITIONS),
        )

    def augmentation_logits(self, z: Tensor) -> Tensor:
        """f_beta of embeddings (of features, with `augmentation_dim`), before its softmax: (N, D) -> (N, C)."""
        seen = z if self.augmentation_dim else self._as_seen(z)
        return _in_weight_dtype(self.augmentation_head, seen)

    def position_logits(self, z_first: Tensor, z_second: Tensor) -> Tensor:
        """f_gamma of two patches' embeddings, before its softmax: (M, D), (M, D) -> (M, 8)."""
        first = self._as_seen(z_first)
        second = self._as_seen(z_second)
        if self.position_input == "concat":
            return _in_weight_dtype(self.position_head, torch.cat((first, second), dim=1))
        return _in_weight_dtype(self.position_head, first - second)

    def _as_seen(self, z: Tensor) -> Tensor:
        # Components of mean square 1 are what linear layers expect; on the unit sphere logits would be tiny.
        if not self.normalize:
            return z
        return unit_vectors(z) * math.sqrt(z.shape[1])


def _in_weight_dtype(head: nn.Module, z: Tensor) -> Tensor:
    """Run a head on embeddings of another precision."""
    dtype = next(head.parameters()).dtype
    logits: Tensor = head(z.to(dtype))
    return logits
