"""The rivals of the paper's Table 1 that are rows of their own: they bring their training and their score.

The generative ones learn the images from scratch; PANDA starts from the backbone of the other rows. Each takes a fixed
number of steps, half a minute to two minutes on one core at 64 px, and the generative ones a rate above the published
ones, for they have a hundredth of the published steps. The last state is taken: no choice ever sees a test image. The
losses of each epoch are kept, for they say whether a rival was trained at all.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import torch
from data import Batches
from networks.encoders import calibrated, make_backbone
from torch import Tensor
from training import Setting

from rivals.adgan import ADGAN
from rivals.autoencoders import DenoisingAutoEncoder, MSSSIMAutoEncoder
from rivals.fanogan import FAnoGAN
from rivals.ocgan import OCGAN
from rivals.panda import PANDA
from rivals.rival import GenerativeRival

GENERATIVE: dict[str, type[GenerativeRival]] = {
    "dae": DenoisingAutoEncoder,
    "ms-ssim-ae": MSSSIMAutoEncoder,
    "f-anogan": FAnoGAN,
    "ocgan": OCGAN,
    "adgan": ADGAN,
}
OWN_ROWS = (*GENERATIVE, "panda")
STEPS = {"dae": 800, "ms-ssim-ae": 600, "f-anogan": 600, "ocgan": 200, "adgan": 400, "panda": 60}
BATCH_SIZE = {"panda": 32}  # 16 for the others


@dataclass(frozen=True)
class RivalSetting:
    """How the rivals that are rows of their own are trained; their files say what was published."""

    rival_epochs: int | None = None
    """Passes over the healthy images; None makes each rival's own number of steps of them."""
    rival_width: float = 0.125
    """Factor on the channels of the generative rivals."""
    rival_lr: float = 1e-3
    """Learning rate of the generative rivals."""


def rival_epochs(row: str, rival: RivalSetting, num_images: int) -> int:
    """Passes over `num_images` healthy images that a rival is trained for."""
    if rival.rival_epochs is not None:
        return rival.rival_epochs
    steps_per_epoch = max(1, num_images // BATCH_SIZE.get(row, 16))
    fewest = 2 if row == "f-anogan" else 1  # its encoder follows its GAN
    return max(fewest, round(STEPS[row] / steps_per_epoch))


def fit_rival(row: str, train: Tensor, setting: Setting, rival: RivalSetting) -> GenerativeRival | PANDA:
    """Train a rival on healthy images (N, 3, S, S), uint8."""
    torch.manual_seed(setting.seed)  # initial weights, codes and noise
    order = torch.Generator().manual_seed(setting.seed)
    epochs = rival_epochs(row, rival, len(train))
    batch_size = BATCH_SIZE.get(row, 16)
    if row == "panda":
        start = make_backbone(setting.architecture, setting.init).to(setting.device)
        panda = PANDA(calibrated(start, train), epochs=epochs)
        return panda.fit(Batches(train, batch_size=batch_size, generator=order))
    detector = GENERATIVE[row](train.shape[-1], epochs=epochs, lr=rival.rival_lr, width=rival.rival_width)
    # The last batch of an epoch may hold a single image, for which batch-norm has no variance.
    return detector.to(setting.device).fit(Batches(train, batch_size=batch_size, generator=order, drop_last=True))


def write_curve(history: list[dict[str, float]], file: Path) -> None:
    """Write the losses of each epoch as CSV."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, ["epoch", *history[0]], lineterminator="\n")
        writer.writeheader()
        for epoch, losses in enumerate(history, start=1):
            shown = {name: f"{value:.5g}" for name, value in losses.items()}
            writer.writerow({"epoch": epoch} | shown)
