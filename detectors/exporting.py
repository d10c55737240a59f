"""Export a fitted detector to ONNX."""

import copy
from pathlib import Path

import torch
from torch import Tensor, nn

from detectors.base import AnomalyDetector

OUTPUTS = ("pred_score", "anomaly_map", "pred_label", "pred_mask")


def export_onnx(detector: AnomalyDetector, file: str | Path, *, dynamic_batch: bool = True) -> list[str]:
    """Write a fitted detector as an ONNX model with the input "images" and outputs named as `AnomalyPrediction`'s.

    Needs the packages onnx and onnxscript.

    Args:
        detector: A fitted detector.
        file: Where to write the model.
        dynamic_batch: Take any number of images (B, C, H, W); else one at a time.

    Returns:
        The outputs' names: "pred_score" and "anomaly_map", and after `set_threshold` "pred_label" and "pred_mask".

    Raises:
        FileNotFoundError: If there is no folder to write to.
        ModuleNotFoundError: If onnx or onnxscript is not installed.
        NotFittedError: Before `fit`.

    Example:
        >>> from detectors import PaDiM
        >>> detector = PaDiM("resnet18", weights=None, num_features=9).fit([torch.rand(4, 3, 32, 32)])
        >>> export_onnx(detector, "padim.onnx")  # doctest: +SKIP
        ['pred_score', 'anomaly_map']
    """
    detector.require_fitted()
    if not Path(file).absolute().parent.is_dir():
        raise FileNotFoundError(f"expected a folder for the model, found none at {Path(file).parent}: make it first")
    assert detector._shape is not None
    has_thresholds = detector.image_threshold is not None and detector.pixel_threshold is not None
    names = list(OUTPUTS if has_thresholds else OUTPUTS[:2])
    # Two images: a batch of one would be taken for a constant.
    example = torch.zeros(2 if dynamic_batch else 1, *detector._shape)
    shapes = ({0: torch.export.Dim("batch", min=1)},) if dynamic_batch else None
    network = _Outputs(copy.deepcopy(detector).cpu()).eval()
    torch.onnx.export(
        network,
        (example,),
        Path(file),
        dynamo=True,
        input_names=["images"],
        output_names=names,
        dynamic_shapes=shapes,
        external_data=False,
        verbose=False,
    )
    return names


class _Outputs(nn.Module):
    """A detector that returns a plain tuple without what is None."""

    def __init__(self, detector: AnomalyDetector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        prediction = self.detector(images)
        return tuple(value for value in prediction if value is not None)
