"""IGD (paper 3.3, eqs. 10 and 11; Chen et al. 2101.10043): the detector on top of one model per scale."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from typing_extensions import Self

from detectors.base import AnomalyDetector, evaluating
from detectors.igd.backbone import PooledFeatures, feature_width
from detectors.igd.losses import IGDLosses
from detectors.igd.model import CodeMoments, IGDModel, TrainingPass
from detectors.igd.patches import SIDE, cut_patches
from detectors.igd.resuming import load_run, prepare_file, save_run
from detectors.igd.scoring import (
    Weights,
    check_options,
    fused_score,
    joined,
    judge,
    paper_score,
    reconstruction_weights,
    summed_map,
)
from detectors.igd.training import StepCallback, Training


class IGD(AnomalyDetector):
    """Anomalies are images that are badly reconstructed and whose codes lie far from the centre of normal codes.

    Eq. (10), s = xi l_rec + (1 - xi) (1 - h), of a model of the whole image ("global"), of one of its 32 x 32 patches
    at stride 16 ("local"; the worst patch counts), or nu global + (1 - nu) local ("both"). The map is the sum of the
    models' maps, with overlapping patches averaged.

    Args:
        backbone: Encoder that maps images (B, C, H, W) to pooled features (B, F), a torchvision ResNet included (its
            `fc` is left out). The detector keeps a copy, one per scale if it is trained.
        image_size: Side of the square images, one of 32, 64, 128, 256, 512.
        scales: "global", "local" or "both".
        channels: Channels of the images.
        freeze_backbone: Keep the backbone as it is; its batch-norm then stays in evaluation mode.
        width: Factor on the channels of decoders and critics; 1 is the paper's, less is faster.
        code_dim: Components of a code z.
        score: "fused" weighs reconstruction and classifier per model; "paper" is eqs. (10) and (11) literally: one
            l_rec of the global absolute error and both similarities (that of patches averaged), the global h.
        xi: Weight of the reconstruction in eq. (10), in [0, 1]: a number, or (global, local). None means .5 for one
            model and for "paper", else (.1, .9).
        nu: Weight of the global model, in [0, 1].
        rho: Weight of the absolute error in eq. (11), in [0, 1].
        data_range: Largest minus smallest possible pixel value.
        chunk_size: Patches that go through the local model at once in inference.

    Raises:
        TypeError: If the backbone is not a module.
        ValueError: If an option is out of range or the backbone does not return pooled features.

    Example:
        >>> backbone = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> detector = IGD(backbone, image_size=32, channels=1, scales="global", width=1 / 32)
        >>> prediction = detector.fit([torch.rand(8, 1, 32, 32)], epochs=1, progress=False)(torch.rand(2, 1, 32, 32))
        >>> prediction.pred_score.shape, prediction.anomaly_map.shape
        (torch.Size([2]), torch.Size([2, 1, 32, 32]))
    """

    def __init__(
        self,
        backbone: nn.Module,
        image_size: int = 256,
        scales: Literal["global", "local", "both"] = "both",
        *,
        channels: int = 3,
        freeze_backbone: bool = True,
        width: float = 1.0,
        code_dim: int = 128,
        score: Literal["fused", "paper"] = "fused",
        xi: float | tuple[float, float] | None = None,
        nu: float = 0.5,
        rho: float = 0.15,
        data_range: float = 1.0,
        chunk_size: int = 128,
    ) -> None:
        super().__init__()
        positive = {"width": width, "code_dim": code_dim, "data_range": data_range, "chunk_size": chunk_size}
        check_options(scales, score, xi, {"nu": nu, "rho": rho}, positive)
        self.image_size, self.channels, self.chunk_size = image_size, channels, chunk_size
        self.scales, self.score_rule = ("global", "local") if scales == "both" else (scales,), score
        self.weights = Weights(reconstruction_weights(xi, scales, score), nu, rho)
        owners = ["shared"] if freeze_backbone else [f"{scale}_backbone" for scale in self.scales]
        self.backbones = nn.ModuleDict({owner: PooledFeatures(backbone, freeze_backbone) for owner in owners})
        self.models = nn.ModuleDict()
        for scale in self.scales:
            side = image_size if scale == "global" else SIDE
            features = feature_width(self.backbone(scale), side, channels)
            self.models[f"{scale}_model"] = IGDModel(side, channels, features, code_dim, width, rho, data_range)

    @torch.enable_grad()
    def fit(
        self,
        loader: Any,
        epochs: int = 256,
        progress: bool = True,
        *,
        lr: float = 1e-4,
        refresh_every: int = 10,
        generator: torch.Generator | None = None,
        checkpoint: str | Path | None = None,
        resume: bool = False,
        on_step: StepCallback | None = None,
    ) -> Self:
        """Train on normal images, from the present weights on: Adam, weight decay 1e-6, rate lr (1 - t / T)^.9.

        Args:
            loader: Batches of images (B, C, H, H), or tuples that begin with them; has a length and can be iterated
                anew, as a DataLoader or a list. The paper's batches hold 16 images; the local model steps on as many
                whole images as make at most 450 patches.
            epochs: Passes over the loader.
            progress: Show a bar (needs tqdm; a line per epoch without it).
            lr: Learning rate at the start.
            refresh_every: Epochs between two refreshes of the classifier's centre and sigma.
            generator: Draws the shares of the interpolations, on the detector's device; None takes torch's own.
            checkpoint: File to write after each epoch; its folder is made where it is missing.
            resume: Go on from that file; the result is that of an uninterrupted run.
            on_step: Called after each step with the epoch and the loss terms by "<scale>/<term>", means over the
                batch's images or patches.

        Returns:
            The detector itself, in evaluation mode.

        Raises:
            TypeError: If a batch is not a floating-point tensor, or the loader has no length.
            ValueError: If there are no images or no epochs, shapes are wrong, or the checkpoint is of another run or
                cannot be written.
        """
        training = Training(self, loader, epochs, lr, refresh_every, generator)
        if resume:
            load_run(training, checkpoint)
        if checkpoint is not None:
            prepare_file(Path(checkpoint))
        while training.epoch < epochs:
            training.run_epoch(progress, on_step)
            if checkpoint is not None:
                save_run(training, Path(checkpoint))
        return self.eval()

    @torch.no_grad()
    def refresh(self, loader: Iterable[Any]) -> None:
        """Set each classifier's centre, then its sigma, from the codes of all normal images in one pass.

        Args:
            loader: Batches of normal images.

        Raises:
            ValueError: If there are no images, or their shape is wrong.
        """
        self.forget_thresholds()
        moments = {scale: CodeMoments() for scale in self.scales}
        with evaluating(self):
            for images in self.batches(loader, self.input_shape):
                for scale in self.scales:
                    for part in self.chunks(images, scale):
                        moments[scale].update(self.model(scale).project(self.features(part, scale)))
        for scale in self.scales:
            self.model(scale).set_gaussian(*moments[scale].result())
        self.remember_shape(images)

    def losses(self, images: Tensor, generator: torch.Generator | None = None) -> IGDLosses:
        """Return what encoders and decoders minimise, summed over scales; for a training loop of your own.

        No gradient reaches the critics' parameters. `generator_parameters()` are those to train.

        Args:
            images: Normal images (B, C, H, H).
            generator: Draws the shares of the interpolations.

        Returns:
            Scalars: total, reconstruction, classification, interpolation.

        Raises:
            NotFittedError: Before the first `refresh`.
        """
        per_scale = [self.model(s).losses(batch) for s, batch in self.training_passes(images, generator)]
        return IGDLosses(*(torch.stack(terms).sum() for terms in zip(*per_scale, strict=True)))

    def critic_loss(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return what the critics minimise, summed over scales; no gradient reaches encoders and decoders.

        `critic_parameters()` are those to train.

        Args:
            images: Normal images (B, C, H, H).
            generator: Draws the shares of the interpolations.

        Raises:
            NotFittedError: Before the first `refresh`.
        """
        per_scale = [self.model(s).critic_loss(batch) for s, batch in self.training_passes(images, generator)]
        return torch.stack(per_scale).sum()

    def is_fitted(self) -> bool:
        """Whether the classifiers' centres are known."""
        return self.image_shape is not None

    def score(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map checked images (B, C, H, H) to scores (B,) and maps (B, 1, H, H)."""
        parts = {
            scale: joined([judge(self.model(scale), x, self.features(x, scale)) for x in self.chunks(images, scale)])
            for scale in self.scales
        }
        image_score = fused_score if self.score_rule == "fused" else paper_score
        return image_score(parts, self.weights, len(images)), summed_map(parts, self.weights, self.image_size)

    def training_passes(self, images: Tensor, generator: torch.Generator | None) -> Iterator[tuple[str, TrainingPass]]:
        """Each scale with its pass over a batch."""
        self.require_fitted()
        for checked in self.batches([images], self.input_shape):
            for scale in self.scales:
                inputs = checked if scale == "global" else cut_patches(checked)
                yield scale, self.model(scale).training_pass(inputs, self.features(inputs, scale), generator)

    def chunks(self, images: Tensor, scale: str) -> list[Tensor]:
        """The inputs of a model in inference: the batch, or its patches in chunks."""
        return [images] if scale == "global" else list(torch.split(cut_patches(images), self.chunk_size))

    def features(self, images: Tensor, scale: str) -> Tensor:
        """Pooled features (B, F) of a model's inputs."""
        return self.backbone(scale)(images)  # type: ignore[no-any-return]

    def backbone(self, scale: str) -> PooledFeatures:
        """The backbone of a scale: one for all where it is frozen."""
        return self.backbones["shared" if "shared" in self.backbones else f"{scale}_backbone"]  # type: ignore[return-value]

    def model(self, scale: str) -> IGDModel:
        """The model of a scale."""
        return self.models[f"{scale}_model"]  # type: ignore[return-value]

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape (C, H, H) of the images."""
        return self.channels, self.image_size, self.image_size

    def generator_parameters(self, scale: str | None = None) -> list[nn.Parameter]:
        """Trainable parameters of encoders and decoders, of one scale or all."""
        scales = self.scales if scale is None else (scale,)
        own = [p for s in scales for p in self.model(s).generator_parameters()]
        return own + [p for s in scales for p in self.backbone(s).parameters() if p.requires_grad]

    def critic_parameters(self, scale: str | None = None) -> list[nn.Parameter]:
        """Parameters of the critics, of one scale or all."""
        scales = self.scales if scale is None else (scale,)
        return [p for s in scales for p in self.model(s).critic.parameters()]
