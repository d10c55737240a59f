"""Train IGD on healthy images (DIR or DIR/train/normal), evaluate DIR/test if it exists, write a file for predict.py.

python examples/train_igd.py --data DIR --encoder encoder.pt --out igd.pt    # on a CPU: --epochs 20 --width 0.25
"""

import argparse
import sys
from pathlib import Path

import torch
from torch.utils.data import DataLoader, random_split

from detectors import IGD, ImageFiles, LabelledFiles, evaluate

sys.excepthook = lambda kind, error, _: print(kind.__name__, *str(error).split(), file=sys.stderr)  # in one line
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", type=Path, required=True, help="healthy images, sub-folders included, or train/normal")
parser.add_argument("--encoder", default="imagenet", help="file of pretrain.py, imagenet (default: download) or none")
parser.add_argument("--backbone", default="resnet18", help="resnet18, or timm:NAME (%(default)s)")
parser.add_argument("--size", type=int, default=64, help="side in pixels (%(default)s)")
parser.add_argument("--scales", default="global", help="global, local or both (%(default)s)")
parser.add_argument("--width", type=float, default=1.0, help="factor on the decoders' channels (%(default)s)")
parser.add_argument("--epochs", type=int, default=256, help="(%(default)s)")
parser.add_argument("--lr", type=float, default=1e-4, help="(%(default)s)")
parser.add_argument("--out", default="igd.pt", help="(%(default)s)")
args = parser.parse_args()
torch.manual_seed(0)
folder, test = args.data / "train/normal", args.data / "test"
healthy = ImageFiles(folder if folder.is_dir() else args.data, args.size)
print(healthy.summary())
fitted, held_out = random_split(healthy, [0.8, 0.2])  # a threshold needs images that the training has not seen

weights = None if args.encoder == "none" else args.encoder
detector = IGD(args.backbone, args.size, args.scales, weights=weights, width=args.width)
detector.to("cuda" if torch.cuda.is_available() else "cpu")
detector.fit(DataLoader(fitted, min(16, len(fitted)), shuffle=True, drop_last=True), args.epochs, lr=args.lr)
detector.set_threshold(DataLoader(held_out, 16)).metadata.update(healthy.metadata)
detector.save(args.out)
if test.is_dir():
    print(evaluate(detector, DataLoader(LabelledFiles(test, healthy.metadata), 16)))
