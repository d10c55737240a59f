"""What a detector keeps, forgets and refuses between fitting, saving, loading and fitting again."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.exceptions import NotFittedError
from torch import Tensor, nn
from torchvision.models import resnet18

from detectors import IGD, AnomalyDetector, PaDiM


def images(count: int = 6) -> Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def make_padim(**options: Any) -> PaDiM:
    torch.manual_seed(0)
    return PaDiM("resnet18", weights=None, num_features=12, generator=torch.Generator().manual_seed(0), **options)


def make_igd() -> IGD:
    torch.manual_seed(0)
    return IGD(resnet18(), 32, "global", width=1 / 64)


def fitted(detector: AnomalyDetector) -> AnomalyDetector:
    options = {"epochs": 1, "progress": False} if isinstance(detector, IGD) else {}
    return detector.fit([images()], **options)


def saved(state: Any, folder: Path) -> Path:
    torch.save(state, folder / "state.pt")
    return folder / "state.pt"


def test_normalisation_is_saved(tmp_path: Path) -> None:
    detector = fitted(make_padim(normalize="imagenet"))
    loaded = make_padim().load(saved(detector.state_dict(), tmp_path))
    torch.testing.assert_close(loaded(images()).pred_score, detector(images()).pred_score)


def test_a_loaded_detector_is_in_evaluation_mode(tmp_path: Path) -> None:
    detector = fitted(make_igd())
    loaded = make_igd().load(saved(detector.state_dict(), tmp_path))
    assert not loaded.training
    torch.testing.assert_close(loaded(images()).pred_score, detector(images()).pred_score)


def test_thresholds_and_scores_ignore_the_mode_and_keep_it() -> None:
    detector = fitted(make_igd())
    want, threshold = detector.decision_function(images()), detector.set_threshold([images()]).image_threshold
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    detector.train()
    assert detector.decision_function(images()).tolist() == want.tolist()
    assert detector.set_threshold([images()]).image_threshold == threshold
    assert detector.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in detector.state_dict().items())


@pytest.mark.filterwarnings("ignore:.*is a no-op")  # meta tensors hold no values
def test_loading_keeps_one_device() -> None:
    state = fitted(make_padim()).state_dict()
    detector = make_padim().to("meta")
    detector.gaussian.after_load = lambda: None  # its checks read values
    detector.gaussian.load_state_dict({k.removeprefix("gaussian."): v for k, v in state.items() if "gaussian" in k})
    assert {tensor.device.type for tensor in detector.gaussian.buffers()} == {"meta"}


def broken_states(state: dict[str, Tensor]) -> list[dict[Any, Any]]:
    """The state with each fitted buffer in turn missing, empty, of another rank, or NaN."""
    names = [name for name in state if not name.startswith(("extract.backbone", "backbones", "models"))]
    changes = {name: state[name] for name in names if name not in ("extract.mean", "extract.std")}
    broken: list[dict[Any, Any]] = [{**state, 1: torch.zeros(1)}]
    for name, tensor in changes.items():
        broken += [{**state, name: torch.zeros(0)}, {**state, name: tensor.new_zeros(2, 2, 2)}]
        if tensor.is_floating_point() and tensor.ndim:
            broken.append({**state, name: torch.full_like(tensor, math.nan)})
    return broken


@pytest.mark.parametrize("make", [pytest.param(make_padim, marks=pytest.mark.slow), make_igd])
def test_a_refused_file_changes_nothing(make: Any, tmp_path: Path) -> None:
    detector = fitted(make()).set_threshold([images()])
    want = detector(images())
    for state in broken_states(detector.state_dict()):
        file = saved(state, tmp_path)
        with pytest.raises(ValueError, match="expected"):
            detector.load(file)
        unfitted = make()
        with pytest.raises(ValueError, match="expected"):
            unfitted.load(file)
        assert not unfitted.is_fitted()
        with pytest.raises(NotFittedError):
            unfitted(images())
    got = detector(images())
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def test_thresholds_do_not_outlive_what_they_were_set_on() -> None:
    detector = fitted(make_padim()).set_threshold([images()])
    assert detector.partial_fit(images()).finalize()(images()).pred_label is None
    detector.set_threshold([images()])
    assert detector.merge(fitted(make_padim())).finalize()(images()).pred_label is None
    assert fitted(fitted(make_igd()).set_threshold([images()]))(images()).pred_label is None


@pytest.mark.parametrize("make", [make_padim, make_igd])
def test_images_of_another_precision(make: Any) -> None:
    detector = fitted(make())
    want = detector(images()).pred_score
    torch.testing.assert_close(detector(images().double()).pred_score, want)
    assert detector.decision_function(images().double()).tolist() == want.tolist()
    detector.set_threshold([images().double()])


@pytest.mark.parametrize("normalize", [None, "imagenet"])
def test_grey_images_are_repeated(normalize: str | None) -> None:
    grey = images()[:, :1]
    detector = make_padim(normalize=normalize).fit([grey])
    want = make_padim(normalize=normalize).fit([grey.expand(-1, 3, -1, -1)])(grey.expand(-1, 3, -1, -1))
    torch.testing.assert_close(detector(grey).pred_score, want.pred_score)


def test_a_layer_that_never_runs_is_named() -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer1, self.layer2 = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer1(x)

    with pytest.raises(ValueError, match="layer2"):
        PaDiM(Unused(), ("layer1", "layer2"), num_features=4).fit([images()])
