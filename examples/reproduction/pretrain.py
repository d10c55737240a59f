"""Pre-train one encoder on healthy images, with everything that a long run needs.

    python examples/reproduction/pretrain.py --data DIR --out OUT
    python examples/reproduction/pretrain.py --data DIR --out OUT --row ccd
    python examples/reproduction/pretrain.py --data DIR --out OUT --resume             # from the epoch where it stopped
    python examples/reproduction/pretrain.py --data DIR --out OUT --resume --epochs 16 # trains a finished run further
    torchrun --nproc-per-node 2 examples/reproduction/pretrain.py --data DIR --out OUT

Writes OUT/encoder.pt and, after each epoch, OUT/checkpoint.pt. Watch the accuracy of term (8): the method helps only
where the classes are learnt.
"""

import os
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import torch
import torch.distributed as dist
import tyro
from data import read_train
from files import check_folder
from networks.encoders import save_backbone
from rows import Recipe, recipe_for
from training import Setting, pretrain

Flat = tyro.conf.OmitArgPrefixes


@dataclass
class Options:
    """The command line."""

    data: Path
    """Folder with train/normal."""
    out: Path
    """Folder for encoder.pt and checkpoint.pt."""
    row: str = "msacl"
    """Row of the comparison: msacl, ccd, simclr, ..."""
    size: int = 64
    """Side of the images in pixels."""
    resume: bool = False
    """Go on from OUT/checkpoint.pt."""
    setting: Annotated[Setting, Flat] = field(default_factory=Setting)
    recipe: Annotated[Recipe, Flat] = field(default_factory=Recipe)


def run(options: Options) -> None:
    """Train and write the encoder."""
    setting = options.setting
    check_folder(options.out)
    images = read_train(options.data, options.size)
    recipe = recipe_for(options.row, options.recipe, len(images))
    if "WORLD_SIZE" in os.environ:  # started by torchrun
        if setting.device == "cuda":
            setting = replace(setting, device=f"cuda:{os.environ['LOCAL_RANK']}")
            torch.cuda.set_device(setting.device)
        dist.init_process_group("nccl" if setting.device.startswith("cuda") else "gloo")
    backbone = pretrain(images, recipe, setting, options.out / "checkpoint.pt", options.resume)
    if not dist.is_initialized() or dist.get_rank() == 0:
        save_backbone(backbone, setting.architecture, options.out / "encoder.pt")
        print(f"saved {options.out / 'encoder.pt'}")
    if dist.is_initialized():
        dist.destroy_process_group()


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    options = tyro.cli(Options, description=__doc__, args=arguments)
    try:
        run(options)
    except (ValueError, RuntimeError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped: the same command with --resume goes on after the last whole epoch")


if __name__ == "__main__":
    main()
