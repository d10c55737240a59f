"""Fit a detector on healthy images and judge it by its scores and maps of the test images."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from data import Batches, Dataset, labelled_batches
from rivals.neighbours import MemoryBank, Neighbours
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KernelDensity
from sklearn.svm import OneClassSVM
from torch import Tensor, nn
from training import Setting

from detectors import IGD, AnomalyDetector, PaDiM, evaluate

DetectorName = Literal["padim", "padim-layer3", "knn", "patchcore", "igd", "kde", "ocsvm"]
TOP_SHARE = 0.1
PATCH_DETECTORS = ("padim", "padim-layer3", "patchcore")  # judged by the mean of the highest tenth of the map, too
DEFAULT_DETECTORS: tuple[DetectorName, ...] = ("padim", "knn")
# Where --detectors is not given: IGD for the rows of the paper's Table 1, DROC's own scores, and bars.
MORE_DETECTORS: dict[str, tuple[DetectorName, ...]] = {
    "start-calibrated": ("igd", "patchcore", "kde", "ocsvm"),
    "ccd": ("igd",),
    "msacl": ("igd",),
    "droc": ("kde", "ocsvm"),
}


@dataclass(frozen=True)
class IGDSetting:
    """How IGD is trained; the paper's figures are 256 epochs, width 1, rate 1e-4, both scales."""

    igd_epochs: int = 15
    """Epochs of IGD."""
    igd_width: float = 0.25
    """Factor on the channels of IGD's decoder and critic."""
    igd_lr: float = 1e-3
    """Learning rate of IGD."""
    igd_scales: Literal["global", "local", "both"] = "global"
    """Scales of IGD."""


@dataclass
class Judgement:
    """What a detector says about the test images: scores (M,) per rule, and the metrics of the first one."""

    scores: dict[str, Tensor]
    metrics: dict[str, float]


def detectors_of(row: str, wanted: tuple[DetectorName, ...]) -> tuple[DetectorName, ...]:
    """What judges a row's encoder: what the command line names, or the row's own choice."""
    return wanted or (*DEFAULT_DETECTORS, *MORE_DETECTORS.get(row, ()))


def judge(name: DetectorName, backbone: nn.Module, data: Dataset, setting: Setting, igd: IGDSetting) -> Judgement:
    """Fit the named detector and score all test images."""
    if name in ("kde", "ocsvm"):
        return _judge_one_class(name, backbone, data, setting)
    detector = fit_detector(name, backbone, data.train, setting, igd)
    return judge_detector(detector, data, with_top=name in PATCH_DETECTORS)


def judge_detector(detector: AnomalyDetector, data: Dataset, *, with_top: bool = False) -> Judgement:
    """Score all test images by a fitted detector, and by the mean of the highest tenth of its maps if wanted."""
    metrics = evaluate(detector, labelled_batches(data))
    maximum, top = _scores(detector, data.test)
    if not with_top:
        return Judgement({"score": maximum}, metrics)
    metrics["image_auroc_top"] = float(roc_auc_score(data.labels, top))
    return Judgement({"maximum": maximum, "top tenth": top}, metrics)


def fit_detector(
    name: DetectorName, backbone: nn.Module, train: Tensor, setting: Setting, igd: IGDSetting
) -> AnomalyDetector:
    """Fit a detector on healthy images (N, 3, S, S), uint8."""
    generator = torch.Generator().manual_seed(setting.seed)
    healthy = Batches(train, batch_size=32)
    if name == "igd":
        torch.manual_seed(setting.seed)  # the decoder's initial weights
        detector = IGD(backbone, train.shape[-1], igd.igd_scales, width=igd.igd_width).to(setting.device)
        shuffled = Batches(train, batch_size=16, generator=generator, drop_last=True)
        return detector.fit(shuffled, igd.igd_epochs, lr=igd.igd_lr).set_threshold(healthy)
    if name == "padim":
        detector = PaDiM(backbone, generator=generator)
    elif name == "padim-layer3":
        detector = PaDiM(backbone, ("layer3",), num_features=None)
    elif name == "patchcore":
        detector = MemoryBank(backbone, generator=generator)
    else:
        detector = Neighbours(backbone)
    return detector.to(setting.device).fit(healthy).set_threshold(healthy)


@torch.inference_mode()
def _scores(detector: AnomalyDetector, images: Tensor) -> tuple[Tensor, Tensor]:
    """The detector's own scores, and the means of the highest tenth of each map."""
    own = []
    top = []
    for batch in Batches(images, batch_size=32):
        prediction = detector(batch.to(detector.device))
        pixels = prediction.anomaly_map.flatten(1)
        highest = pixels.topk(int(pixels.shape[1] * TOP_SHARE)).values
        own.append(prediction.pred_score.cpu())
        top.append(highest.mean(1).cpu())
    return torch.cat(own), torch.cat(top)


def _judge_one_class(name: DetectorName, backbone: nn.Module, data: Dataset, setting: Setting) -> Judgement:
    """DROC's scores: a density or a linear one-class SVM of pooled features on the unit sphere."""
    train = _pooled(backbone, data.train, setting.device)
    test = _pooled(backbone, data.test, setting.device)
    # gamma = 10 / (variance of a component * components), as its authors' code has it.
    gamma = 10 / (train.var() * train.shape[1])
    if name == "kde":
        model = KernelDensity(bandwidth=(2 * gamma) ** -0.5).fit(train)
    else:
        model = OneClassSVM(kernel="linear").fit(train)
    scores = torch.from_numpy(-model.score_samples(test)).float()
    return Judgement({"score": scores}, {"image_auroc": float(roc_auc_score(data.labels, scores))})


@torch.inference_mode()
def _pooled(backbone: nn.Module, images: Tensor, device: str) -> np.ndarray:
    """Pooled features of images, each of length 1, (N, D)."""
    features = [backbone(batch.to(device)).cpu() for batch in Batches(images, batch_size=64)]
    return nn.functional.normalize(torch.cat(features), dim=1).numpy()
