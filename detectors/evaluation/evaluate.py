"""Evaluate a detector on a labelled test set in one pass, at a memory that does not grow with its pixels."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from detectors.base import AnomalyDetector
from detectors.evaluation.bins import OverlapCurves, ScoreBins, keys_of, sums_from_above, value_of
from detectors.evaluation.metrics import NAN, auroc, overlap, region_curve_area, region_weights
from detectors.inputs import check_images, unpack
from detectors.late_buffers import evaluating

Array = npt.NDArray[Any]
MOST_BINS = 2**21  # of each sum over pixels: 16 MB


@torch.no_grad()
def evaluate(
    detector: AnomalyDetector,
    loader: Iterable[Any],
    *,
    normal_class: int | None = None,
    specificity: float = 0.95,
) -> dict[str, float]:
    """Score a labelled test set.

    One pass. Pixels are counted by score in fine bins, whose number is bounded: some 100 MB for any test set. Pixel
    metrics are accurate to 1e-4, image metrics are exact.

    Args:
        detector: A fitted detector.
        loader: Batches (image, label) or (image, label, mask), or dicts with "image", "label" (or "gt_label") and
            optionally "mask" (or "gt_mask"): images (B, C, H, W), labels (B,) with 1 or True = anomalous, masks
            (B, 1, H, W) or (B, H, W), bool or 0-1.
        normal_class: The label of normal images where labels are numbers of classes, as an ImageFolder's; every other
            one is anomalous then.
        specificity: Share of normal images that stay below the threshold of "image_sensitivity", in [0, 1].

    Returns:
        "image_auroc", "image_aupr" (average precision) and "image_sensitivity" (share of anomalous images found, at a
        threshold that leaves at least `specificity` of the normal ones below it), and where there are masks
        "pixel_auroc" and "pixel_aupr" (all pixels pooled), "aupro" (up to a false-positive rate of .3), "oracle_dice"
        and "oracle_iou" (at "oracle_threshold", which maximises Dice over all pixels pooled and so has seen the
        answers). After `set_threshold` also "dice" and "iou" at that threshold, which has seen normal images only. Dice
        and IoU are means over the images with a lesion. What is not defined (one class only, no lesion) is NaN.

    Raises:
        NotFittedError: Before `fit`.
        ValueError: If there are no images or labels, labels are not 0 or 1 and `normal_class` is not given, or only
            some batches hold masks.
    """
    if not 0 <= specificity <= 1:
        raise ValueError(f"expected specificity in [0, 1], got {specificity}")
    detector.require_fitted()
    scores: list[Array] = []
    labels: list[Array] = []
    pixels = _Pixels(detector.pixel_threshold)
    with evaluating(detector):
        for batch in loader:
            score, label, maps, masks = _predict(detector, batch, normal_class)
            scores.append(score)
            labels.append(label)
            pixels.add(maps, masks, label)
    if not scores:
        raise ValueError("expected at least one batch, got none: is the loader used up?")
    of_images = image_metrics(np.concatenate(scores), np.concatenate(labels), specificity)
    return of_images | pixels.metrics()


def image_metrics(scores: Array, labels: Array, specificity: float) -> dict[str, float]:
    """AUROC, average precision and sensitivity of image scores (N,); NaN if there is one class only."""
    from sklearn.metrics import average_precision_score, roc_curve  # half a second: not at `import detectors`

    if labels.all() or not labels.any():
        return {"image_auroc": NAN, "image_aupr": NAN, "image_sensitivity": NAN}
    false_rate, true_rate, _ = roc_curve(labels, scores, drop_intermediate=False)
    allowed = false_rate <= 1 - specificity + 1e-12
    sensitivity = true_rate[allowed].max()
    precision = average_precision_score(labels, scores)
    return {
        "image_auroc": auroc(scores, labels),
        "image_aupr": float(precision),
        "image_sensitivity": float(sensitivity),
    }


class _Pixels:
    """What all pixels say, batch by batch."""

    def __init__(self, threshold: torch.Tensor | None) -> None:
        self.threshold = None if threshold is None else float(threshold)
        self.bins = ScoreBins(MOST_BINS)
        self.regions = 0
        self.curves = OverlapCurves()
        self.overlaps: list[dict[str, float]] = []
        self.masks_seen = False
        self.anomalous_without_mask = False

    def add(self, maps: Array, masks: Array | None, labels: Array) -> None:
        """Take in maps (B, H, W), masks (B, H, W) or None, and labels (B,)."""
        if masks is not None:
            self.masks_seen = True
        elif labels.any():
            self.anomalous_without_mask = True
        if self.masks_seen and self.anomalous_without_mask:
            raise ValueError(
                "expected a mask for every anomalous image, or for none; some batches hold masks, some do not"
            )
        if self.anomalous_without_mask:
            return  # image scores only
        lesions = np.zeros(maps.shape, dtype=bool) if masks is None else masks
        weights, regions = region_weights(lesions)
        self.regions += regions
        # All pixels together: what AUROC, average precision and AUPRO need.
        keys = keys_of(maps)
        self.bins.add(keys.reshape(-1), lesions.reshape(-1), weights.reshape(-1))
        # Each image with a lesion: what Dice and IoU need.
        for number in np.flatnonzero(lesions.any((1, 2))):
            own_keys = keys[number].reshape(-1)
            own_lesion = lesions[number].reshape(-1)
            self.curves.add(own_keys, own_lesion)
            if self.threshold is not None:
                one = slice(number, number + 1)
                found = overlap(maps[one], lesions[one], self.threshold)
                self.overlaps.append(found)

    def metrics(self) -> dict[str, float]:
        """The metrics of pixels; none where no mask was seen."""
        if not self.masks_seen:
            return {}
        used = self.bins.used()
        normal, lesion, weight = self.bins.sums[:, used]
        values = _curve_metrics(normal, lesion)
        shares = weight[::-1] / max(self.regions, 1)
        values["aupro"] = region_curve_area(normal[::-1], shares)
        if self.threshold is not None:
            for name in ("dice", "iou"):
                of_images = [one[name] for one in self.overlaps]
                values[name] = float(np.mean(of_images)) if of_images else NAN
        return values | self._oracle(used, normal, lesion)

    def _oracle(self, used: Array, normal: Array, lesion: Array) -> dict[str, float]:
        """Dice and IoU at the threshold of the highest pooled Dice."""
        if not lesion.any():
            return {"oracle_dice": NAN, "oracle_iou": NAN, "oracle_threshold": NAN}
        # Thresholds are the edges on which Dice and IoU of the images are known exactly.
        edges = self.curves.edges()
        lower_edges = self.bins.lower_edges(used)
        first_above = np.searchsorted(lower_edges, edges)
        # Pixels above each edge; above the highest bin there are none.
        hits = np.append(sums_from_above(lesion), 0)[first_above]
        found = np.append(sums_from_above(lesion + normal), 0)[first_above]
        pooled_dice = 2 * hits / (found + lesion.sum())
        best = int(np.argmax(pooled_dice))
        sums_at_best = self.curves.sums[:, best]
        dice, iou = sums_at_best / self.curves.images
        below_edge = int(edges[best]) - 1
        return {
            "oracle_dice": float(dice),
            "oracle_iou": float(iou),
            "oracle_threshold": value_of(below_edge),
        }


def _curve_metrics(normal: Array, lesion: Array) -> dict[str, float]:
    """AUROC and average precision of bins with these numbers of pixels, in ascending order of score."""
    if not lesion.any() or not normal.any():
        return {"pixel_auroc": NAN, "pixel_aupr": NAN}
    # A pixel of a lesion wins against the normal ones below it, and half of those in its own bin.
    below = normal.cumsum() - normal
    wins = below + normal / 2
    area = lesion @ wins / (lesion.sum() * normal.sum())
    # Average precision: of the pixels at or above each bin, the share in lesions.
    hits = sums_from_above(lesion)
    found = sums_from_above(lesion + normal)
    precision = lesion @ (hits / found) / lesion.sum()
    return {"pixel_auroc": float(area), "pixel_aupr": float(precision)}


def _predict(
    detector: AnomalyDetector, batch: Any, normal_class: int | None
) -> tuple[Array, Array, Array, Array | None]:
    """Scores (B,), labels (B,), maps (B, H, W) and masks (B, H, W) of a batch."""
    image, label, mask = unpack(batch)
    if label is None:
        raise ValueError("expected batches (image, label[, mask]), got images without labels")
    check_images(image)
    prediction = detector(image.to(detector.device))
    scores = _as_array(prediction.pred_score.float())
    maps = _as_array(prediction.anomaly_map[:, 0].float())
    labels = _anomalous(label, normal_class)
    if len(labels) != len(maps):
        raise ValueError(f"expected one label per image, got {len(labels)} for {len(maps)}")
    if mask is None:
        return scores, labels, maps, None
    mask = _as_array(mask)
    if mask.ndim == 4:
        mask = mask[:, 0]
    if mask.shape != maps.shape:
        raise ValueError(f"expected masks (B, 1, H, W) or (B, H, W) = {maps.shape}, got {mask.shape}")
    return scores, labels, maps, mask > 0


def _as_array(values: Any) -> Array:
    """Values of any kind and device in numpy."""
    tensor = torch.as_tensor(values)
    return tensor.cpu().numpy()


def _anomalous(label: Any, normal_class: int | None) -> npt.NDArray[np.bool_]:
    """Which images are anomalous (B,)."""
    labels = _as_array(label).reshape(-1)
    if normal_class is not None:
        return np.asarray(labels != normal_class)
    foreign = sorted({*labels.tolist()} - {0, 1})
    if foreign:
        raise ValueError(
            f"expected labels 0 (normal) and 1 (anomalous), got {foreign[:5]}: pass normal_class= where labels are "
            "numbers of classes (an ImageFolder counts its folders in the order of their names)"
        )
    return np.asarray(labels == 1)
