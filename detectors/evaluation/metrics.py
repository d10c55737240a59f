"""How good a detector is: image and pixel AUROC, AUPRO, Dice and IoU, with every threshold rule named."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from detectors.base import AnomalyDetector
from detectors.inputs import check_images, unpack
from detectors.late_buffers import evaluating

Array = npt.NDArray[Any]


@torch.no_grad()
def evaluate(detector: AnomalyDetector, loader: Iterable[Any]) -> dict[str, float]:
    """Score a labelled test set.

    Args:
        detector: A fitted detector.
        loader: Batches (image, label) or (image, label, mask), or dicts with "image", "label" (or "gt_label") and
            optionally "mask" (or "gt_mask"): images (B, C, H, W), labels (B,) with 1 or True = anomalous, masks
            (B, 1, H, W) or (B, H, W), bool or 0-1.

    Returns:
        "image_auroc", and where there are masks "pixel_auroc" (all pixels pooled), "aupro" (up to a false-positive rate
        of .3), "oracle_dice" and "oracle_iou" (at "oracle_threshold", which maximises Dice over all pixels pooled and
        so has seen the answers). After `set_threshold` also "dice" and "iou" at that threshold, which has seen normal
        images only. Dice and IoU are means over the images with a lesion. What is not defined (one class only, no
        lesion) is NaN.

    Raises:
        NotFittedError: Before `fit`.
        ValueError: If there are no images or labels, or only some batches hold masks.
    """
    detector.require_fitted()
    with evaluating(detector):
        results = [evaluate_batch(detector, batch) for batch in loader]
    if not results:
        raise ValueError("expected at least one batch, got none: is the loader used up?")
    scores, labels, maps = (np.concatenate([r[k] for r in results]) for k in range(3))
    values = {"image_auroc": auroc(scores, labels)}
    if all(r[3] is None for r in results):
        return values
    masks = np.concatenate([no_lesions(r[1], r[2]) if r[3] is None else r[3] for r in results])
    values |= {"pixel_auroc": auroc(maps, masks), "aupro": aupro(maps, masks)}
    if detector.pixel_threshold is not None:
        values |= overlap(maps, masks, float(detector.pixel_threshold))
    oracle = oracle_threshold(maps, masks)
    values |= {f"oracle_{name}": value for name, value in overlap(maps, masks, oracle).items()}
    return values | {"oracle_threshold": oracle}


def evaluate_batch(detector: AnomalyDetector, batch: Any) -> tuple[Array, Array, Array, Array | None]:
    """Scores (B,), labels (B,), maps (B, H, W) and masks (B, H, W) of a batch."""
    image, label, mask = unpack(batch)
    if label is None:
        raise ValueError("expected batches (image, label[, mask]), got images without labels")
    check_images(image)
    prediction = detector(image.to(detector.device))
    maps = prediction.anomaly_map[:, 0].float().cpu().numpy()
    labels = torch.as_tensor(label).cpu().numpy().reshape(-1) > 0
    if len(labels) != len(maps):
        raise ValueError(f"expected one label per image, got {len(labels)} for {len(maps)}")
    if mask is not None:
        mask = torch.as_tensor(mask).cpu().numpy()
        mask = mask[:, 0] if mask.ndim == 4 else mask
        if mask.shape != maps.shape:
            raise ValueError(f"expected masks (B, 1, H, W) or (B, H, W) = {maps.shape}, got {mask.shape}")
        mask = mask > 0
    return prediction.pred_score.float().cpu().numpy(), labels, maps, mask


def no_lesions(labels: Array, maps: Array) -> Array:
    """Masks of a batch that came without any: fine if all its images are normal."""
    if labels.any():
        raise ValueError("expected a mask for every anomalous image, or for none; some batches hold masks, some do not")
    return np.zeros(maps.shape, dtype=bool)


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
    weights = region_weights(masks).reshape(-1)
    order = np.argsort(-maps, axis=None, kind="stable")
    ordered, lesion = maps.reshape(-1)[order], masks.reshape(-1)[order]
    last = np.append(ordered[1:] != ordered[:-1], True)  # of pixels of the same score
    rate = np.append(0.0, np.cumsum(~lesion)[last] / (~lesion).sum())
    share = np.append(0.0, np.cumsum(weights[order])[last])
    end = int(np.searchsorted(rate, limit))  # first point at or beyond the limit; the curve may jump there
    slope = (share[end] - share[end - 1]) / (rate[end] - rate[end - 1])
    x = np.append(rate[:end], limit)
    y = np.append(share[:end], share[end - 1] + slope * (limit - rate[end - 1]))
    return float(min(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2) / limit, 1.0))


def region_weights(masks: Array) -> npt.NDArray[np.float64]:
    """For each pixel of a region, 1 / (its size x the number of regions): a region's pixels sum to 1 / regions."""
    from scipy.ndimage import label  # type: ignore[import-untyped]

    weights = np.zeros(masks.shape)
    regions = 0
    for weight, mask in zip(weights, masks, strict=True):
        numbers, count = label(mask, structure=np.ones((3, 3)))
        sizes = np.bincount(numbers.reshape(-1), minlength=count + 1)
        weight[mask] = 1 / sizes[numbers[mask]]
        regions += count
    return weights / regions


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
    if not masks.any():
        return float("nan")
    order = np.argsort(-maps, axis=None)
    ordered = maps.reshape(-1)[order]
    last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    hits = np.cumsum(masks.reshape(-1)[order])[last]
    best = int(np.argmax(2 * hits / (last + 1 + masks.sum())))
    below = ordered[last[best] + 1] if best + 1 < len(last) else -np.inf  # pixels above it count as found
    return float(below)
