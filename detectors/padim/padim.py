"""PaDiM (paper 3.3, eq. 12; Defard et al. 2011.08785): a Gaussian of backbone features at every position."""

import copy
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from detectors.backbones.extractor import FeatureExtractor, Normalisation
from detectors.base import AnomalyDetector
from detectors.description import Options
from detectors.inputs import Shape, check_images, shape_of, with_progress
from detectors.padim import processes
from detectors.padim.embedding import PatchEmbedding
from detectors.padim.gaussian import NestedGaussian
from detectors.padim.heatmap import image_score


class PaDiM(AnomalyDetector):
    """Anomalies are places whose features are far, in Mahalanobis distance (eq. 12), from those of normal images.

    At each position of the finest feature map, the features of all layers (coarser ones repeated by nearest
    neighbour, a random subset of channels) follow a Gaussian whose mean and covariance + eps I are learnt from normal
    images. The map is the distance, resized bilinearly and blurred. Batches are merged as they come: memory does not
    depend on the number of images. After pre-training with MSACL, ("layer3",) with all of its channels often scores
    images better than the defaults, which are the paper's: docs/howto/layers-and-scores.md.

    Args:
        backbone: A name of torchvision ("resnet18") or timm ("timm:tf_efficientnet_lite0"), a file, or a module with
            the named layers or returning maps; see `FeatureExtractor`. The detector keeps a frozen copy.
        layers: Names of the backbone's submodules, or None for the maps its forward returns.
        num_features: Channels kept, drawn at random from all layers together; None keeps all.
        eps: Added to the diagonal of each covariance.
        blur_sigma: Standard deviation of the Gaussian blur in image pixels; 0 leaves it out, as eq. (12) prints it.
        weights: Of a name: "imagenet", torchvision's "DEFAULT" or another, the path of a state_dict, None for random.
        normalize: (mean, std), "imagenet" or None: what images in [0, 1] need before the backbone. "auto" is
            "imagenet" for torchvision's published weights, None for a module, which gets the images as they are.
        top_fraction: The image score is the mean of this share of highest pixels, in [0, 1]; 0 takes the maximum.
        nested: None equals nearest upsampling at every size: where the grids do not nest, all layers are joined on the
            finest one. True pads them instead (a slightly different model there, less memory), False always joins.
        channels: Indices (num_features,) of the channels to keep, counted through the layers in their order.
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
        if not 0 <= top_fraction <= 1:
            raise ValueError(f"expected top_fraction in [0, 1], got {top_fraction}: 0 takes the maximum")
        self.extract = FeatureExtractor(backbone, layers, weights=weights, normalize=normalize)
        self.embedding = PatchEmbedding(num_features, nested, blur_sigma, channels, generator)
        self.gaussian = NestedGaussian(eps)
        self.top_fraction = top_fraction
        self.register_load_state_dict_post_hook(_prepare_loaded)  # type: ignore[no-untyped-call]

    @property
    def channels(self) -> Tensor | None:
        """Channels (num_features,) kept, ascending, counted through the layers; None before the first images."""
        return self.embedding.channels

    @property
    def options(self) -> Options:
        """Arguments of `PaDiM` that decide its scores."""
        channels = self.embedding.given_channels
        return {
            "layers": self.extract.layers,
            "num_features": self.embedding.num_features,
            "eps": self.gaussian.eps,
            "blur_sigma": self.embedding.blur_sigma,
            "top_fraction": self.top_fraction,
            "nested": self.embedding.nested,
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
        self._reset()
        batches = self.batches(with_progress(loader, "PaDiM", progress))
        if processes.should_join(distributed):
            self.embedding.channel_seed = processes.broadcast_int(self.embedding.channel_seed)
            processes.run_all_or_raise(batches, self._update)
            self._join_processes()
        else:
            for images in batches:
                self._update(images)
        if self.channels is None:
            raise ValueError("expected at least one batch of normal images, got none: is the loader used up?")
        return self.finalize()

    def partial_fit(self, images: Tensor) -> Self:
        """Take in normal images (B, C, H, W); call `finalize` after the last ones."""
        check_images(images, self._shape)
        self.forget_thresholds()
        self._update(self.in_own_precision(images.to(self.device)))
        return self

    def merge(self, other: "PaDiM") -> Self:
        """Take in all images of another detector with the same backbone, image size and channels; then `finalize`."""
        _check_alike(self, other)
        self.forget_thresholds()
        self.gaussian.merge(other.gaussian)
        return self

    def finalize(self) -> Self:
        """Factorise the covariances; the detector can predict from then on. Raises ValueError as `fit` does."""
        self.gaussian.finalize()
        return self

    def for_inference(self) -> Self:
        """Return a faster, smaller copy that only predicts: batch-norms folded, no moments.

        Scores agree to rounding. Save the detector itself, not this copy: its state_dict has other names.
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
        maps = self.extract.maps(images)
        with torch.autocast(images.device.type, enabled=False):
            embedding = self.embedding(maps)  # (values of all levels, B), in tree order
            distance = self.gaussian.squared_distance(embedding).sqrt()  # (cells, B), eq. (12)
            anomaly_map = self.embedding.anomaly_map(distance)  # (B, 1, H, W), resized and blurred
        return image_score(anomaly_map, self.top_fraction), anomaly_map

    def _reset(self) -> None:
        """Forget all images, thresholds included; the channel subset is drawn anew from the same number."""
        self.forget_thresholds()
        self._shape = None
        self.image_shape = None
        self.embedding.clear()
        self.gaussian.clear()

    @torch.no_grad()
    def _update(self, images: Tensor) -> None:
        """Update the Gaussians with checked images; the first ones settle channels and grids."""
        if self.channels is None:
            self.extract.choose_memory_format(shape_of(images))
        maps = self.extract.maps(images)
        if self.channels is None:
            self._initialise(shape_of(images), [shape_of(one) for one in maps])
        with torch.autocast(images.device.type, enabled=False):
            self.gaussian.update(self.embedding(maps))

    def _initialise(self, image_shape: Shape, map_shapes: list[Shape]) -> None:
        """Fix image size, channel subset and grids."""
        self.set_image_shape(image_shape)
        self.embedding.initialise(map_shapes, image_shape[1:])
        self.gaussian.start(self.embedding.levels, self.device)

    def _join_processes(self) -> None:
        """Merge the statistics of all processes; those without images take over the others' grids."""
        own = None
        if self.embedding.map_shapes is not None and self._shape is not None:
            own = processes.Settings(self._shape, self.embedding.map_shapes.tolist(), self.gaussian.levels)
        settings = processes.agree(own)
        if settings is None:
            return
        if own is None:
            self._initialise(settings.image_shape, settings.map_shapes)
        self.gaussian.all_reduce()


def _check_alike(one: PaDiM, other: PaDiM) -> None:
    """Refuse to join detectors that keep different channels or saw images of different shapes."""
    if one.channels is None or other.channels is None:
        raise ValueError("expected two detectors that have seen images: call partial_fit or fit on each first")
    same_channels = torch.equal(one.channels.cpu(), other.channels.cpu())
    if one._shape != other._shape or not same_channels:
        raise ValueError(
            f"expected a detector of the same image size and channels, got {other._shape} for {one._shape}: make "
            "both as copies of one unfitted detector, or pass the same channels"
        )


def _prepare_loaded(detector: PaDiM, keys: Any) -> None:
    """Prepare predictions after loading; refuse a state whose channels and grids do not belong together."""
    embedding = detector.embedding
    if embedding.channels is None or embedding.map_shapes is None or detector._shape is None:
        expected = embedding.levels
    else:
        expected = embedding.choose_levels()
    # The Gaussian's levels are those of tensors that exist: nothing larger is made before both are found equal.
    if expected != detector.gaussian.levels:
        got = detector.gaussian.levels
        raise ValueError(f"expected grids {expected} in the state, got {got}: was nested the same?")
    if expected and detector._shape is not None:
        embedding.prepare(detector._shape[1:])
        detector.extract.choose_memory_format(detector._shape)
