"""What every detector inherits: checks, thresholds, signs, loaders."""

import math
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from torch import Tensor

from detectors.base import AnomalyDetector
from detectors.inputs import check_images, unpack


class Distance(AnomalyDetector):
    """Distance to the mean image."""

    mean: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_late_buffer("mean")

    def fit(self, loader: Iterable[Any]) -> "Distance":
        images = torch.cat(list(self.batches(loader)))
        self.mean = images.mean(0)
        self.remember_shape(images)
        return self

    def is_fitted(self) -> bool:
        return self.mean is not None

    def score(self, images: Tensor) -> tuple[Tensor, Tensor]:
        maps = (images - self.mean).abs().mean(1, keepdim=True)
        return maps.flatten(1).amax(1), maps


@pytest.fixture
def images() -> Tensor:
    return torch.rand(40, 3, 6, 5)


@pytest.fixture
def detector(images: Tensor) -> Distance:
    return Distance().fit([images])


def test_prediction_before_and_after_the_threshold(detector: Distance, images: Tensor) -> None:
    prediction = detector(images)
    assert prediction.pred_label is None
    assert prediction.pred_mask is None
    detector.set_threshold([images], quantile=0.9)
    prediction = detector(images)
    assert prediction.pred_label.sum() == 4
    assert prediction.pred_mask.float().mean() == pytest.approx(0.1, abs=0.001)
    np.testing.assert_allclose(detector.image_threshold, np.quantile(prediction.pred_score, 0.9), rtol=1e-6)
    np.testing.assert_allclose(detector.pixel_threshold, np.quantile(prediction.anomaly_map, 0.9), rtol=1e-6)


@pytest.mark.parametrize("quantile", [0, -0.1, 1.01, math.nan])
def test_wrong_quantile(detector: Distance, images: Tensor, quantile: float) -> None:
    with pytest.raises(ValueError, match="quantile"):
        detector.set_threshold([images], quantile)


def test_threshold_without_images(detector: Distance) -> None:
    with pytest.raises(ValueError, match="used up"):
        detector.set_threshold([])


def test_signs_of_scikit_learn_and_pyod(detector: Distance, images: Tensor) -> None:
    np.testing.assert_array_equal(detector.decision_function(images), detector(images).pred_score.numpy())
    np.testing.assert_array_equal(detector.score_samples(images), -detector(images).pred_score.numpy())


def test_not_fitted(images: Tensor) -> None:
    for call in (Distance(), Distance().score_samples, Distance().decision_function):
        with pytest.raises(NotFittedError, match="call fit"):
            call(images)
    with pytest.raises(NotFittedError, match="call fit"):
        Distance().set_threshold([images])


def test_state_loads_into_an_unfitted_detector_and_back(detector: Distance, images: Tensor) -> None:
    detector.set_threshold([images])
    other = Distance()
    unfitted = other.state_dict()
    other.load_state_dict(detector.state_dict())
    for one, two in zip(detector(images), other(images), strict=True):
        assert torch.equal(one, two)
    with pytest.raises(ValueError, match="resize them"):
        other(images[..., :4])
    other.load_state_dict(unfitted)
    assert not other.is_fitted()


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (lambda x: x.numpy(), TypeError, "ndarray"),
        (lambda x: (x * 255).byte(), TypeError, "uint8"),
        (lambda x: x[0], ValueError, r"\(B, C, H, W\)"),
        (lambda x: x[:0], ValueError, r"\(B, C, H, W\)"),
        (lambda x: x[:, :, :-1], ValueError, "resize them"),
        (lambda x: x[:, :1], ValueError, "resize them"),
        (lambda x: torch.where(x > x.median(), math.nan, x), ValueError, "NaN"),
        (lambda x: x.masked_fill(torch.arange(5) == 0, math.inf), ValueError, "0 NaN and 720 infinite"),
    ],
)
def test_wrong_images(detector: Distance, images: Tensor, wrong: Any, error: type[Exception], message: str) -> None:
    for call in (detector, detector.score_samples, lambda x: detector.fit([images, x])):
        with pytest.raises(error, match=message):
            call(wrong(images))


def test_nan_message_counts(detector: Distance, images: Tensor) -> None:
    images[0, 0, 0, :3] = math.nan
    with pytest.raises(ValueError, match="3 NaN and 0 infinite"):
        detector(images)


def test_a_tensor_is_no_loader(detector: Distance, images: Tensor) -> None:
    with pytest.raises(TypeError, match="wrap it in a list"):
        detector.fit(images)


@pytest.mark.parametrize(
    "batch",
    [
        lambda x: x,
        lambda x: (x,),
        lambda x: [x, 1],
        lambda x: {"image": x},
        lambda x: SimpleNamespace(image=x, gt_label=None),
    ],
)
def test_unpack_finds_the_images(batch: Any, images: Tensor) -> None:
    assert unpack(batch(images)).image is images


@pytest.mark.parametrize("batch", [{"images": 1}, 3, (), None])
def test_unpack_refuses(batch: Any) -> None:
    with pytest.raises(TypeError, match="expected a tensor"):
        unpack(batch)


def test_large_images_are_finite_though_their_sum_is_not() -> None:
    images = torch.full((1, 1, 2, 2), 3e38)
    check_images(images)
    images[0, 0, 1, 1] = torch.inf
    with pytest.raises(ValueError, match="0 NaN and 1 infinite values"):
        check_images(images)
