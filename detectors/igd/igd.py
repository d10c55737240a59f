"""IGD (paper 3.3, eqs. 10 and 11; Chen et al. 2101.10043): the detector on top of one model per scale."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, Self, cast

import torch
from torch import Tensor, nn

from detectors.description import Options
from detectors.igd.backbone import PooledFeatures, feature_width
from detectors.igd.model import IGDModel
from detectors.igd.options import check_choice, check_count, check_positive
from detectors.igd.own_loop import OwnLoop
from detectors.igd.run_file import Run, random_sources
from detectors.igd.scales import KINDS
from detectors.igd.scoring import SCORES, fused_score, paper_score, run_scale, score_weights, summed_map
from detectors.igd.training import StepCallback, Training, check_length, count_steps
from detectors.inputs import check_span, with_progress


class IGD(OwnLoop):
    """Anomalies are images that are badly reconstructed and whose codes lie far from the centre of normal codes.

    `fit` trains it; `refresh`, `losses` and `critic_loss` (of OwnLoop) are the parts of a training loop of your own.

    Eq. (10), s = xi l_rec + (1 - xi) (1 - h), of a model of the whole image ("global"), of one of its 32 x 32 patches
    at stride 16 ("local"; the worst patch counts), or nu global + (1 - nu) local ("both"). The map is the sum of the
    models' maps, with overlapping patches averaged.

    Args:
        backbone: Encoder of images: a name of torchvision ("resnet18") or timm ("timm:tf_efficientnet_lite0"), or a
            module that maps images (B, C, H, W) to pooled features (B, F); the last linear layer of its `fc`,
            `classifier`, `heads` or `head` is left out. The detector keeps a copy, one per scale if it is trained.
        image_size: Side of the square images, a multiple of 32.
        scales: "global", "local" or "both".
        channels: Channels of the images.
        weights: Of a backbone's name: "imagenet", the path of a state_dict, or None for random ones.
        projection: Module that maps features (B, F) to codes (B, code_dim), from which each scale starts in place of a
            new linear layer: MSACL's projection, for instance. Copies of it are trained.
        freeze_backbone: Keep the backbone as it is; its batch-norm then stays in evaluation mode.
        width: Factor on the channels of decoders and critics; 1 is the paper's, less is faster.
        code_dim: Components of a code z.
        score: "fused" weighs reconstruction and classifier per model; "paper" is eqs. (10) and (11) literally: one
            l_rec of the global absolute error and both similarities (that of patches averaged), the global h. With one
            scale both are the same.
        xi: Weight of the reconstruction in eq. (10), in [0, 1]: a number, or (global, local). None means .5 for one
            model and for "paper", else (.1, .9).
        nu: Weight of the global model, in [0, 1].
        rho: Weight of the absolute error in eq. (11), in [0, 1].
        data_range: Largest minus smallest possible pixel value.
        chunk_size: Patches that go through the local model at once in inference.

    Raises:
        TypeError: If the backbone is no name, path or module, or the projection is no module.
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
        backbone: str | Path | nn.Module,
        image_size: int = 256,
        scales: Literal["global", "local", "both"] = "both",
        *,
        channels: int = 3,
        weights: str | Path | None = "imagenet",
        projection: nn.Module | None = None,
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
        check_choice("scales", scales, KINDS)
        check_choice("score", score, SCORES)
        check_positive(width=width, data_range=data_range)
        check_count(image_size=image_size, channels=channels, code_dim=code_dim, chunk_size=chunk_size)
        kinds = KINDS[scales]
        self._options: Options = {
            "image_size": image_size,
            "scales": scales,
            "channels": channels,
            "projection": projection is not None,
            "freeze_backbone": freeze_backbone,
            "width": width,
            "code_dim": code_dim,
            "score": score,
            "xi": xi,
            "nu": nu,
            "rho": rho,
            "data_range": data_range,
        }
        self.image_size = image_size
        self.channels = channels
        self.chunk_size = chunk_size
        names = [kind.name for kind in kinds]
        self.score_weights = score_weights(names, score, xi, nu, rho)
        # With one model the literal equations hold one similarity only, which is the fused score.
        self.image_score = paper_score if score == "paper" and scales == "both" else fused_score
        # A frozen backbone serves all scales; one that is trained becomes another for each.
        self.backbones = nn.ModuleDict()
        self.models = nn.ModuleDict()
        self.scales = {}
        for kind in kinds:
            owner = "shared" if freeze_backbone else f"{kind.name}_backbone"
            if owner not in self.backbones:
                self.backbones[owner] = PooledFeatures(backbone, freeze_backbone, weights)
            pooled = cast(PooledFeatures, self.backbones[owner])
            side = kind.side(image_size)
            features = feature_width(pooled, side, channels)
            model = IGDModel(side, channels, features, code_dim, width, rho, data_range, projection)
            self.models[f"{kind.name}_model"] = model
            self.scales[kind.name] = kind(model, pooled, image_size)

    @property
    def options(self) -> Options:
        """Arguments of `IGD` that decide its scores."""
        return self._options

    @property
    def backbone_name(self) -> str | None:
        """Name of the backbone; None if it was given as a module."""
        return next(iter(self.scales.values())).backbone.name

    @classmethod
    def rebuild(cls, options: Options, backbone: str | nn.Module | None) -> Self:
        """Make an unfitted detector from saved options and the backbone's name, or a module."""
        if backbone is None:
            raise ValueError("its backbone was given as a module: pass one alike, load(file, backbone=module)")
        given = dict(options)
        if given.pop("projection", False):
            raise ValueError("its projection was given as a module: make IGD(..., projection=module).load(file)")
        if isinstance(given.get("xi"), list):
            given["xi"] = tuple(given["xi"])
        return cls(backbone, weights=None, **given)

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
            epochs: Passes over the loader. A run that goes on may have more than the one that wrote its checkpoint: the
                rate then follows the longer schedule from there on.
            progress: Show a bar (needs tqdm; a line per epoch without it).
            lr: Learning rate at the start.
            refresh_every: Epochs between two refreshes of the classifier's centre and sigma.
            generator: Draws the shares of the interpolations, on the detector's device; None takes torch's own.
            checkpoint: File to write after each epoch; its folder is made where it is missing. Ctrl-C leaves the last
                epoch's file, and a detector in evaluation mode with the weights of the last step.
            resume: Go on from that file; the result is that of an uninterrupted run.
            on_step: Called after each step with the epoch and the loss terms by "<scale>/<term>", means over the
                batch's images or patches.

        Returns:
            The detector itself, in evaluation mode.

        Raises:
            TypeError: If a batch is not a floating-point tensor, or the loader has no length.
            ValueError: If there are no images or no epochs, shapes or values are wrong, the loader holds fewer batches
                than its length says, or the checkpoint is of another run or cannot be written.
        """
        check_positive(lr=lr)
        steps_per_epoch = count_steps(loader, epochs, refresh_every)
        training = Training(self.scales, lr, epochs * steps_per_epoch, generator)
        shared = {name: self._options[name] for name in ("scales", "freeze_backbone")}
        settings = {"steps_per_epoch": steps_per_epoch, **shared}
        run = Run(self, training, random_sources(loader, generator, self.device), settings, epochs, checkpoint)
        run.start(resume)
        try:
            while run.epoch < epochs:
                if run.epoch % refresh_every == 0:
                    self.refresh(loader)
                bar = with_progress(loader, f"epoch {run.epoch + 1}/{epochs}", progress)
                steps = self._run_epoch(training, bar, run.epoch, on_step)
                check_length(steps, steps_per_epoch)
                run.end_epoch()
        finally:
            self.eval().zero_grad(set_to_none=True)  # whatever stopped it: usable, and no gradients kept
        return self

    def _run_epoch(self, training: Training, loader: Iterable[Any], epoch: int, on_step: StepCallback | None) -> int:
        """Train on every batch of the loader once; returns how many there were."""
        self.train()
        steps = 0
        for images in self.batches(loader, self.input_shape):
            terms = training.step(images)
            steps += 1
            if on_step is not None:
                on_step(epoch, terms)
        return steps

    def is_fitted(self) -> bool:
        """Whether the classifiers' centres are known."""
        return self.image_shape is not None

    def score(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map checked images (B, C, H, H) to scores (B,) and maps (B, 1, H, H)."""
        if images.device.type == "cpu":
            check_span(images, self.data_range)
        # A graph is built only for images that ask for a gradient: the models' parameters always do.
        with torch.set_grad_enabled(images.requires_grad and torch.is_grad_enabled()):
            outputs = {}
            for name, scale in self.scales.items():
                outputs[name] = run_scale(scale, images, self.chunk_size)
            scores = self.image_score(self.scales, outputs, self.score_weights)
            maps = summed_map(self.scales, outputs, self.score_weights)
        return scores, maps
