"""Fit PaDiM on healthy images, score a test set, save the detector and a figure; random encoder without --encoder.

python examples/reproduction/train_padim.py --data DIR --encoder OUT/encoder.pt --out OUT     # encoder of pretrain.py
python examples/reproduction/train_padim.py --data DIR --out OUT                              # random encoder
"""

import argparse
from pathlib import Path

import torch
from data import Batches, labelled_batches, read_folder
from encoders import ARCHITECTURES, INITS, load_backbone, make_backbone
from figures import save_heat_maps
from torch.optim.swa_utils import update_bn

from detectors import PaDiM, evaluate


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/normal, test/normal, test/abnormal")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--encoder", type=Path, help="file of pretrain.py; without it --arch and --init are used")
    parser.add_argument("--arch", choices=ARCHITECTURES, default="resnet18")
    parser.add_argument("--init", choices=INITS, default="random")
    parser.add_argument("--calibrate", action="store_true", help="take batch-norm statistics from the healthy images")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--num-features", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of the random encoder and of the channel subset")
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


def main() -> None:
    """Command line."""
    args = parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    backbone = load_backbone(args.encoder) if args.encoder else make_backbone(args.arch, args.init)[0].eval()
    data = read_folder(args.data, args.size)
    healthy = Batches(data.train, batch_size=32)
    if args.calibrate:
        update_bn(Batches(data.train, batch_size=32, drop_last=True), backbone.to(args.device), args.device)
        backbone.eval()

    generator = torch.Generator().manual_seed(args.seed)
    detector = PaDiM(backbone, num_features=args.num_features, generator=generator).to(args.device)
    detector.fit(healthy).set_threshold(healthy)
    for name, value in evaluate(detector, labelled_batches(data)).items():
        print(f"{name:>24} {value:.3f}")

    torch.save(detector.state_dict(), args.out / "padim.pt")
    save_heat_maps(detector, data, args.out / "padim.png")
    print(f"saved {args.out / 'padim.pt'} and {args.out / 'padim.png'}")


if __name__ == "__main__":
    main()
