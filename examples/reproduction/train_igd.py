"""Fit IGD on healthy images, score a test set, save the detector and a figure.

    python examples/reproduction/train_igd.py --data DIR --encoder OUT/encoder.pt --out OUT       # encoder of pretrain.py
    python examples/reproduction/train_igd.py --data DIR --out OUT                                # random encoder
    python examples/reproduction/train_igd.py --data DIR --out OUT --resume                       # goes on at the epoch it reached

Writes OUT/igd.pt, OUT/igd.png and, after each epoch, OUT/igd_checkpoint.pt. The paper trains 256 epochs at --width 1
on a GPU; --width 0.25 and a larger --lr give a first result on a CPU.
"""

import argparse
from pathlib import Path

import torch
from data import Batches, labelled_batches, read_folder
from encoders import ARCHITECTURES, INITS, load_backbone, make_backbone
from figures import save_heat_maps
from torch import Tensor
from tqdm import tqdm

from detectors import IGD, evaluate


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/normal, test/normal, test/abnormal")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--encoder", type=Path, help="file of pretrain.py; without it --arch and --init are used")
    parser.add_argument("--arch", choices=ARCHITECTURES, default="resnet18")
    parser.add_argument("--init", choices=INITS, default="random")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--scales", choices=("global", "local", "both"), default="both")
    parser.add_argument("--width", type=float, default=1.0, help="factor on the channels of decoders and critics")
    parser.add_argument("--epochs", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


class Log:
    """Prints the mean loss terms of each epoch."""

    def __init__(self) -> None:
        self.epoch = 0
        self.rows: list[dict[str, Tensor]] = []

    def __call__(self, epoch: int, terms: dict[str, Tensor]) -> None:
        """Take in the terms of a step."""
        if epoch != self.epoch:
            self.flush()
        self.epoch = epoch
        self.rows.append(terms)

    def flush(self) -> None:
        """Print what has come in since the last time."""
        if self.rows:
            means = {name: float(torch.stack([row[name] for row in self.rows]).mean()) for name in self.rows[0]}
            tqdm.write(f"epoch {self.epoch + 1:3d}  " + "  ".join(f"{n} {v:.3f}" for n, v in means.items()))
        self.rows = []


def main() -> None:
    """Command line."""
    args = parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    backbone = load_backbone(args.encoder) if args.encoder else make_backbone(args.arch, args.init)[0].eval()
    data = read_folder(args.data, args.size)
    order = torch.Generator().manual_seed(args.seed)
    healthy = Batches(data.train, batch_size=args.batch_size, generator=order, drop_last=True)

    detector = IGD(backbone, args.size, args.scales, width=args.width).to(args.device)
    log = Log()
    checkpoint = args.out / "igd_checkpoint.pt"
    detector.fit(healthy, args.epochs, lr=args.lr, checkpoint=checkpoint, resume=args.resume, on_step=log)
    log.flush()
    detector.set_threshold(Batches(data.train, batch_size=args.batch_size))
    for name, value in evaluate(detector, labelled_batches(data)).items():
        print(f"{name:>24} {value:.3f}")

    torch.save(detector.state_dict(), args.out / "igd.pt")
    save_heat_maps(detector, data, args.out / "igd.png")
    print(f"saved {args.out / 'igd.pt'} and {args.out / 'igd.png'}")


if __name__ == "__main__":
    main()
