"""A small training of IGD, as an own process: --epochs 4 [--resume]; writes out/checkpoint.pt and out/final.pt."""

import argparse
from pathlib import Path

import torch
from igd_cases import small_detector, smooth_images

from detectors.checkpoint import write_safely


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()
    detector = small_detector(64, freeze_backbone=False)
    order = torch.Generator().manual_seed(1)
    loader = torch.utils.data.DataLoader(smooth_images(8, 64), batch_size=2, shuffle=True, generator=order)
    options = {"refresh_every": 2, "checkpoint": "out/checkpoint.pt", "resume": args.resume}
    detector.fit(loader, args.epochs, progress=False, **options)
    write_safely(detector.state_dict(), Path("out/final.pt"))


if __name__ == "__main__":
    main()
