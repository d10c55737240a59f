"""The answer of every detector."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class AnomalyPrediction(NamedTuple):
    """What a detector says about a batch; field names are anomalib's, scores are raw and higher = more anomalous.

    Attributes:
        pred_score: Image scores (B,).
        anomaly_map: Pixel scores (B, 1, H, W).
        pred_label: (B,) bool, True = anomalous; None until `set_threshold`.
        pred_mask: (B, 1, H, W) bool; None until `set_threshold`.
    """

    pred_score: Tensor
    anomaly_map: Tensor
    pred_label: Tensor | None = None
    pred_mask: Tensor | None = None


def quantile_of(parts: Sequence[Tensor], quantile: float) -> Tensor:
    """A quantile of the values of all these tensors, as a float32 number on their device."""
    values = torch.cat([part.float().cpu().flatten() for part in parts])
    return torch.tensor(np.quantile(values.numpy(), quantile), dtype=torch.float32, device=parts[0].device)
