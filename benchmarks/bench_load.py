"""Memory of PaDiM.fit, of predictions and of `evaluate` over a long stream of images.

    python benchmarks/bench_load.py --images 100000

Images of 16 px are made as they are needed, lesions in every tenth. What the process holds (resident memory) is looked
at after every batch: the most after the first thousand images, less the most during them. The peak is the most at any
moment, the work after the last image included, less what was held before.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from detectors import PaDiM, evaluate

BATCH = 50
FIRST = 1000  # images after which memory may not grow any more
PAGE = 4096


def resident() -> int:
    """Bytes that this process holds in memory."""
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * PAGE


def peak() -> int:
    """The most bytes that this process has held since `forget_peak`."""
    status = Path("/proc/self/status").read_text()
    kilobytes = status.split("VmHWM:")[1].split()[0]
    return int(kilobytes) * 1024


def forget_peak() -> None:
    """Count the peak anew."""
    Path("/proc/self/clear_refs").write_text("5")


class Stream:
    """Batches of images made as they are needed; notes the memory after each."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.most = {"first": 0, "later": 0}

    def note(self, seen: int) -> None:
        """Note the memory after so many images."""
        part = "first" if seen <= FIRST else "later"
        self.most[part] = max(self.most[part], resident())

    def __iter__(self) -> Iterator[Tensor]:
        for start in range(0, self.count, BATCH):
            generator = torch.Generator().manual_seed(start)
            yield torch.rand(BATCH, 3, 16, 16, generator=generator)
            self.note(start + BATCH)

    def labelled(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Images, labels and masks: a bright square in every tenth image."""
        for images in self:
            labels = torch.arange(BATCH) % 10 == 0
            masks = torch.zeros(BATCH, 1, 16, 16, dtype=torch.bool)
            masks[labels, :, 4:9, 4:9] = True
            yield images + masks, labels, masks

    @property
    def growth(self) -> float:
        """MB that were added after the first images."""
        return (self.most["later"] - self.most["first"]) / 1e6


def make_detector() -> PaDiM:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1)).eval()
    return PaDiM(network, ("1", "2"), num_features=8, blur_sigma=1.0, generator=torch.Generator().manual_seed(0))


def predict_all(detector: PaDiM, stream: Stream) -> None:
    for images in stream:
        detector(images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    args = parser.parse_args()
    if not sys.platform.startswith("linux"):
        sys.exit("expected Linux, which tells the resident memory in /proc/self/statm")
    torch.set_num_threads(1)
    detector = make_detector().fit(Stream(2 * FIRST)).set_threshold(Stream(BATCH))
    jobs: dict[str, Callable[[Stream], object]] = {
        "PaDiM.fit": make_detector().fit,
        "PaDiM, predictions": lambda stream: predict_all(detector, stream),
        "evaluate, with masks": lambda stream: evaluate(detector, stream.labelled()),
    }
    print("| | images | MB held after the first thousand | MB added by all later ones | peak, MB | s |")
    print("|---|---|---|---|---|---|")
    for name, job in jobs.items():
        stream = Stream(args.images)
        before = resident()
        forget_peak()
        started = time.perf_counter()
        job(stream)
        seconds = time.perf_counter() - started
        first = (stream.most["first"] - before) / 1e6
        most = (peak() - before) / 1e6
        figures = f"{first:.0f} | {stream.growth:+.1f} | {most:.0f} | {seconds:.0f}"
        print(f"| {name} | {args.images:,} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
