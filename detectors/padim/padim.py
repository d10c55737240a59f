"""PaDiM (paper 3.3, eq. 12; Defard et al. 2011.08785): a Gaussian of backbone features at every position."""

import copy
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from sklearn.exceptions import NotFittedError
from torch import Tensor, nn
from typing_extensions import Self

from detectors.backbones.extractor import FeatureExtractor, Normalisation
from detectors.base import AnomalyDetector
from detectors.description import Options
from detectors.inputs import Shape, check_images, shape_of, with_progress
from detectors.padim import processes
from detectors.padim.channels import choose_channels, draw_seed
from detectors.padim.checks import check_alike, check_levels, check_padim_options
from detectors.padim.gaussian import NestedGaussian
from detectors.padim.grids import GridPlan, plan_grids
from detectors.padim.heatmap import image_score
from detectors.padim.layout import MapLayout


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
        check_padim_options(num_features, blur_sigma, top_fraction, channels)
        self.extract = FeatureExtractor(backbone, layers, weights=weights, normalize=normalize)
        self.gaussian = NestedGaussian(eps)
        self.layout = MapLayout()
        self.num_features, self.nested = num_features, nested
        self.blur_sigma, self.top_fraction = blur_sigma, top_fraction
        # The number of channels shows at the first image; a number drawn now keeps the subset the same in every copy.
        self._channel_seed = draw_seed(generator)
        self._given_channels = channels
        self._plan: GridPlan | None = None
        for name in ("channels", "map_shapes"):
            self.register_late_buffer(name)
        self.register_load_state_dict_post_hook(settle_state)  # type: ignore[no-untyped-call]

    @property
    def options(self) -> Options:
        """Arguments of `PaDiM` that decide its scores."""
        layers, channels = self.extract.layers, self._given_channels
        return {
            "layers": None if layers is None else list(layers),
            "num_features": self.num_features,
            "eps": self.gaussian.eps,
            "blur_sigma": self.blur_sigma,
            "top_fraction": self.top_fraction,
            "nested": self.nested,
            "channels": None if channels is None else channels.tolist(),
        }

    @property
    def backbone_name(self) -> str | None:
        """Name of the backbone; None if it was given as a module."""
        return self.extract.name

    @classmethod
    def rebuild(cls, options: Options, backbone: str | nn.Module | None) -> Self:
        """Make an unfitted detector from saved options and the backbone's name, or a module."""
        if backbone is None:
            raise ValueError("its backbone was given as a module: pass one alike, load(file, backbone=module)")
        channels = options.get("channels")
        kept = None if channels is None else torch.tensor(channels)
        return cls(backbone, weights=None, **{**options, "channels": kept})

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
        self.reset()
        batches = self.batches(with_progress(loader, "PaDiM", progress))
        if processes.wanted(distributed):
            self._channel_seed = processes.of_first_process(self._channel_seed)
            processes.for_each(batches, self.take_in)
            self.join_processes()
        else:
            for images in batches:
                self.take_in(images)
        if self.channels is None:
            raise ValueError("expected at least one batch of normal images, got none: is the loader used up?")
        return self.finalize()

    def partial_fit(self, images: Tensor) -> Self:
        """Take in normal images (B, C, H, W); call `finalize` after the last ones."""
        check_images(images, self._shape)
        self.forget_thresholds()
        self.take_in(self.in_own_precision(images.to(self.device)))
        return self

    def merge(self, other: "PaDiM") -> Self:
        """Take in all images another detector with the same backbone was fitted on; call `finalize` afterwards.

        Raises:
            ValueError: If backbone channels, image size or grids differ.
        """
        check_alike(self.channels, self._shape, other.channels, other._shape)
        self.forget_thresholds()
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
        maps = self.extract(images)
        with torch.autocast(images.device.type, enabled=False):
            anomaly_map = self.map_of(maps)
        return image_score(anomaly_map, self.top_fraction), anomaly_map

    def map_of(self, maps: Sequence[Tensor]) -> Tensor:
        """Anomaly maps (B, 1, H, W) from the backbone's maps."""
        return self.layout.enlarge(self.distance(maps))

    def distance(self, maps: Sequence[Tensor]) -> Tensor:
        """Mahalanobis distances (B, h, w) on the finest of the backbone's maps, eq. (12)."""
        plan, _ = self.require_plan()
        squared = self.gaussian.squared_distance_of_tree(self.layout.values(plan, maps))
        return self.layout.positions(plan, squared.sqrt())

    def reset(self) -> None:
        """Forget all images, thresholds included; the channel subset is drawn anew from the same number."""
        self._shape, self._plan = None, None
        self.forget_thresholds()
        self.image_shape = None
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
        self.set_image_shape(image_shape)
        channels = choose_channels(map_shapes, self.num_features, self._channel_seed, self._given_channels)
        self.channels = channels.to(self.device)
        self.map_shapes = torch.tensor(map_shapes, device=self.device)
        self.make_plan()
        self.prepare()

    def make_plan(self) -> None:
        """Derive from channels and shapes what becomes of each map."""
        self._plan = None
        self.layout.clear()
        if self.channels is None or self.map_shapes is None or self._shape is None:
            return
        self._plan = plan_grids([(c, h, w) for c, h, w in self.map_shapes.tolist()], self.channels, self.nested)

    def prepare(self) -> None:
        """Compute what predictions need and only the plan decides."""
        if self._plan is not None and self.channels is not None and self._shape is not None:
            self.layout.prepare(self._plan, self.channels, self._shape[1:], self.blur_sigma)

    def require_plan(self) -> tuple[GridPlan, Tensor]:
        """The plan and the channels; raises before the first images."""
        if self._plan is None or self.channels is None:
            raise NotFittedError("this PaDiM has seen no images: call fit(loader) or partial_fit(images) first")
        return self._plan, self.channels

    def join_processes(self) -> None:
        """Merge the statistics of all processes; those without images take over the others' grids."""
        own = None
        if self.map_shapes is not None and self._shape is not None:
            own = processes.Settings(self._shape, self.map_shapes.tolist(), self.gaussian.levels)
        settings = processes.agreed(own)
        if settings is not None and own is None:
            self.settle(settings.image_shape, settings.map_shapes)
            self.gaussian.reset(settings.levels, self.device)
        if settings is not None:
            self.gaussian.all_reduce()

    def after_load(self) -> None:
        """Restore image size and grids."""
        super().after_load()
        self.make_plan()


def settle_state(detector: PaDiM, keys: Any) -> None:
    """Refuse a loaded state whose channels and grids do not belong together; then prepare predictions."""
    if detector.channels is not None and detector.map_shapes is not None:
        check_levels(detector._plan.levels if detector._plan else [], detector.gaussian.levels)
    detector.prepare()
