"""Judge a recipe without a test image of its set: by lesions of a third kind in held-out healthy images.

    python examples/reproduction/choose.py --data mri_lgg_flair --donors kvasir_seg_patch --row msacl --adapt-lr 0.03

A fifth of the healthy patients is held out. Real lesions of another data set, cut out by their masks and shifted to the
colour around (in grey where the set is grey), are pasted into their images: neither MedMix nor a drawing made them.
Beside the AUROC stand the accuracy of term (8), CKA and effective rank of layer3 against the start.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from data import Batches, Dataset, image_files, read_folder, read_groups, read_train
from detecting import IGDSetting, judge
from networks.encoders import calibrated, make_backbone
from rows import Recipe, recipe_for
from torch import Tensor, nn
from training import Setting, pretrain

Flat = tyro.conf.OmitArgPrefixes
SMALLEST_SHARE = 0.14  # of the image side: a pasted lesion's larger side
LARGEST_SHARE = 0.31
DARK = 35  # mean value below which a place is background


@dataclass
class Options:
    """The command line."""

    data: Path
    """Data set whose healthy training images are used."""
    donors: Path
    """Another data set with masks, whose lesions are pasted."""
    row: str = "msacl"
    """Row of the comparison."""
    size: int = 64
    """Side of the images in pixels."""
    setting: Annotated[Setting, Flat] = field(default_factory=Setting)
    recipe: Annotated[Recipe, Flat] = field(default_factory=Recipe)


class Lesion(NamedTuple):
    """A cut-out: pixels (3, h, w) in 0..255, mask (1, h, w) in 0..1, and the colour around it (3, 1, 1)."""

    pixels: Tensor
    mask: Tensor
    around: Tensor


def hold_out(root: Path, images: Tensor) -> tuple[Tensor, Tensor]:
    """Split healthy images by patient: four fifths to train on, one fifth to judge with."""
    groups = read_groups(root)
    files = image_files(root / "train/normal")
    patients = [groups.get(str(file.relative_to(root)), file.name) for file in files]
    every = sorted(set(patients))
    held = set(np.random.default_rng(0).permutation(every)[: max(1, len(every) // 5)])
    chosen = torch.tensor([patient in held for patient in patients])
    return images[~chosen], images[chosen]


def cut_lesions(donors: Path, size: int = 256) -> list[Lesion]:
    """Cut the lesions of a data set out of its abnormal images, one per image."""
    data = read_folder(donors, size)
    if data.masks is None:
        raise ValueError(f"expected masks in {donors / 'test/masks'}: choose donors that have them")
    lesions = []
    for image, mask in zip(data.test[data.labels == 1], data.masks[data.labels == 1], strict=True):
        if mask.sum() < size // 2:
            continue
        rows = mask[0].any(1).nonzero()
        columns = mask[0].any(0).nonzero()
        box = (slice(None), slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
        surround = image.float()[:, ~mask[0]].mean(1)
        lesions.append(Lesion(image[box].float(), mask[box].float(), surround[:, None, None]))
    return lesions


def paste_lesions(healthy: Tensor, lesions: list[Lesion], seed: int = 0) -> tuple[Tensor, Tensor]:
    """Paste one lesion into each image (N, 3, S, S), uint8; returns the images and the masks (N, 1, S, S), bool."""
    random = np.random.default_rng(seed)
    side = healthy.shape[-1]
    sick = healthy.clone()
    masks = torch.zeros(len(healthy), 1, side, side, dtype=torch.bool)
    grey = bool((healthy[:, 0] == healthy[:, 1]).all())
    for i in range(len(healthy)):
        lesion = _resize(lesions[random.integers(len(lesions))], side * random.uniform(SMALLEST_SHARE, LARGEST_SHARE))
        height, width = lesion.mask.shape[1:]
        place = _bright_place(healthy[i].float(), height, width, random)
        host = sick[i][place].float()
        # The lesion keeps its difference to what lay around it.
        difference = lesion.pixels - lesion.around
        if grey:
            difference = difference.mean(0, keepdim=True)
        pasted = (host.mean((1, 2), keepdim=True) + difference).clamp(0, 255)
        sick[i][place] = (host + lesion.mask * (pasted - host)).round().to(torch.uint8)
        masks[i][place] = lesion.mask > 0.5
    return sick, masks


def _resize(lesion: Lesion, longer: float) -> Lesion:
    """Shrink a lesion to a given longer side, with a soft edge of a pixel."""
    height, width = lesion.mask.shape[1:]
    scale = longer / max(height, width)
    shape = (max(3, round(height * scale)), max(3, round(width * scale)))
    pixels = F.interpolate(lesion.pixels[None], shape, mode="area")[0]
    mask = F.interpolate(lesion.mask[None], shape, mode="area")
    mask = F.avg_pool2d(F.pad(mask, (1, 1, 1, 1)), 3, stride=1)[0]
    return Lesion(pixels, mask, lesion.around)


def _bright_place(image: Tensor, height: int, width: int, random: np.random.Generator) -> tuple[slice, slice, slice]:
    """A random window that lies on tissue."""
    side = image.shape[-1]
    for _ in range(50):
        top = int(random.integers(side - height + 1))
        left = int(random.integers(side - width + 1))
        place = (slice(None), slice(top, top + height), slice(left, left + width))
        if image[place].mean(0).median() > DARK:
            break
    return place


@torch.no_grad()
def layer3_features(backbone: nn.Module, images: Tensor) -> Tensor:
    """Mean activations of layer3, (N, D)."""
    found = []
    hook = backbone.get_submodule("layer3").register_forward_hook(lambda *call: found.append(call[2].mean((2, 3))))
    for batch in Batches(images, batch_size=64):
        backbone(batch)
    hook.remove()
    return torch.cat(found)


def cka(a: Tensor, b: Tensor) -> float:
    """Linear CKA of two feature matrices (N, D): 1 where they say the same up to rotation and scale."""
    a = a - a.mean(0)
    b = b - b.mean(0)
    return float((a.T @ b).norm() ** 2 / ((a.T @ a).norm() * (b.T @ b).norm()))


def effective_rank(features: Tensor) -> float:
    """Take exp of the entropy of the singular values' shares, of features (N, D)."""
    values = torch.linalg.svdvals(features - features.mean(0))
    shares = values / values.sum()
    return float((-shares * shares.clamp_min(1e-12).log()).sum().exp())


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    options = tyro.cli(Options, description=__doc__, args=arguments)
    try:
        print_judgement(options)
    except (ValueError, RuntimeError, OSError) as error:
        sys.exit(f"error: {error}")


def judging_set(root: Path, donors: Path, size: int) -> Dataset:
    """A data set without test images: four fifths of the patients, and the last fifth without and with lesions."""
    train, held = hold_out(root, read_train(root, size))
    sick, masks = paste_lesions(held, cut_lesions(donors))
    labels = torch.arange(2).repeat_interleave(len(held))
    no_masks = torch.zeros_like(masks)
    return Dataset(train, torch.cat([held, sick]), labels, torch.cat([no_masks, masks]), [], [])


def print_judgement(options: Options) -> None:
    """Train on four fifths of the patients and judge start and result on the last fifth."""
    data = judging_set(options.data, options.donors, options.size)
    train = data.train
    held = data.test[data.labels == 0]
    setting = options.setting
    start = calibrated(make_backbone(setting.architecture, setting.init), train)
    trained = pretrain(train, recipe_for(options.row, options.recipe, len(train)), setting)
    start_features = layer3_features(start, held)
    for name, backbone in (("start-calibrated", start), (options.row, trained)):
        metrics = judge("padim", backbone, data, setting, IGDSetting()).metrics
        features = layer3_features(backbone, held)
        aurocs = [f"{key} {metrics[key]:.3f}" for key in ("image_auroc", "image_auroc_top", "pixel_auroc")]
        forgetting = f"CKA {cka(start_features, features):.2f} effective rank {effective_rank(features):.0f}"
        print(name, *aurocs, forgetting)


if __name__ == "__main__":
    main()
