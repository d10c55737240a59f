"""Options of a pre-training, as a dataclass and as a command line."""

import argparse
from dataclasses import dataclass, fields
from pathlib import Path

from encoders import ARCHITECTURES, INITS

from medmix import CutMixClasses, MedMix, NoiseClasses, PermutationClasses, RotationClasses

STRONG = ("medmix", "permutation", "rotation", "cutmix", "noise")


@dataclass
class Config:
    """Options of a pre-training. Where the defaults are not the paper's, docs/findings.md says why."""

    size: int = 64
    arch: str = "resnet18"
    init: str = "random"
    method: str = "msacl"
    strong: str = "medmix"
    epochs: int = 20
    batch_size: int = 32
    lr: float = 0.01
    temperature: float = 0.2
    alpha: float = 2.0
    lesion_min: float = 1 / 4
    lesion_max: float = 1 / 2.3
    crop_min: float = 0.8
    centring_weight: float = 0.01
    seed: int = 0
    device: str = "cpu"


def make_strong(config: Config) -> MedMix | PermutationClasses | RotationClasses | NoiseClasses:
    """The strong augmentation that the options name."""
    size = (config.lesion_min, config.lesion_max)
    makers = {
        "medmix": lambda: MedMix(size=size),
        "cutmix": lambda: CutMixClasses(size=size),
        "permutation": PermutationClasses,
        "rotation": RotationClasses,
        "noise": NoiseClasses,
    }
    return makers[config.strong]()


def parse_args(description: str) -> tuple[argparse.Namespace, Config]:
    """Read the command line: --data, --out, --resume and one option per field of `Config`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/normal")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--resume", action="store_true")
    choices = {"arch": ARCHITECTURES, "init": INITS, "method": ("msacl", "ccd"), "strong": STRONG}
    for field in fields(Config):
        option = "--" + field.name.replace("_", "-")
        parser.add_argument(option, type=field.type, default=field.default, choices=choices.get(field.name))
    args = parser.parse_args()
    return args, Config(**{field.name: getattr(args, field.name) for field in fields(Config)})
