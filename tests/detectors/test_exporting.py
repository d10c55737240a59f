"""ONNX models give what the detector gives."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from sklearn.exceptions import NotFittedError
from torch import nn

from detectors import PaDiM, export_onnx


def draw(count: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.slow
@pytest.mark.parametrize("threshold", [False, True])
def test_onnx_equals_the_detector_at_any_batch_size(threshold: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 3, 4, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1)]
    detector = PaDiM(nn.Sequential(*layers), ("1", "2"), num_features=9).fit([draw(6)])
    if threshold:
        detector.set_threshold([draw(6)], quantile=0.5)
    names = export_onnx(detector, tmp_path / "padim.onnx")
    assert names == ["pred_score", "anomaly_map", "pred_label", "pred_mask"][: 4 if threshold else 2]
    session = onnxruntime.InferenceSession(str(tmp_path / "padim.onnx"))
    assert [output.name for output in session.get_outputs()] == names
    for count in (1, 2, 5):
        images = draw(count, seed=count)
        got = dict(zip(names, session.run(names, {"images": images.numpy()}), strict=True))
        want = detector(images)
        np.testing.assert_allclose(got["pred_score"], want.pred_score, rtol=1e-4)
        np.testing.assert_allclose(got["anomaly_map"], want.anomaly_map, rtol=1e-4)
        if threshold:
            assert (got["pred_label"] == want.pred_label.numpy()).all()
            assert (got["pred_mask"] == want.pred_mask.numpy()).mean() > 0.999  # a pixel at the threshold may differ


def test_an_unfitted_detector_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFittedError):
        export_onnx(PaDiM(nn.Conv2d(3, 4, 3), None), tmp_path / "padim.onnx")
