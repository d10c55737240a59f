"""Draw MedMix's classes on real images, as the paper's Fig. 3 does.

    python examples/reproduction/gallery.py                        # crops of the photograph that scikit-image ships
    python examples/reproduction/gallery.py --data DIR --size 256

One row per image and outline: the healthy image, the same draw with one, two and three lesions, and their mask.
All rows but the last leave out the intensity curve and most of the noise, which MedMix has by default.
"""

import argparse
from pathlib import Path

import matplotlib
import torch
from data import read_train, retina_crops
from torch import Tensor

from medmix import MedMix

matplotlib.use("Agg")
import matplotlib.pyplot as plt

QUIET = {"nonlinear": None, "noise": (0.0, 0.02)}  # the tissue's own colours, as a lesion has
OUTLINES = {
    "blob": MedMix(3, color_jitter=(0.4, 0.4, 0.4, 0.03), **QUIET),
    "blob, small": MedMix(3, size=(1 / 12, 1 / 5), color_jitter=(0.6, 0.4, 0.4, 0.03), **QUIET),
    "seamless": MedMix(3, blending="seamless", color_jitter=(0.4, 0.8, 0.4, 0.03), **QUIET),
    "ellipse": MedMix(3, shape="ellipse", color_jitter=(0.4, 0.4, 0.4, 0.03), **QUIET),
    "rectangle, hard": MedMix(3, shape="rectangle", blending="hard", color_jitter=(0.4, 0.4, 0.4, 0.03), **QUIET),
    "fisheye": MedMix(3, deformation="fisheye", color_jitter=(0.4, 0.4, 0.4, 0.03), **QUIET),
    "defaults": MedMix(3),
}


def nested_classes(mix: MedMix, images: Tensor, generator: torch.Generator) -> tuple[list[Tensor], Tensor]:
    """The images with 0, 1, 2 and 3 lesions of one draw, and the mask of the last."""
    params = mix.forward_parameters(images.shape, generator=generator)
    outputs = [mix(images, params=params | {"num_lesions": torch.full((len(images),), n)}) for n in range(4)]
    return [output.images for output in outputs], outputs[-1].masks


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with train/normal; without it the retina is used")
    parser.add_argument("--out", type=Path, default=Path("runs/gallery.png"))
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)

    generator = torch.Generator().manual_seed(args.seed)
    healthy = read_train(args.data, args.size) if args.data else retina_crops(args.size, generator, train=24).train
    images = healthy[torch.randperm(len(healthy), generator=generator)[: 2 * len(OUTLINES)]].float() / 255

    figure, axes = plt.subplots(len(OUTLINES), 5, figsize=(6.5, 1.35 * len(OUTLINES)))
    for row, (name, mix) in enumerate(OUTLINES.items()):
        classes, masks = nested_classes(mix, images, generator)
        for axis, panel in zip(axes[row], [*classes, masks.float().expand(-1, 3, -1, -1)], strict=True):
            axis.imshow(panel[row % len(images)].permute(1, 2, 0).numpy())
            axis.set(xticks=[], yticks=[])
        axes[row, 0].set_ylabel(name, fontsize=7)
    for axis, title in zip(axes[0], ["0 lesions", "1", "2", "3", "mask"], strict=True):
        axis.set_title(title, fontsize=8)
    figure.tight_layout(pad=0.3)
    figure.savefig(args.out, dpi=100)
    print(f"saved {args.out}")


if __name__ == "__main__":
    main()
