"""Pre-training that can be stopped, resumed and shared among processes."""

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from data import Batches
from networks.encoders import Architecture, Encoder, Init, calibrated, is_late, make_backbone
from networks.fast_convolutions import fast_twin, folded_twin
from networks.joined_batch_norm import join_batch_norm
from rows import Recipe, adapts
from step import TrainingStep, own_rows
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from detectors.checkpoint import read_state, write_safely
from msacl_loss import estimate_centres


@dataclass(frozen=True)
class Setting:
    """What a pre-training needs beside its recipe."""

    architecture: Architecture = "efficientnet_lite0"
    """Backbone."""
    init: Init = "imagenet"
    """Weights to start from."""
    seed: int = 0
    """Seed of new weights, order and augmentations."""
    device: str = "cpu"
    """Device, such as cpu or cuda."""
    amp: bool = False
    """Whether the encoder runs in bfloat16."""

    @property
    def start(self) -> str:
        """What training begins with, as the CSV files spell it."""
        return f"{self.architecture} {self.init}"


class Pretraining:
    """A run that can be stopped and resumed after any epoch.

    Args:
        images: Healthy images (N, 3, S, S), uint8.
        recipe: How to train.
        setting: From what, with which seed and where.
    """

    def __init__(self, images: Tensor, recipe: Recipe, setting: Setting) -> None:
        torch.manual_seed(setting.seed)  # the initial weights
        self.images = images
        self.recipe = recipe
        self.setting = setting
        self.generator = torch.Generator(setting.device).manual_seed(setting.seed)
        order = torch.Generator().manual_seed(setting.seed)
        self.batches = Batches(images, batch_size=recipe.batch_size, generator=order, drop_last=True)

        # The trained tensors belong to `backbone`; with frozen statistics a faster twin computes with them.
        start = make_backbone(setting.architecture, setting.init).to(setting.device)
        self.backbone = calibrated(start, images).to(memory_format=torch.channels_last)
        self.adapts = adapts(recipe, images, setting.init)
        _freeze_early(self.backbone, not self.adapts)
        twin = fast_twin if self.adapts else folded_twin
        encoder = Encoder(twin(self.backbone))
        step = TrainingStep(encoder, recipe, images.shape[-1], changes_colours=self.adapts, amp=setting.amp)
        self.step = self.model = step.to(setting.device)
        if dist.is_initialized():
            self.model = DistributedDataParallel(join_batch_norm(self.step))
        self.optimiser = torch.optim.SGD(self._parameter_groups(), momentum=0.9, weight_decay=3e-4)
        self.epoch = 0

    def _parameter_groups(self) -> list[dict[str, object]]:
        """Backbone, projection and heads, each with its learning rate."""
        recipe = self.recipe
        trained = [p for p in self.backbone.parameters() if p.requires_grad]
        backbone_lr = recipe.adapt_lr if self.adapts else recipe.keep_lr
        rate = recipe.rates[0] if self.adapts else recipe.rates[1]
        return [
            {"params": trained, "lr": rate * backbone_lr},
            {"params": list(self.step.encoder.projection.parameters()), "lr": rate * recipe.projection_lr},
            {"params": list(self.step.criterion.parameters()), "lr": rate * recipe.heads_lr},
        ]

    def set_centres(self) -> None:
        """Set the classes' mean embeddings before the first step, equation (2), or zeros where nothing is centred."""
        criterion = self.step.criterion
        if not self.recipe.centred:
            criterion.set_centres(torch.zeros_like(criterion.centres))
            return
        views = (self.step.views(x.to(self.setting.device), generator=self.generator) for x in self.batches)
        batches = ((own_rows(torch.cat([a, b])), own_rows(labels.repeat(2))) for a, b, labels in views)
        self._set_mode()
        centres = estimate_centres(self.step.embed, batches, num_classes=self.recipe.num_classes)
        criterion.set_centres(centres)

    def _set_mode(self) -> None:
        """Train; batch-norm with frozen statistics stays in evaluation mode."""
        self.model.train()
        if not self.adapts:
            self.step.encoder.backbone.eval()

    def train_epoch(self, progress: bool = True) -> dict[str, float]:
        """Pass over the images once; returns the epoch's mean terms and class statistics."""
        self._set_mode()
        rows = []
        for images in tqdm(self.batches, desc=f"epoch {self.epoch + 1}", disable=not progress, leave=False):
            terms, z, labels = self.model(images.to(self.setting.device), self.generator)
            statistics = self.class_statistics(z, labels)  # before the heads see these embeddings
            self.optimiser.zero_grad(set_to_none=True)
            terms.total.backward()
            self.optimiser.step()
            rows.append({k: v.detach() for k, v in terms._asdict().items()} | statistics)
        self.epoch += 1
        return {key: float(torch.stack([row[key] for row in rows]).mean()) for key in rows[0]}

    @torch.no_grad()
    def class_statistics(self, z: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Accuracy of term (8): are the classes learnt?"""
        logits = self.step.criterion.augmentation_head(z)
        return {"accuracy": (logits.argmax(1) == labels).float().mean()}

    def finished_backbone(self) -> nn.Module:
        """Copy the backbone with batch-norm statistics of plain healthy images, which is what detectors feed it.

        Where they were frozen it has them, and was trained with them: new ones would undo a part of what was learnt.
        """
        if not self.adapts:
            return copy.deepcopy(self.backbone).requires_grad_(True)
        return calibrated(self.backbone, self.images).requires_grad_(True)

    def state_dict(self) -> dict[str, object]:
        """All that `load_state_dict` needs to go on as if nothing had happened."""
        return {
            "step": self.step.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "generator": self.generator.get_state(),
            "order": self.batches.generator.get_state(),
            "epoch": self.epoch,
            "recipe": asdict(self.recipe),
            "setting": asdict(self.setting),
        }

    def load_state_dict(self, state: dict) -> None:
        """Restore what `state_dict` returned, of a run with the same options; only more epochs may be asked for."""
        mine = asdict(self.recipe) | asdict(self.setting)
        theirs = state["recipe"] | state["setting"]
        changed = [k for k, v in mine.items() if k not in ("device", "epochs") and theirs[k] != v]
        if changed:
            raise ValueError(f"expected the options that the run began with; these differ: {', '.join(changed)}")
        self.step.load_state_dict(state["step"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.generator.set_state(state["generator"].cpu())
        self.batches.generator.set_state(state["order"].cpu())
        self.epoch = state["epoch"]


def _freeze_early(backbone: nn.Module, frozen: bool) -> None:
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(is_late(name) or not frozen)


def pretrain(
    images: Tensor,
    recipe: Recipe,
    setting: Setting,
    checkpoint: Path | None = None,
    resume: bool = False,
    on_epoch: Callable[[Pretraining, dict[str, float]], None] | None = None,
) -> nn.Module:
    """Run a whole pre-training and return the backbone.

    Args:
        images: Healthy images (N, 3, S, S), uint8.
        recipe: How to train.
        setting: From what, with which seed and where.
        checkpoint: File of the run's state after each epoch; None writes none.
        resume: Go on from that file.
        on_epoch: Called after each epoch with the run and the epoch's statistics.

    Raises:
        FileNotFoundError: If there is nothing to resume.
        ValueError: If the run to resume had other options.
    """
    run = Pretraining(images, recipe, setting)
    is_main = not dist.is_initialized() or dist.get_rank() == 0
    if resume:
        if checkpoint is None or not checkpoint.is_file():
            raise FileNotFoundError(f"expected {checkpoint} to resume from: start without --resume first")
        run.load_state_dict(read_state(checkpoint))
    else:
        run.set_centres()
    while run.epoch < recipe.epochs:
        row = run.train_epoch(progress=is_main)
        if is_main:
            tqdm.write(describe(run.epoch, row))
            if on_epoch is not None:
                on_epoch(run, row)
        if is_main and checkpoint is not None:
            write_safely(run.state_dict(), checkpoint)
    return run.finished_backbone()


def describe(epoch: int, row: dict[str, float]) -> str:
    """One line about an epoch."""
    return (
        f"epoch {epoch:3d}  total {row['total']:.3f}  (3) {row['centring']:.3f}  (5) {row['contrastive']:.3f}  "
        f"(8) {row['augmentation']:.3f}  accuracy {row['accuracy']:.2f}  (9) {row['position']:.3f}"
    )
