"""What every detector shares: input checks, prediction, thresholds, scores in other libraries' signs, checkpoints.

To write a detector, subclass `AnomalyDetector` and give it three methods: `fit(loader)`, which returns self and ends
with `self.remember_shape(images)`; `is_fitted()`; and `score(images)`, which maps checked images (B, C, H, W) to scores
(B,) and maps (B, 1, H, W), higher = more anomalous. `forward`, `set_threshold`, `score_samples`, `decision_function`
and `evaluate` then work. In `fit`, iterate with `for images in self.batches(loader)`: it unpacks tensors, tuples and
dicts, checks them (NaN included) and moves them to the detector's device. Call `super().__init__()` first. State that
exists only after `fit` goes into buffers: `self.register_late_buffer(name)` in `__init__`, None until
`self.name = tensor`; a state_dict then loads into an unfitted detector. Override `after_load()` to restore Python
values derived from buffers. Override `options` with the arguments of `__init__` that decide scores: they are saved with
the state and compared on loading, and `detectors.load(file)` passes them to `__init__`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from sklearn.exceptions import NotFittedError
from torch import Tensor, nn

from detectors.checkpoint import read_state, state_of_model, write_safely
from detectors.description import Metadata, Options, check_metadata, check_options, decode_options, encode_options
from detectors.inputs import Shape, check_images, shape_of, unpack
from detectors.late_buffers import LateBuffers, evaluating
from detectors.prediction import AnomalyPrediction, quantile_of

FILE_FORMAT = "msacl detector 1"


class AnomalyDetector(LateBuffers, ABC):
    """Base of the detectors: fitted on normal images, scores images and pixels. This module's docstring says how.

    Attributes:
        metadata: Notes that `save` keeps and `detectors.load` restores: text, numbers and lists of them by name.
    """

    image_shape: Tensor | None
    image_threshold: Tensor | None
    pixel_threshold: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.metadata: Metadata = {}
        self._shape: Shape | None = None  # image_shape as Python numbers: forward reads no tensor
        for name in ("image_shape", "image_threshold", "pixel_threshold"):
            self.register_late_buffer(name)

    @abstractmethod
    def fit(self, loader: Iterable[Any]) -> Self:
        """Fit on normal images; returns the detector itself."""

    @abstractmethod
    def is_fitted(self) -> bool:
        """Whether `score` can be called."""

    @abstractmethod
    def score(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map checked images (B, C, H, W) to scores (B,) and maps (B, 1, H, W)."""

    @property
    def options(self) -> Options:
        """Arguments of `__init__` that decide what is computed, as JSON has them; part of the state."""
        return {}

    @property
    def backbone_name(self) -> str | None:
        """Name from which the backbone can be built again; None if there is none, or it was given as a module."""
        return None

    @classmethod
    def rebuild(cls, options: Options, backbone: str | nn.Module | None) -> Self:
        """Make an unfitted detector from saved options and the backbone's name, or a module."""
        return cls(**options)

    def forward(self, images: Tensor) -> AnomalyPrediction:
        """Score images and their pixels.

        Args:
            images: Images (B, C, H, W), floating point, of the size of the training images, on the detector's device.
                NaN and infinite values are refused on the CPU only: elsewhere, looking for them would make the host
                wait.

        Returns:
            The prediction; labels and mask are None until `set_threshold`.

        Raises:
            NotFittedError: Before `fit`.
            TypeError: If the images are no floating-point tensor.
            ValueError: If shape, size or device is wrong, or values are not finite or not of the scale of training.
        """
        self.require_fitted()
        on_cpu = isinstance(images, Tensor) and images.device.type == "cpu"
        check_images(images, self._shape, finite=on_cpu, device=self.device)
        pred_score, anomaly_map = self.score(self.in_own_precision(images))
        if self.image_threshold is None or self.pixel_threshold is None:
            return AnomalyPrediction(pred_score, anomaly_map)
        labels = pred_score > self.image_threshold
        masks = anomaly_map > self.pixel_threshold
        return AnomalyPrediction(pred_score, anomaly_map, labels, masks)

    @torch.no_grad()
    def set_threshold(self, loader: Iterable[Any], quantile: float = 0.99) -> Self:
        """Set both thresholds from normal images only: a quantile of image scores, and one of all their pixels' scores.

        Args:
            loader: Batches of normal images as for `fit`; best images that `fit` has not seen.
            quantile: Share of normal images (and pixels) that stay below the threshold, in (0, 1].

        Returns:
            The detector itself; predictions now hold labels and masks.

        Raises:
            NotFittedError: Before `fit`.
            ValueError: If the quantile is out of range or there are no images.
        """
        if not 0 < quantile <= 1:
            raise ValueError(f"expected a quantile in (0, 1], got {quantile}: .99 leaves 1 % of normal images above")
        self.require_fitted()
        with evaluating(self):
            predictions = [self.score(images) for images in self.batches(loader, self._shape)]
        if not predictions:
            raise ValueError("expected at least one batch of normal images, got none: is the loader used up?")
        scores, maps = zip(*predictions, strict=True)
        self.image_threshold = quantile_of(scores, quantile)
        self.pixel_threshold = quantile_of(maps, quantile)
        return self

    def decision_function(self, images: Tensor) -> npt.NDArray[np.float32]:
        """Return image scores (B,) with PyOD's sign: higher is more abnormal."""
        self.require_fitted()
        check_images(images, self._shape)
        with torch.no_grad(), evaluating(self):
            scores, _ = self.score(self.in_own_precision(images.to(self.device)))
        return scores.float().cpu().numpy()

    def score_samples(self, images: Tensor) -> npt.NDArray[np.float32]:
        """Return image scores (B,) with scikit-learn's sign: higher is more normal."""
        return -self.decision_function(images)

    def save(self, file: str | Path) -> None:
        """Write one file from which `detectors.load(file)` rebuilds the detector: options, backbone, state, metadata.

        The file is written beside its place and renamed, so that it is never half a file.

        Raises:
            TypeError: If metadata holds anything but text, numbers and lists of them.
            ValueError: If the file cannot be written, or the detector is on "meta", where tensors have no values.
        """
        if self.device.type == "meta":
            raise ValueError("expected a detector with values, got one on meta: save it before it is moved there")
        check_metadata(self.metadata)
        content = {
            "format": FILE_FORMAT,
            "kind": type(self).__name__,
            "backbone": self.backbone_name,
            "metadata": self.metadata,
            "state_dict": self.state_dict(),
        }
        write_safely(content, Path(file))

    def load(self, file: str | Path) -> Self:
        """Load the state in a file of `save`, or of `torch.save(detector.state_dict(), file)`; nothing is executed.

        Returns:
            The detector itself, in evaluation mode; it is as it was before if the file is refused.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is damaged, holds other objects than tensors, or a state of another detector.
        """
        state = state_of_model(read_state(file), file)
        before = {name: tensor.clone() for name, tensor in self.state_dict().items()}
        try:
            self.load_state_dict(state)
        except Exception as error:  # whatever a hostile file makes fail
            self.load_state_dict(before)
            raise ValueError(f"expected the state of a {type(self).__name__} made alike in {file}: {error}") from error
        return self.eval()

    @property
    def device(self) -> torch.device:
        """Where the detector's tensors live."""
        tensor = next(self.parameters(), next(self.buffers(), None))
        return torch.device("cpu") if tensor is None else tensor.device

    def batches(self, loader: Iterable[Any], shape: Shape | None = None) -> Iterator[Tensor]:
        """Yield each batch's images, checked for being finite and of one size, on the detector's device."""
        if isinstance(loader, Tensor):
            raise TypeError("expected an iterable of batches, got one tensor: wrap it in a list, fit([images])")
        for batch in loader:
            images = unpack(batch).image
            check_images(images, shape)
            shape = shape_of(images)
            yield self.in_own_precision(images.to(self.device))

    def in_own_precision(self, images: Tensor) -> Tensor:
        """The images in the precision of the detector's parameters."""
        return images.to(next(self.parameters(), images).dtype)

    def forget_thresholds(self) -> None:
        """Predictions hold no labels and masks until the next `set_threshold`: what was learnt has changed."""
        self.image_threshold = None
        self.pixel_threshold = None

    def require_fitted(self) -> None:
        """Raise NotFittedError before `fit`."""
        if not self.is_fitted():
            raise NotFittedError(f"this {type(self).__name__} is not fitted: call fit(loader) or load_state_dict first")

    def remember_shape(self, images: Tensor) -> None:
        """Accept only images of this size (C, H, W) from now on."""
        self.set_image_shape(shape_of(images))

    def set_image_shape(self, shape: Shape) -> None:
        """Accept only images of this shape (C, H, W) from now on."""
        self._shape = shape
        self.image_shape = torch.tensor(shape, device=self.device)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        """Add the options to the state."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "options"] = encode_options(self.options)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Compare the options in the state with the own ones before anything is loaded."""
        saved = state_dict.pop(prefix + "options", None)
        missing_keys: list[str] = args[2]
        if saved is None:
            missing_keys.append(prefix + "options")
        else:
            check_options(decode_options(saved), self.options, type(self).__name__)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def after_load(self) -> None:
        """Restore Python values that derive from loaded buffers; call super's when overriding."""
        for name in ("image_threshold", "pixel_threshold"):
            threshold = getattr(self, name)
            if threshold is not None and threshold.shape != ():
                raise ValueError(f"expected one number as {name} in the state, got shape {tuple(threshold.shape)}")
        if self.image_shape is None:
            self._shape = None
        else:
            channels, height, width = self.image_shape.tolist()
            self._shape = (channels, height, width)
