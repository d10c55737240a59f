"""Pre-train an encoder on healthy images with MSACL (or its predecessor CCD).

    python examples/reproduction/pretrain.py --data DIR --out DIR
    python examples/reproduction/pretrain.py --data DIR --out DIR --method ccd --strong permutation
    python examples/reproduction/pretrain.py --data DIR --out DIR --resume          # goes on at the epoch where it stopped
    torchrun --nproc-per-node 2 examples/reproduction/pretrain.py --data DIR --out DIR

Writes DIR/encoder.pt (read by train_padim.py and train_igd.py) and DIR/checkpoint.pt. Each epoch prints the four terms
of eq. (1), the accuracy of term (8) and the distances between and within the classes: look at them, the method
helps only where the classes are learnt.
"""

import os
from dataclasses import asdict
from pathlib import Path

import torch
import torch.distributed as dist
from config import Config, make_strong, parse_args
from data import Batches, read_train
from encoders import Encoder, make_backbone, save_backbone
from joined_batch_norm import join_batch_norm
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import update_bn
from tqdm import tqdm

from medmix import MultiClassViews, NeighbourPatches, WeakAugmentation
from msacl_loss import LossTerms, MSACLLoss

NUM_CLASSES = 4


class TrainingStep(nn.Module):
    """Images -> views and patch pairs -> embeddings -> the terms of eq. (1)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        backbone, width = make_backbone(config.arch, config.init)
        self.encoder = Encoder(backbone, width).to(memory_format=torch.channels_last)  # depthwise: twice as fast
        msacl = config.method == "msacl"
        weak = WeakAugmentation(config.size, scale=(config.crop_min, 1.0))
        self.views = MultiClassViews(strong=make_strong(config), weak=weak, num_classes=NUM_CLASSES)
        self.patches = NeighbourPatches(config.size // 4)
        self.criterion = MSACLLoss(
            num_classes=NUM_CLASSES,
            temperature=config.temperature,
            alpha=config.alpha if msacl else 1.0,
            weights=(config.centring_weight if msacl else 0.0, 1.0, 1.0, 1.0),
            normalize=False,  # as the tables in README.md were run
        )

    def forward(self, images: Tensor, generator: torch.Generator) -> tuple[LossTerms, Tensor, Tensor]:
        """Return the loss terms, and this process's embeddings (2N, D) with their classes (2N,).

        Every process draws the views of the whole batch and embeds its share: draws and lesion donors are then
        those of a single process.
        """
        view_a, view_b, labels = (own_rows(t) for t in self.views(images, generator=generator))
        first, second, position = (own_rows(t) for t in self.patches(images, generator=generator))
        z_a, z_b = self.encoder(torch.cat([view_a, view_b])).chunk(2)
        z_first, z_second = self.encoder(torch.cat([first, second])).chunk(2)
        terms = self.criterion(z_a, z_b, labels, patch_pairs=(z_first, z_second, position))
        return terms, torch.cat([z_a, z_b]).detach(), labels.repeat(2)


class Pretraining:
    """A run that can be stopped and resumed after any epoch.

    Args:
        images: Healthy images (N, 3, S, S), uint8.
        config: Options.
    """

    def __init__(self, images: Tensor, config: Config) -> None:
        torch.manual_seed(config.seed)  # the initial weights
        self.config = config
        self.generator = torch.Generator(config.device).manual_seed(config.seed)
        order = torch.Generator().manual_seed(config.seed)
        self.batches = Batches(images, batch_size=config.batch_size, generator=order, drop_last=True)
        # Full batches only: batch-norm cannot take one image, and averages small batches like full ones.
        self.plain_batches = Batches(images, batch_size=config.batch_size, drop_last=True)
        self.step = self.model = TrainingStep(config).to(config.device)
        if dist.is_initialized():
            self.model = DistributedDataParallel(join_batch_norm(self.step))
        self.optimiser = torch.optim.SGD(self.step.parameters(), lr=config.lr, momentum=0.9, weight_decay=3e-4)
        steps = config.epochs * len(self.batches)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimiser, steps)
        self.epoch = 0

    def set_centres(self) -> None:
        """Eq. (2): the classes' mean embeddings before the first step; CCD centres nothing."""
        criterion = self.step.criterion
        if self.config.method == "ccd":
            criterion.set_centres(torch.zeros(NUM_CLASSES, 128, device=self.config.device))
            return
        views = (self.step.views(x.to(self.config.device), generator=self.generator) for x in self.batches)
        batches = ((own_rows(torch.cat([a, b])), own_rows(labels.repeat(2))) for a, b, labels in views)
        criterion.fit_centres(self.step.encoder, batches)

    def train_epoch(self, progress: bool = True) -> dict[str, float]:
        """One pass over the images; returns the epoch's mean terms and class statistics."""
        self.model.train()
        rows = []
        for images in tqdm(self.batches, desc=f"epoch {self.epoch + 1}", disable=not progress, leave=False):
            terms, z, labels = self.model(images.to(self.config.device), self.generator)
            statistics = self.class_statistics(z, labels)  # before the heads see these embeddings
            self.optimiser.zero_grad(set_to_none=True)
            terms.total.backward()
            self.optimiser.step()
            self.schedule.step()
            rows.append({k: v.detach() for k, v in terms._asdict().items()} | statistics)
        self.epoch += 1
        return {key: float(torch.stack([row[key] for row in rows]).mean()) for key in rows[0]}

    @torch.no_grad()
    def class_statistics(self, z: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Accuracy of term (8), and the classes' distances: are they learnt?"""
        predicted = self.step.criterion.augmentation_head(z).argmax(1)
        means = torch.stack([z[labels == n].mean(0) for n in range(NUM_CLASSES)])
        within = (z - means[labels]).norm(dim=1).mean()
        between = torch.pdist(means)
        accuracy = (predicted == labels).float().mean()
        return {"accuracy": accuracy, "within": within, "between_min": between.min(), "between_max": between.max()}

    def finished_backbone(self) -> nn.Module:
        """The backbone with batch-norm statistics of plain images, which is what detectors feed it.

        Training leaves a mixture of the statistics of augmented views and of small patches.
        """
        backbone = self.step.encoder.backbone
        update_bn((own_rows(images) for images in self.plain_batches), backbone, device=self.config.device)
        return backbone.eval()

    def state_dict(self) -> dict[str, object]:
        """All that `load_state_dict` needs to go on as if nothing had happened."""
        parts = {"step": self.step, "optimiser": self.optimiser, "schedule": self.schedule}
        generators = {"generator": self.generator.get_state(), "order": self.batches.generator.get_state()}
        return (
            {name: part.state_dict() for name, part in parts.items()}
            | generators
            | {"epoch": self.epoch, "config": asdict(self.config)}
        )

    def load_state_dict(self, state: dict) -> None:
        """Restore what `state_dict` returned, of a run with the same options."""
        changed = [k for k, v in asdict(self.config).items() if k != "device" and state["config"][k] != v]
        if changed:
            raise ValueError(f"expected the options that the run began with; these differ: {', '.join(changed)}")
        self.step.load_state_dict(state["step"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        self.generator.set_state(state["generator"].cpu())
        self.batches.generator.set_state(state["order"].cpu())
        self.epoch = state["epoch"]


def own_rows(rows: Tensor) -> Tensor:
    """This process's share of the rows of a batch; all of them where there is one process."""
    return rows.tensor_split(dist.get_world_size())[dist.get_rank()] if dist.is_initialized() else rows


def describe(epoch: int, row: dict[str, float]) -> str:
    """One line about an epoch."""
    return (
        f"epoch {epoch:3d}  total {row['total']:.3f}  (3) {row['centring']:.3f}  (5) {row['contrastive']:.3f}  "
        f"(8) {row['augmentation']:.3f}  accuracy {row['accuracy']:.2f}  (9) {row['position']:.3f}  "
        f"class centres {row['between_min']:.2f}-{row['between_max']:.2f} apart, within {row['within']:.2f}"
    )


def pretrain(
    images: Tensor,
    config: Config,
    out: Path | None = None,
    resume: bool = False,
    history: list[dict[str, float]] | None = None,
) -> nn.Module:
    """Run a whole pre-training and return the backbone.

    Args:
        images: Healthy images (N, 3, S, S), uint8.
        config: Options.
        out: Folder for checkpoint.pt after each epoch and encoder.pt at the end; None writes nothing.
        resume: Go on from the folder's checkpoint.pt.
        history: A list that gets the statistics of each epoch.
    """
    main_process = not dist.is_initialized() or dist.get_rank() == 0
    run = Pretraining(images, config)
    if resume:
        if not (out / "checkpoint.pt").is_file():
            raise FileNotFoundError(f"expected {out / 'checkpoint.pt'} to resume from: start without --resume first")
        run.load_state_dict(torch.load(out / "checkpoint.pt", map_location=config.device, weights_only=True))
    else:
        run.set_centres()
    while run.epoch < config.epochs:
        row = run.train_epoch(progress=main_process)
        if history is not None:
            history.append(row)
        if main_process:
            tqdm.write(describe(run.epoch, row))
        if main_process and out is not None:
            torch.save(run.state_dict(), out / "checkpoint.pt.part")
            os.replace(out / "checkpoint.pt.part", out / "checkpoint.pt")  # a stop in mid-write loses nothing
    backbone = run.finished_backbone()
    if main_process and out is not None:
        save_backbone(backbone, config.arch, out / "encoder.pt")
    return backbone


def main() -> None:
    """Command line."""
    args, config = parse_args(__doc__)
    if "WORLD_SIZE" in os.environ:  # started by torchrun
        if config.device == "cuda":
            config.device = f"cuda:{os.environ['LOCAL_RANK']}"
            torch.cuda.set_device(config.device)
        dist.init_process_group("nccl" if config.device.startswith("cuda") else "gloo")
    args.out.mkdir(parents=True, exist_ok=True)
    print(asdict(config))
    pretrain(read_train(args.data, config.size), config, args.out, args.resume)
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
