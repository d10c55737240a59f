"""Measure scores and maps that fit in memory: AUROC, AUPRO, Dice, IoU and the oracle's threshold."""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
NAN = float("nan")  # of what is not defined
EIGHT_NEIGHBOURS = np.ones((3, 3))


def auroc(scores: Array, labels: Array) -> float:
    """Area under the ROC curve, ties counted half (scikit-learn); NaN if there is one class only."""
    from sklearn.metrics import roc_auc_score  # half a second: not at `import detectors`

    labels = labels.reshape(-1)
    if labels.all() or not labels.any():
        return NAN
    area = roc_auc_score(labels, scores.reshape(-1))
    return float(area)


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
        return NAN
    weights, regions = region_weights(masks)
    # Highest score first.
    order = np.argsort(-maps, axis=None, kind="stable")
    ordered = maps.reshape(-1)[order]
    lesion = masks.reshape(-1)[order]
    weight = weights.reshape(-1)[order]
    # Pixels of the same score are found together: the curve has a point at the last of them.
    changes = ordered[1:] != ordered[:-1]
    last = np.append(changes, True)
    normal = np.cumsum(~lesion)[last]
    found_regions = np.cumsum(weight)[last]
    shares = found_regions / regions
    normal_each = np.diff(normal, prepend=0)
    shares_each = np.diff(shares, prepend=0.0)
    return region_curve_area(normal_each, shares_each, limit)


def region_curve_area(normal: Array, shares: Array, limit: float = 0.3) -> float:
    """Area under the per-region overlap curve up to a false-positive rate, divided by it; NaN without lesions.

    Args:
        normal: Number of normal pixels at each score, highest score first.
        shares: Mean over regions of their share at each score; they sum to 1.
        limit: Largest false-positive rate, in (0, 1].
    """
    if not shares.any() or not normal.any():
        return NAN
    rates = np.cumsum(normal) / normal.sum()
    rate = np.append(0.0, rates)
    share = np.append(0.0, np.cumsum(shares))
    # The curve is cut at the limit, between the last point before it and the first at or beyond it.
    end = int(np.searchsorted(rate, limit))
    before = end - 1
    rise = share[end] - share[before]
    slope = rise / (rate[end] - rate[before])
    to_limit = limit - rate[before]
    share_at_limit = share[before] + slope * to_limit
    x = np.append(rate[:end], limit)
    y = np.append(share[:end], share_at_limit)
    # The trapezoidal rule.
    sums_of_sides = y[1:] + y[:-1]
    area = np.sum(np.diff(x) * sums_of_sides / 2)
    return float(min(area / limit, 1.0))


def region_weights(masks: Array) -> tuple[npt.NDArray[np.float64], int]:
    """For each pixel of a region (8 neighbours), 1 / its size; and the number of regions."""
    from scipy.ndimage import label  # type: ignore[import-untyped]

    weights = np.zeros(masks.shape)
    regions = 0
    for weight, mask in zip(weights, masks, strict=True):
        if not mask.any():
            continue
        numbers, count = label(mask, structure=EIGHT_NEIGHBOURS)
        sizes = np.bincount(numbers.reshape(-1), minlength=count + 1)
        own_number = numbers[mask]
        own_size = sizes[own_number]
        weight[mask] = 1 / own_size
        regions += count
    return weights, regions


def overlap(maps: Array, masks: Array, threshold: float) -> dict[str, float]:
    """Dice and IoU of maps above a threshold with the masks: means over the images with a lesion, NaN without."""
    with_lesion = masks.any((1, 2))
    if not with_lesion.any():
        return {"dice": NAN, "iou": NAN}
    found = maps[with_lesion] > threshold
    true = masks[with_lesion]
    mean_dice = dice(found, true).mean()
    mean_iou = iou(found, true).mean()
    return {"dice": float(mean_dice), "iou": float(mean_iou)}


def dice(found: Array, true: Array) -> npt.NDArray[np.float64]:
    """Dice per image of two bool masks (N, H, W): 2 |A and B| / (|A| + |B|); 1 where both are empty."""
    both = _count(found & true)
    total = _count(found) + _count(true)
    ratio = 2 * both / np.maximum(total, 1)
    return np.where(total == 0, 1.0, ratio)


def iou(found: Array, true: Array) -> npt.NDArray[np.float64]:
    """Intersection over union per image of two bool masks (N, H, W); 1 where both are empty."""
    both = _count(found & true)
    either = _count(found | true)
    ratio = both / np.maximum(either, 1)
    return np.where(either == 0, 1.0, ratio)


def _count(masks: Array) -> Array:
    """Number of true pixels (N,) of each mask (N, H, W)."""
    counts: Array = masks.sum((1, 2))
    return counts


def oracle_threshold(maps: Array, masks: Array) -> float:
    """The threshold with the highest Dice over all pixels pooled; it has seen the true masks. NaN without lesions."""
    from sklearn.metrics import precision_recall_curve

    if not masks.any():
        return NAN
    lesion = masks.reshape(-1)
    precision, recall, thresholds = precision_recall_curve(lesion, maps.reshape(-1))
    total = precision + recall
    # Dice is the harmonic mean of both.
    divisor = np.where(total > 0, total, 1)
    scores = 2 * precision * recall / divisor
    best = np.argmax(scores[:-1])  # the last point finds nothing
    # Pixels above the threshold count as found: it is the next score below the best one.
    below = maps[maps < thresholds[best]]
    if not below.size:
        return float("-inf")
    return float(below.max())
