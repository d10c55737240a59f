"""The answer of every detector."""

from typing import NamedTuple

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
