"""How well the total area of MedMix's lesions alone tells their number: what term (8) can learn without counting.

    python benchmarks/area.py

A decision tree guesses n = 0..3 from the share of an image that is lesion, 3,000 images per class at 64 px, tested on
as many others. Chance is .25.
"""

import sys

import torch
from sklearn.tree import DecisionTreeClassifier
from torch import Tensor

sys.path.pop(0)  # this script's folder, where benchmarks/medmix.py would pass for the package
from medmix import MedMix

IMAGES, SIDE, CLASSES = 3000, 64, 4
SIZES = {"1/4 to 1/2.3 (default)": (1 / 4, 1 / 2.3), "1/8 to 1/4": (1 / 8, 1 / 4), "1/16 to 1/4": (1 / 16, 1 / 4)}


def areas(mix: MedMix, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Shares of the image that lesions cover, (classes * images, 1), and the numbers of lesions."""
    images = torch.zeros(IMAGES, 1, SIDE, SIDE)
    masks = []
    for number in range(CLASSES):
        params = mix.forward_parameters(images.shape, generator)
        params |= {"num_lesions": torch.full((IMAGES,), number)}
        masks.append(mix.compose(images, params).masks)
    return torch.cat(masks).float().mean(dim=(2, 3)), torch.arange(CLASSES).repeat_interleave(IMAGES)


def main() -> None:
    """Print the accuracy for some sizes and outlines."""
    generator = torch.Generator().manual_seed(0)
    print("| diameter as a share of the side | outline | accuracy from the area alone |\n|---|---|---|")
    for name, size in SIZES.items():
        for shape in ("blob", "ellipse"):
            mix = MedMix(size=size, shape=shape)  # type: ignore[arg-type]
            tree = DecisionTreeClassifier(max_leaf_nodes=30).fit(*areas(mix, generator))
            print(f"| {name} | {shape} | {tree.score(*areas(mix, generator)):.2f} |")


if __name__ == "__main__":
    main()
