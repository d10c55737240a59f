"""The main job from start to finish, without a download: pre-train, fit, score, draw.

    python3 run.py quickstart        # or: python examples/reproduction/quickstart.py --seed 0

Healthy images are crops of one fundus photograph; the test lesions are drawn by data.draw_lesions, not by MedMix.
Prints AUROC before and after MSACL pre-training and saves quickstart.png. The second row shows what the batch-norm
statistics alone contribute: a random encoder given those of the healthy crops.
"""

import argparse
import copy
import time
from pathlib import Path

import torch
from data import Batches, Dataset, labelled_batches, retina_crops
from figures import save_heat_maps
from pretrain import Config, Pretraining, pretrain
from torch import nn

from detectors import PaDiM, evaluate


def fit_padim(backbone: nn.Module, data: Dataset, seed: int) -> PaDiM:
    """Fit PaDiM on the healthy crops."""
    generator = torch.Generator().manual_seed(seed)
    return PaDiM(backbone, generator=generator).fit(Batches(data.train, batch_size=32))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("runs/quickstart"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()

    data = retina_crops(64, torch.Generator().manual_seed(args.seed))
    config = Config(epochs=args.epochs, batch_size=16, lr=0.03, seed=args.seed)
    run = Pretraining(data.train, config)
    untrained = copy.deepcopy(run.step.encoder.backbone).eval()
    calibrated = run.finished_backbone()
    trained = pretrain(data.train, config)

    print(f"\n{'PaDiM on':<30}{'image AUROC':>12}{'pixel AUROC':>12}")
    encoders = {
        "random encoder": untrained,
        "random, batch-norm calibrated": calibrated,
        "MSACL-pre-trained encoder": trained,
    }
    for name, backbone in encoders.items():
        detector = fit_padim(backbone, data, args.seed)
        scores = evaluate(detector, labelled_batches(data))
        print(f"{name:<30}{scores['image_auroc']:>12.3f}{scores['pixel_auroc']:>12.3f}")

    figure = args.out / "quickstart.png"
    save_heat_maps(detector, data, figure)
    print(f"\nsaved {figure} ({time.perf_counter() - start:.0f} s in all)")


if __name__ == "__main__":
    main()
