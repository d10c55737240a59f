"""Flip bytes of every kind of file that is read, and read it: a clear error, or what was saved, to the bit.

    python tests/detectors/flips.py --flips 10000

Every damaged file has one to four wrong bytes; every second file has them in its structure (zip records, pickle) rather
than anywhere, which would mostly be a tensor's values.
"""

import argparse
import random
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/detectors/igd"), str(ROOT / "examples/reproduction")]

from igd_cases import small_detector, smooth_images, tiny_backbone  # noqa: E402
from networks.encoders import load_backbone, make_backbone, save_backbone  # noqa: E402
from rows import Recipe  # noqa: E402
from training import Pretraining, Setting  # noqa: E402

import detectors  # noqa: E402
from detectors import PaDiM  # noqa: E402
from detectors.backbones.named import load_weights  # noqa: E402
from detectors.checkpoint import read_state, write_safely  # noqa: E402


@dataclass
class Tally:
    """What became of the damaged files of one kind."""

    refused: int = 0
    equal: int = 0
    wrong: int = 0


def make_padim() -> PaDiM:
    return PaDiM(
        small_network(), ("1", "2"), num_features=6, blur_sigma=1.0, generator=torch.Generator().manual_seed(0)
    )


def known(detector: detectors.AnomalyDetector) -> tuple[Any, ...]:
    """All that a file of a detector brings back."""
    state = {name: value.clone() for name, value in detector.state_dict().items()}
    return type(detector).__name__, state, str(detector.metadata), detector.training


Reader = Callable[[Path], Any]  # what a file brings back, in nested containers of tensors


def padim(file: Path) -> Reader:
    """A file of detector.save, rebuilt."""
    images = smooth_images(6, 16)
    make_padim().fit([images]).set_threshold([images]).save(file)
    backbone = small_network()
    return lambda damaged: known(detectors.load(damaged, backbone=backbone))


def padim_state(file: Path) -> Reader:
    """A state_dict that torch.save wrote, loaded into a detector made alike."""
    torch.save(make_padim().fit([smooth_images(6, 16)]).state_dict(), file)
    detector = make_padim()
    return lambda damaged: known(detector.load(damaged))


def igd(file: Path) -> Reader:
    """A file of IGD.save, rebuilt."""
    small_detector().fit([smooth_images(2)], 1, progress=False).save(file)
    backbone = tiny_backbone()
    return lambda damaged: known(detectors.load(damaged, backbone=backbone))


def igd_run(file: Path) -> Reader:
    """The run file of IGD.fit, resumed after its last epoch."""
    images = [smooth_images(2)]
    small_detector().fit(images, 1, progress=False, checkpoint=file)

    def resume(damaged: Path) -> Any:
        detector = small_detector(seed=1)
        detector.fit(images, 1, progress=False, checkpoint=damaged, resume=True)
        return known(detector), torch.get_rng_state()

    return resume


def weights(file: Path) -> Reader:
    """Weights of a network for a backbone."""
    torch.save({"state_dict": small_network().state_dict()}, file)
    network = small_network()

    def read(damaged: Path) -> Any:
        load_weights(network, damaged)
        return network.state_dict()

    return read


def small_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 3, 2, 1)).eval()


def encoder(file: Path) -> Reader:
    """The encoder.pt of a pre-training."""
    save_backbone(make_backbone("efficientnet_lite0"), "efficientnet_lite0", file)
    return lambda damaged: load_backbone(damaged).state_dict()


def pretraining(file: Path) -> Reader:
    """The checkpoint.pt of a pre-training, resumed."""
    images = torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    run = Pretraining(images, Recipe(epochs=1, batch_size=2), Setting(init="random"))
    run.set_centres()
    run.train_epoch(progress=False)
    write_safely(run.state_dict(), file)

    def resume(damaged: Path) -> Any:
        run.load_state_dict(read_state(damaged))
        return run.state_dict()

    return resume


# The reader of each kind of file, and its share of all damaged files: those of networks are a hundred times as large.
KINDS: dict[str, tuple[Callable[[Path], Reader], float]] = {
    "`PaDiM.save`, by `detectors.load`": (padim, 0.27),
    "a state_dict of PaDiM, by `PaDiM.load`": (padim_state, 0.2),
    "`IGD.save`, by `detectors.load`": (igd, 0.2),
    "the run file of `IGD.fit`, by `resume=True`": (igd_run, 0.15),
    "a backbone's weights": (weights, 0.15),
    "encoder.pt of pre-training": (encoder, 0.015),
    "checkpoint.pt of pre-training": (pretraining, 0.015),
}


def structure(file: Path) -> list[int]:
    """Where the bytes are that belong to no tensor's values: zip records, pickle, version."""
    content = file.read_bytes()
    with ZipFile(file) as archive:
        records = sorted(archive.infolist(), key=lambda record: record.header_offset)
    places: list[int] = []
    done = 0
    for record in records:
        if "/data/" in record.filename:
            header = record.header_offset
            name, extra = (int.from_bytes(content[header + at : header + at + 2], "little") for at in (26, 28))
            start = header + 30 + name + extra
            places += range(done, start)
            done = start + record.file_size
    return places + list(range(done, len(content)))


def try_flips(kind: str, flips: int, seed: int, folder: Path) -> Tally:
    """Damage a file of this kind so many times and read it each time."""
    make, _ = KINDS[kind]
    whole, damaged = folder / "whole.pt", folder / "damaged.pt"
    read = make(whole)
    expected = flat(read(whole))
    content, places = whole.read_bytes(), structure(whole)
    numbers, tally = random.Random(seed), Tally()
    for number in range(flips):
        changed = bytearray(content)
        for _ in range(numbers.randint(1, 4)):
            place = numbers.choice(places) if number % 2 else numbers.randrange(len(content))
            changed[place] ^= numbers.randint(1, 255)
        damaged.write_bytes(changed)
        try:
            got = flat(read(damaged))
        except ValueError as error:
            is_clear = "expected" in str(error)
            tally.refused += is_clear
            tally.wrong += not is_clear
            continue
        is_same = got == expected
        tally.equal += is_same
        tally.wrong += not is_same
    return tally


def flat(value: Any) -> list[Any]:
    """Nested containers as a list of plain values and tensors' bytes."""
    if isinstance(value, Tensor):
        return [value.dtype, value.shape, value.contiguous().view(-1).view(torch.uint8).numpy().tobytes()]
    if isinstance(value, dict):
        return [one for key in value for one in (key, *flat(value[key]))]
    if isinstance(value, list | tuple):
        return [one for part in value for one in flat(part)]
    return [value]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flips", type=int, default=10_000, help="damaged files in all")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print("| file | damaged | refused | without a difference | wrong |")
    print("|---|---|---|---|---|")
    for kind, (_, share) in KINDS.items():
        with tempfile.TemporaryDirectory() as folder:
            flips = round(args.flips * share)
            tally = try_flips(kind, flips, args.seed, Path(folder))
        print(f"| {kind} | {flips} | {tally.refused} | {tally.equal} | {tally.wrong} |", flush=True)


if __name__ == "__main__":
    main()
