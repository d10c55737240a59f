"""PaDiM (paper 3.3, eq. 12; Defard et al. 2011.08785): a Gaussian of backbone features at every position."""

import copy
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from sklearn.exceptions import NotFittedError
from torch import Tensor, nn
from typing_extensions import Self

from detectors.base import AnomalyDetector
from detectors.channels import check_channels, draw_channels
from detectors.features import FeatureExtractor, Normalisation
from detectors.gaussian import NestedGaussian
from detectors.grids import GridPlan, plan_grids
from detectors.heatmap import image_score, resize_and_blur_matrix
from detectors.inputs import Shape, check_images, with_progress
from detectors.tree import Level


class PaDiM(AnomalyDetector):
    """Anomalies are places whose features are far, in Mahalanobis distance (eq. 12), from those of normal images.

    At each position of the finest feature map, the features of all layers (coarser ones repeated by nearest
    neighbour, a random subset of channels) follow a Gaussian whose mean and covariance + eps I are learnt from normal
    images. The map is the distance, resized bilinearly and blurred. Batches are merged as they come: memory does not
    depend on the number of images.

    Args:
        backbone: A torchvision name, a file, or a module with the named layers or returning maps; see
            `FeatureExtractor`. The detector keeps a frozen copy.
        layers: Names of the backbone's submodules, or None for the maps its forward returns.
        num_features: Channels kept, drawn at random from all layers together; None keeps all.
        eps: Added to the diagonal of each covariance.
        blur_sigma: Standard deviation of the Gaussian blur in image pixels; 0 leaves it out, as eq. (12) prints it.
        weights: Of a torchvision name: "DEFAULT", another of its names, the path of a state_dict, None for random.
        normalize: (mean, std), "imagenet" or None: what images in [0, 1] need before the backbone. "auto" is
            "imagenet" for torchvision's published weights, None for a module, which gets the images as they are.
        top_fraction: The image score is the mean of this share of highest pixels, in [0, 1]; 0 takes the maximum.
        nested: None keeps parity with nearest upsampling at every size: where the grids do not nest, all layers are
            joined on the finest one. True pads them by replication instead (a slightly different model there, less
            memory), False always joins.
        channels: Indices (num_features,) of the channels to keep instead of a random subset, counted through the
            layers in their order.
        generator: Draws the subset; None takes torch's global one.

    Raises:
        TypeError: If the backbone is no name, path or module.
        ValueError: If an option is out of range.

    Example:
        >>> detector = PaDiM("resnet18", weights=None, num_features=20).fit([torch.rand(4, 3, 32, 32)])
        >>> prediction = detector(torch.rand(2, 3, 32, 32))
        >>> prediction.pred_score.shape, prediction.anomaly_map.shape
        (torch.Size([2]), torch.Size([2, 1, 32, 32]))
    """

    channels: Tensor | None
    map_shapes: Tensor | None
    resize_rows: Tensor | None
    resize_columns: Tensor | None

    def __init__(
        self,
        backbone: str | Path | nn.Module,
        layers: Sequence[str] | None = ("layer1", "layer2", "layer3"),
        num_features: int | None = 100,
        eps: float = 0.01,
        blur_sigma: float = 4.0,
        *,
        weights: str | Path | None = "DEFAULT",
        normalize: Normalisation = "auto",
        top_fraction: float = 0.0,
        nested: bool | None = None,
        channels: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_options(num_features, blur_sigma, top_fraction, channels)
        self.extract = FeatureExtractor(backbone, layers, weights=weights, normalize=normalize)
        self.gaussian = NestedGaussian(eps)
        self.num_features, self.nested = num_features, nested
        self.blur_sigma, self.top_fraction = blur_sigma, top_fraction
        # The number of channels shows at the first image; a number drawn now keeps the subset the same in every copy.
        self._channel_seed = int(torch.randint(2**62, (), generator=generator, device=generator_device(generator)))
        self._given_channels = channels
        self._plan: GridPlan | None = None
        for name in ("channels", "map_shapes"):
            self.register_late_buffer(name)
        for name in ("resize_rows", "resize_columns"):
            self.register_buffer(name, None, persistent=False)
        self.register_load_state_dict_post_hook(check_state)  # type: ignore[no-untyped-call]

    def fit(self, loader: Iterable[Any], *, progress: bool = False, distributed: bool | None = None) -> Self:
        """Forget what was learnt and fit on normal images in one pass.

        Args:
            loader: Batches: tensors (B, C, H, W), tuples that begin with them, or dicts with "image".
            progress: Show a bar (needs tqdm).
            distributed: Join the statistics of all processes of torch.distributed's default group, each of which
                passes its own share of the images; None does so whenever the group exists.

        Returns:
            The detector itself.

        Raises:
            TypeError: If a batch holds no floating-point images.
            ValueError: If sizes differ, values are not finite, there are fewer than two images, or a covariance is not
                positive definite (the message names the position).
        """
        joined = dist.is_available() and dist.is_initialized() if distributed is None else distributed
        self.reset()
        if joined:
            self._channel_seed = of_first_process(self._channel_seed)
        for images in self.batches(with_progress(loader, "PaDiM", progress)):
            self.take_in(images)
        if joined:
            self.join_processes()
        return self.finalize()

    def partial_fit(self, images: Tensor) -> Self:
        """Take in normal images (B, C, H, W); call `finalize` after the last ones."""
        check_images(images, self._shape)
        self.take_in(images.to(self.device))
        return self

    def merge(self, other: "PaDiM") -> Self:
        """Take in all images another detector was fitted on; call `finalize` afterwards.

        Raises:
            ValueError: If backbone channels, image size or grids differ.
        """
        if other.channels is None or self.channels is None:
            raise ValueError("expected two detectors that have seen images: call partial_fit or fit on each first")
        if self._shape != other._shape or not torch.equal(self.channels.cpu(), other.channels.cpu()):
            raise ValueError(
                f"expected a detector of the same image size and channels, got {other._shape} for {self._shape}: make "
                "both as copies of one unfitted detector, or pass the same channels"
            )
        self.gaussian.merge(other.gaussian)
        return self

    def finalize(self) -> Self:
        """Factorise the covariances; the detector can predict from then on.

        Raises:
            ValueError: If fewer than two images were seen, or a covariance is not positive definite.
        """
        self.gaussian.finalize()
        return self

    def for_inference(self) -> Self:
        """Return a faster, smaller copy that only predicts: batch-norms folded, channels_last, no moments.

        Scores agree to rounding. Save the detector itself, not this copy: its state_dict has other names.

        Raises:
            NotFittedError: Before `fit`.
        """
        self.require_fitted()
        fast = copy.deepcopy(self)
        fast.extract.fold()
        fast.gaussian.moments = None
        return fast

    def is_fitted(self) -> bool:
        """Whether the covariances are factorised."""
        return self.gaussian.whitening is not None

    def score(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map checked images (B, C, H, W) to scores (B,) and maps (B, 1, H, W)."""
        distance = self.distance(images)
        assert self.resize_rows is not None
        assert self.resize_columns is not None
        with torch.autocast(images.device.type, enabled=False):
            anomaly_map = (self.resize_rows @ distance @ self.resize_columns.mT)[:, None]
        return image_score(anomaly_map, self.top_fraction), anomaly_map

    def distance(self, images: Tensor) -> Tensor:
        """Mahalanobis distances (B, h, w) on the finest feature grid, eq. (12)."""
        plan, channels = self.require_plan()
        maps = self.extract(images)
        with torch.autocast(images.device.type, enabled=False):
            squared = self.gaussian.squared_distance(plan.levels_of(maps, channels))
        rows, columns = plan.size  # what lies beyond was padded
        return squared[:, :rows, :columns].sqrt()

    def reset(self) -> None:
        """Forget all images, thresholds included; the channel subset is drawn anew from the same number."""
        self._shape, self._plan = None, None
        self.image_shape = self.image_threshold = self.pixel_threshold = None
        self.channels = self.map_shapes = None
        self.gaussian.clear()

    @torch.no_grad()
    def take_in(self, images: Tensor) -> None:
        """Update the Gaussians with checked images; the first ones settle channels and grids."""
        maps = self.extract(images)
        if self._plan is None:
            self.settle(shape_of(images), [shape_of(m) for m in maps])
        plan, channels = self.require_plan()
        with torch.autocast(images.device.type, enabled=False):
            self.gaussian.update(plan.levels_of(maps, channels))

    def settle(self, image_shape: Shape, map_shapes: list[Shape]) -> None:
        """Fix image size, channel subset and grids."""
        total = sum(channels for channels, _, _ in map_shapes)
        if self._given_channels is not None:
            channels = check_channels(self._given_channels, total)
        else:
            channels = draw_channels(total, self.num_features, self._channel_seed)
        self.set_image_shape(image_shape)
        self.channels = channels.to(self.device)
        self.map_shapes = torch.tensor(map_shapes, device=self.device)
        self.make_plan()

    def make_plan(self) -> None:
        """Derive from channels and shapes what becomes of each map, and the matrices of the heat map."""
        if self.channels is None or self.map_shapes is None or self._shape is None:
            self._plan = self.resize_rows = self.resize_columns = None
            return
        shapes = [(c, rows, columns) for c, rows, columns in self.map_shapes.tolist()]
        total = sum(c for c, _, _ in shapes)
        if not 0 <= int(self.channels.min()) <= int(self.channels.max()) < total:
            raise ValueError(f"expected channels in [0, {total}) in the state, got {self.channels.tolist()}")
        self._plan = plan_grids(shapes, self.channels, self.nested)
        matrices = (
            resize_and_blur_matrix(size, out_size, self.blur_sigma).float().to(self.device)
            for size, out_size in zip(self._plan.size, self._shape[1:], strict=True)
        )
        self.resize_rows, self.resize_columns = matrices

    def require_plan(self) -> tuple[GridPlan, Tensor]:
        """The plan and the channels; raises before the first images."""
        if self._plan is None or self.channels is None:
            raise NotFittedError("this PaDiM has seen no images: call fit(loader) or partial_fit(images) first")
        return self._plan, self.channels

    def join_processes(self) -> None:
        """Merge the statistics of all processes; those without images take over the others' grids."""
        own = None if self.map_shapes is None else (self._shape, self.map_shapes.tolist(), self.gaussian.levels)
        everyone: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(everyone, own)
        seen = [state for state in everyone if state is not None]
        if any(state != seen[0] for state in seen):
            raise ValueError(f"expected images of one size in all processes, got {[s and s[0] for s in everyone]}")
        if seen and own is None:
            shape, map_shapes, levels = seen[0]
            self.settle(shape, map_shapes)
            self.gaussian.reset(levels, self.device)
        if seen:
            self.gaussian.all_reduce()

    def after_load(self) -> None:
        """Restore image size, grids and the matrices of the heat map."""
        super().after_load()
        self.make_plan()


def check_state(detector: PaDiM, keys: Any) -> None:
    """Refuse a loaded state whose channels and grids do not belong together."""
    if detector.channels is None or detector.map_shapes is None:
        return
    plan = detector._plan
    counts = [] if plan is None else [sum(plan.counts[k] for k in group) for group in plan.groups]
    expected = [] if plan is None else [Level(*size, n) for size, n in zip(plan.sizes, counts, strict=True)]
    if detector.gaussian.levels != expected:
        raise ValueError(
            f"expected grids {expected} in the state, got {detector.gaussian.levels}: was nested the same?"
        )


def check_options(num_features: int | None, blur_sigma: float, top_fraction: float, channels: Tensor | None) -> None:
    """Refuse options out of range."""
    if num_features is not None and num_features < 1:
        raise ValueError(f"expected num_features >= 1, or None for all, got {num_features}")
    if blur_sigma < 0:
        raise ValueError(f"expected blur_sigma >= 0, got {blur_sigma}: 0 leaves the blur out")
    if not 0 <= top_fraction <= 1:
        raise ValueError(f"expected top_fraction in [0, 1], got {top_fraction}: 0 takes the maximum")
    if channels is not None and (channels.ndim != 1 or channels.is_floating_point() or len(channels) == 0):
        raise ValueError(f"expected channels as a vector of integers, got {channels.dtype}, {tuple(channels.shape)}")


def shape_of(values: Tensor) -> Shape:
    """Shape (C, H, W) of a batch."""
    return values.shape[1], values.shape[2], values.shape[3]


def of_first_process(value: int) -> int:
    """The first process's value, in every process."""
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


def generator_device(generator: torch.Generator | None) -> torch.device:
    """Where to draw."""
    return torch.device("cpu") if generator is None else generator.device
