"""Measure scores and maps that fit in memory: AUROC, AUPRO, Dice, IoU and the oracle's threshold."""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def auroc(scores: Array, labels: Array) -> float:
    """Area under the ROC curve, ties counted half (scikit-learn); NaN if there is one class only."""
    from sklearn.metrics import roc_auc_score  # half a second: not at `import detectors`

    labels = labels.reshape(-1)
    return float("nan") if labels.all() or not labels.any() else float(roc_auc_score(labels, scores.reshape(-1)))


def aupro(maps: Array, masks: Array, limit: float = 0.3) -> float:
    """Area under the per-region overlap curve up to a false-positive rate, divided by it; NaN without lesions.

    The overlap of a threshold is the mean, over the connected regions (8 neighbours) of all masks, of the share of the
    region above it (Bergmann et al., MVTec AD).

    Args:
        maps: Pixel scores (N, H, W).
        masks: True lesions (N, H, W), bool.
        limit: Largest false-positive rate, in (0, 1].

    Example:
        >>> masks = np.eye(4, dtype=bool)[None]
        >>> aupro(masks.astype(float), masks)
        1.0
    """
    if not masks.any() or masks.all():
        return float("nan")
    weights, regions = region_weights(masks)
    order = np.argsort(-maps, axis=None, kind="stable")
    ordered, lesion = maps.reshape(-1)[order], masks.reshape(-1)[order]
    last = np.append(ordered[1:] != ordered[:-1], True)  # of pixels of the same score
    normal = np.diff(np.cumsum(~lesion)[last], prepend=0)
    shares = np.cumsum(weights.reshape(-1)[order])[last] / regions
    return region_curve_area(normal, np.diff(shares, prepend=0.0), limit)


def region_curve_area(normal: Array, shares: Array, limit: float = 0.3) -> float:
    """Area under the per-region overlap curve up to a false-positive rate, divided by it; NaN without lesions.

    Args:
        normal: Number of normal pixels at each score, highest score first.
        shares: Mean over regions of their share at each score; they sum to 1.
        limit: Largest false-positive rate, in (0, 1].
    """
    if not shares.any() or not normal.any():
        return float("nan")
    rate = np.append(0.0, np.cumsum(normal) / normal.sum())
    share = np.append(0.0, np.cumsum(shares))
    end = int(np.searchsorted(rate, limit))  # first point at or beyond the limit; the curve may jump there
    slope = (share[end] - share[end - 1]) / (rate[end] - rate[end - 1])
    x = np.append(rate[:end], limit)
    y = np.append(share[:end], share[end - 1] + slope * (limit - rate[end - 1]))
    area = np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2)
    return float(min(area / limit, 1.0))


def region_weights(masks: Array) -> tuple[npt.NDArray[np.float64], int]:
    """For each pixel of a region (8 neighbours), 1 / its size; and the number of regions."""
    from scipy.ndimage import label  # type: ignore[import-untyped]

    weights = np.zeros(masks.shape)
    regions = 0
    for weight, mask in zip(weights, masks, strict=True):
        if not mask.any():
            continue
        numbers, count = label(mask, structure=np.ones((3, 3)))
        sizes = np.bincount(numbers.reshape(-1), minlength=count + 1)
        weight[mask] = 1 / sizes[numbers[mask]]
        regions += count
    return weights, regions


def overlap(maps: Array, masks: Array, threshold: float) -> dict[str, float]:
    """Dice and IoU of maps above a threshold with the masks: means over the images with a lesion, NaN without."""
    sick = masks.any((1, 2))
    found, true = maps[sick] > threshold, masks[sick]
    if not sick.any():
        return {"dice": float("nan"), "iou": float("nan")}
    return {"dice": float(dice(found, true).mean()), "iou": float(iou(found, true).mean())}


def dice(found: Array, true: Array) -> npt.NDArray[np.float64]:
    """Dice per image of two bool masks (N, H, W): 2 |A and B| / (|A| + |B|); 1 where both are empty."""
    both = (found & true).sum((1, 2))
    total = found.sum((1, 2)) + true.sum((1, 2))
    return np.where(total == 0, 1.0, 2 * both / np.maximum(total, 1))


def iou(found: Array, true: Array) -> npt.NDArray[np.float64]:
    """Intersection over union per image of two bool masks (N, H, W); 1 where both are empty."""
    both, either = (found & true).sum((1, 2)), (found | true).sum((1, 2))
    return np.where(either == 0, 1.0, both / np.maximum(either, 1))


def oracle_threshold(maps: Array, masks: Array) -> float:
    """The threshold with the highest Dice over all pixels pooled; it has seen the true masks. NaN without lesions."""
    from sklearn.metrics import precision_recall_curve

    if not masks.any():
        return float("nan")
    precision, recall, thresholds = precision_recall_curve(masks.reshape(-1), maps.reshape(-1))
    total = precision + recall
    scores = 2 * precision * recall / np.where(total > 0, total, 1)
    best = thresholds[int(np.argmax(scores[:-1]))]  # the last point finds nothing
    below = maps[maps < best]
    return float(below.max()) if below.size else float("-inf")  # pixels above the threshold count as found
