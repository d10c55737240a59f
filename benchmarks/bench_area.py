"""What tells the number of MedMix's lesions without counting: their total area, or the place and size of one of them.

    python benchmarks/bench_area.py

A tree guesses n = 0..3 from the share of an image that is lesion (chance .25), and boosted trees guess n = 1..3 from
one lesion of an image (chance .33): 3,000 images per class at 64 px, tested on as many others.
"""

import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.tree import DecisionTreeClassifier
from torch import Tensor

from medmix import MedMix

IMAGES, SIDE, CLASSES = 3000, 64, 4
SIZES = {"1/4 to 1/2.3 (default)": (1 / 4, 1 / 2.3), "1/8 to 1/4": (1 / 8, 1 / 4), "1/16 to 1/4": (1 / 16, 1 / 4)}


def draw(mix: MedMix, number: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Shares of the image that so many lesions cover, (N, 1), and the size and place of one of them, (N, 5)."""
    images = torch.zeros(IMAGES, 1, SIDE, SIDE)
    params = mix.forward_parameters(images.shape, generator) | {"num_lesions": torch.full((IMAGES,), number)}
    masks = mix.compose(images, params).masks
    slot = torch.randint(max(number, 1), (IMAGES,), generator=generator)
    centre, radius = (params[name][torch.arange(IMAGES), slot] for name in ("centre", "radius"))
    lesion = torch.cat([radius[:, None], centre, (centre - (SIDE - 1) / 2).abs()], dim=1)
    return masks.float().mean(dim=(1, 2, 3))[:, None], lesion


def draw_all(mix: MedMix, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Areas and lesions of all classes, one class after the other, and the numbers of lesions."""
    areas, lesions = zip(*(draw(mix, number, generator) for number in range(CLASSES)), strict=True)
    return torch.cat(areas), torch.cat(lesions), torch.arange(CLASSES).repeat_interleave(IMAGES)


def main() -> None:
    """Print the accuracies for some sizes and outlines."""
    generator = torch.Generator().manual_seed(0)
    print("| diameter as a share of the side | outline | from the area alone | from one lesion |\n|---|---|---|---|")
    for name, size in SIZES.items():
        for shape in ("blob", "ellipse"):
            mix = MedMix(size=size, shape=shape)  # type: ignore[arg-type]
            areas, lesions, numbers = draw_all(mix, generator)
            tree = DecisionTreeClassifier(max_leaf_nodes=30).fit(areas, numbers)
            trees = HistGradientBoostingClassifier(max_depth=4).fit(lesions[IMAGES:], numbers[IMAGES:])
            areas, lesions, numbers = draw_all(mix, generator)
            by_area, by_lesion = tree.score(areas, numbers), trees.score(lesions[IMAGES:], numbers[IMAGES:])
            print(f"| {name} | {shape} | {by_area:.2f} | {by_lesion:.2f} |")


if __name__ == "__main__":
    main()
