"""Metrics against definitions written as loops, and the rules of `evaluate`."""

import math
import tracemalloc
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import label
from sklearn.metrics import average_precision_score
from torch import Tensor

from detectors import evaluate
from detectors.base import AnomalyDetector
from detectors.evaluation.metrics import aupro, auroc, dice, iou, oracle_threshold, overlap, region_curve_area


class Brightness(AnomalyDetector):
    """Scores a pixel by its value: what `evaluate` should find is known."""

    def fit(self, loader: Iterable[Any]) -> "Brightness":
        for images in self.batches(loader):
            self.remember_shape(images)
        return self

    def is_fitted(self) -> bool:
        return self._shape is not None

    def score(self, images: Tensor) -> tuple[Tensor, Tensor]:
        maps = images.mean(1, keepdim=True)
        return maps.flatten(1).amax(1), maps


def slow_aupro(maps: np.ndarray, masks: np.ndarray, limit: float) -> float:
    """Thresholds one by one, regions one by one."""
    regions = []
    for number, mask in enumerate(masks):
        numbers, count = label(mask, structure=np.ones((3, 3)))
        regions += [(number, numbers == k + 1) for k in range(count)]
    points = [(0.0, 0.0)]
    for threshold in np.unique(maps)[::-1]:
        found = maps >= threshold
        rate = (found & ~masks).sum() / (~masks).sum()
        points.append((rate, np.mean([found[number][region].mean() for number, region in regions])))
    area = 0.0
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 < limit:
            stop = min(x1, limit)
            y_stop = y1 if x1 <= limit else y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
            area += (stop - x0) * (y0 + y_stop) / 2
    return area / limit


@given(seed=st.integers(0, 2**32), levels=st.sampled_from([3, 10, 1000]), limit=st.sampled_from([0.05, 0.3, 1.0]))
def test_aupro_equals_the_loop(seed: int, levels: int, limit: float) -> None:
    random = np.random.default_rng(seed)
    maps = random.integers(0, levels, (3, 8, 9)) / levels
    masks = random.random((3, 8, 9)) < 0.15
    masks[0, 0, 0], masks[1] = True, False
    np.testing.assert_allclose(aupro(maps, masks, limit), slow_aupro(maps, masks, limit), atol=1e-12)


def test_perfect_and_inverted_maps() -> None:
    masks = np.zeros((2, 16, 16), dtype=bool)
    masks[0, 2:5, 3:9] = True
    assert aupro(masks.astype(float), masks) == 1.0
    assert aupro(1.0 - masks, masks) == 0.0
    assert auroc(masks.astype(float), masks) == 1.0


def test_empty_masks_are_defined() -> None:
    empty, full = np.zeros((1, 4, 4), dtype=bool), np.ones((1, 4, 4), dtype=bool)
    for metric in (dice, iou):
        assert metric(empty, empty) == 1.0
        assert metric(full, empty) == metric(empty, full) == 0.0
        assert metric(full, full) == 1.0
    maps = np.zeros((1, 4, 4))
    values = [auroc(maps, empty), aupro(maps, empty), oracle_threshold(maps, empty), *overlap(maps, empty, 0).values()]
    assert all(math.isnan(value) for value in values)


@given(seed=st.integers(0, 2**32), levels=st.sampled_from([2, 5, 1000]))
def test_no_threshold_beats_the_oracle(seed: int, levels: int) -> None:
    random = np.random.default_rng(seed)
    maps = random.integers(0, levels, (2, 6, 6)) / levels
    masks = random.random((2, 6, 6)) < 0.3
    masks[0, 0, 0] = True

    def pooled_dice(threshold: float) -> float:
        return float(dice((maps > threshold).reshape(1, -1, 1), masks.reshape(1, -1, 1))[0])

    best = max(pooled_dice(t) for t in [-1.0, *np.unique(maps)])
    assert pooled_dice(oracle_threshold(maps, masks)) == pytest.approx(best)


def test_dice_and_iou_by_hand() -> None:
    found, true = np.zeros((1, 2, 4), dtype=bool), np.zeros((1, 2, 4), dtype=bool)
    found[0, 0, :3], true[0, 0, 1:] = True, True
    assert dice(found, true)[0] == pytest.approx(2 * 2 / 6)
    assert iou(found, true)[0] == pytest.approx(2 / 4)


@pytest.fixture
def detector() -> Brightness:
    return Brightness().fit([torch.rand(4, 3, 8, 8)])


def spots() -> tuple[Tensor, Tensor, Tensor]:
    images, masks = 0.1 * torch.rand(4, 3, 8, 8), torch.zeros(4, 1, 8, 8, dtype=torch.bool)
    masks[2:, :, 2:4, 2:5] = True
    images[0, :, 0, 0] = 0.1  # no normal pixel is brighter
    return images + masks, torch.tensor([0, 0, 1, 1]), masks


def test_evaluate_perfect_detector(detector: Brightness) -> None:
    images, labels, masks = spots()
    detector.set_threshold([images[:2]], quantile=1.0)
    got = evaluate(detector, [(images[:2], labels[:2], masks[:2]), (images[2:], labels[2:], masks[2:])])
    assert {name for name, value in got.items() if value == 1.0} == {
        "image_auroc", "image_aupr", "image_sensitivity", "pixel_auroc", "pixel_aupr", "aupro", "dice", "iou",
        "oracle_dice", "oracle_iou",
    }  # fmt: skip
    assert 0 <= got["oracle_threshold"] < 1


def test_evaluate_takes_every_kind_of_batch(detector: Brightness) -> None:
    images, labels, masks = spots()
    want = evaluate(detector, [(images, labels, masks)])
    assert "dice" not in want  # no threshold from normal images yet
    assert evaluate(detector, [{"image": images, "label": labels, "mask": masks}]) == want
    assert evaluate(detector, [{"image": images, "gt_label": labels, "gt_mask": masks[:, 0].float()}]) == want
    assert evaluate(detector, [(images[:2], labels[:2]), (images[2:], labels[2:], masks[2:])]) == want
    assert evaluate(detector, [(images, labels.bool())]) == {
        "image_auroc": 1.0,
        "image_aupr": 1.0,
        "image_sensitivity": 1.0,
    }
    assert math.isnan(evaluate(detector, [(images[:2], labels[:2])])["image_auroc"])


def test_evaluate_refuses(detector: Brightness) -> None:
    images, labels, masks = spots()
    with pytest.raises(ValueError, match="without labels"):
        evaluate(detector, [images])
    with pytest.raises(ValueError, match="mask for every anomalous image"):
        evaluate(detector, [(images[:3], labels[:3]), (images[3:], labels[3:], masks[3:])])
    with pytest.raises(ValueError, match="one label per image"):
        evaluate(detector, [(images, labels[:3])])
    with pytest.raises(ValueError, match="expected masks"):
        evaluate(detector, [(images, labels, masks[..., :4])])
    with pytest.raises(ValueError, match="used up"):
        evaluate(detector, [])
    with pytest.raises(ValueError, match="192 NaN"):
        evaluate(detector, [(images[:1] * math.nan, labels[:1])])


@given(seed=st.integers(0, 2**32), kind=st.sampled_from(["spread", "ties", "zero", "signs", "narrow"]))
@settings(max_examples=20)
def test_streamed_pixels_equal_the_exact_metrics(seed: int, kind: str) -> None:
    random = np.random.default_rng(seed)
    masks = random.random((6, 24, 24)) < 0.1
    masks[0], masks[1, 0, 0] = False, True
    maps = random.gamma(2.0, 3.0, masks.shape) + 2.0 * masks
    changes = {
        "spread": maps, "ties": np.round(maps), "zero": maps * (random.random(maps.shape) > 0.2),
        "signs": maps - 7, "narrow": 100 + maps / 1000,
    }  # fmt: skip
    maps = changes[kind].astype(np.float32)
    images = torch.from_numpy(maps)[:, None]
    detector = Brightness().fit([images]).set_threshold([images], quantile=0.9)
    labels = masks.any((1, 2))
    got = evaluate(detector, [(images[k : k + 2], labels[k : k + 2], masks[k : k + 2]) for k in (0, 2, 4)])
    want = {"pixel_auroc": auroc(maps, masks), "aupro": aupro(maps, masks)}
    want["pixel_aupr"] = float(average_precision_score(masks.reshape(-1), maps.reshape(-1)))
    want |= overlap(maps, masks, float(detector.pixel_threshold))
    for name, value in overlap(maps, masks, got["oracle_threshold"]).items():
        want[f"oracle_{name}"] = value
    for name, value in want.items():
        assert got[name] == pytest.approx(value, abs=1e-4), name
    thresholds = (got["oracle_threshold"], oracle_threshold(maps, masks))
    one, other = (dice((maps > t).reshape(1, -1, 1), masks.reshape(1, -1, 1))[0] for t in thresholds)
    assert one == pytest.approx(other, abs=2e-3)


def test_sensitivity_at_a_specificity(detector: Brightness) -> None:
    scores = torch.tensor([0.1, 0.2, 0.3, 0.6, 0.5, 0.7])
    images = scores[:, None, None, None].expand(-1, 3, 8, 8)
    labels = torch.tensor([0, 0, 0, 0, 1, 1])
    for specificity, want in ((1.0, 0.5), (0.75, 1.0), (0.0, 1.0)):
        assert evaluate(detector, [(images, labels)], specificity=specificity)["image_sensitivity"] == want
    with pytest.raises(ValueError, match="specificity"):
        evaluate(detector, [(images, labels)], specificity=95)


def test_numbers_of_classes_are_no_labels(detector: Brightness) -> None:
    """An ImageFolder of abnormal, normal and other: 0, 1, 2; every label above 0 counted as anomalous."""
    images = torch.linspace(0, 1, 4)[:, None, None, None].expand(-1, 3, 8, 8)
    with pytest.raises(ValueError, match=r"got \[2\]: pass normal_class"):
        evaluate(detector, [(images, torch.tensor([2, 2, 0, 0]))])
    assert evaluate(detector, [(images, torch.tensor([2, 2, 0, 1]))], normal_class=2)["image_auroc"] == 1.0
    with pytest.raises(ValueError, match=r"got \[-1\]"):
        evaluate(detector, [(images, torch.tensor([-1, 0, 0, 1]))])


def test_memory_does_not_grow_with_the_images(detector: Brightness) -> None:
    big = Brightness().fit([torch.rand(1, 1, 64, 64)])
    batch = (torch.rand(8, 1, 64, 64), torch.tensor([0, 1] * 4), torch.rand(8, 64, 64) > 0.9)
    peaks = []
    for count in (3, 60):
        tracemalloc.start()
        evaluate(big, (batch for _ in range(count)))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.05 * peaks[0] + 1e5


def test_the_curve_is_cut_between_its_points() -> None:
    """Points (.25, .5), (.5, .75), (1, 1): at a limit of .375 the curve stands at .625."""
    area = (0 + 0.5) / 2 * 0.25 + (0.5 + 0.625) / 2 * 0.125
    found = region_curve_area(np.array([1, 1, 2]), np.array([0.5, 0.25, 0.25]), limit=0.375)
    assert found == pytest.approx(area / 0.375, rel=1e-12)
    for normal, shares in (([1.0], [0.0]), ([0.0], [1.0])):
        assert math.isnan(region_curve_area(np.array(normal), np.array(shares)))


def test_overlap_of_single_pixels_and_of_nothing() -> None:
    pixel, nothing = np.array([[[True, False]]]), np.zeros((1, 1, 2), dtype=bool)
    assert (dice(pixel, pixel), iou(pixel, pixel)) == (1, 1)
    assert (dice(pixel, ~pixel), iou(pixel, ~pixel)) == (0, 0)
    assert overlap(pixel.astype(float), pixel, 0.5) == {"dice": 1.0, "iou": 1.0}
    undefined = overlap(pixel.astype(float), nothing, 0.5)
    assert undefined.keys() == {"dice", "iou"}
    assert all(math.isnan(value) for value in undefined.values())
