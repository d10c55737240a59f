"""Kill real trainings at random moments, resume them, and compare all that they write with an undisturbed run.

    python tests/kills/kills.py --kills 20

Each training is a process of its own that gets SIGKILL: every second time when a random share of the undisturbed run's
time is over, else while it writes a random one of its checkpoints. Moments are seeded. Whether the files are equal is
asked of every tensor's bits: weights, optimisers, random states.
"""

import argparse
import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
NEEDED = [ROOT, ROOT / "tests/examples", ROOT / "tests/detectors/igd", ROOT / "examples/reproduction"]
sys.path[:0] = [str(folder) for folder in NEEDED]

from forked_scripts import ScriptRunner  # noqa: E402

EPOCHS = 4
POLL = 0.0005  # seconds between two looks for the file that is being written


@dataclass(frozen=True)
class Training:
    """A command that writes out/checkpoint.pt after each epoch and `final` in the end."""

    script: Path
    arguments: tuple[str, ...]
    final: str

    def files(self, folder: Path) -> tuple[Path, Path]:
        """What two runs must agree on."""
        return folder / "out/checkpoint.pt", folder / "out" / self.final


PRETRAIN = ("--data", "data", "--out", "out", "--size", "32", "--batch-size", "2", "--init", "random")
TRAININGS = {
    "pre-training": Training(ROOT / "examples/reproduction/pretrain.py", PRETRAIN, "encoder.pt"),
    "IGD": Training(HERE / "train_igd.py", (), "final.pt"),
}


@dataclass
class Tally:
    """What became of the kills of one training."""

    before_the_first_file: int = 0
    in_mid_write: int = 0
    resumed: int = 0
    differing: list[str] = field(default_factory=list)


def start_runner() -> ScriptRunner:
    """The process that the trainings are forked from: one thread, so that sums have one order."""
    path = os.pathsep.join(str(folder) for folder in NEEDED)
    return ScriptRunner(os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"})


class Killer:
    """Runs one training, undisturbed at first, and then as often as wanted with a kill in it."""

    def __init__(self, training: Training, runner: ScriptRunner, folder: Path) -> None:
        self.training = training
        self.runner = runner
        self.folder = folder
        whole = self.make_folder("undisturbed")
        started = time.monotonic()
        self.run(whole)
        self.seconds = time.monotonic() - started
        self.expected = [torch.load(file) for file in training.files(whole)]
        self.tally = Tally()

    def make_folder(self, name: str) -> Path:
        """A new folder with the images to train on."""
        folder = self.folder / name
        images = folder / "data/train/normal"
        images.mkdir(parents=True)
        generator = torch.Generator().manual_seed(0)
        for number in range(4):
            image = torch.randint(256, (3, 32, 32), dtype=torch.uint8, generator=generator)
            to_pil_image(image).save(images / f"{number}.png")
        return folder

    def start(self, folder: Path, *more: str) -> int:
        """Start the training; returns its process id."""
        arguments = [*self.training.arguments, "--epochs", str(EPOCHS), *more]
        return self.runner.start(str(self.training.script), folder, *arguments)

    def run(self, folder: Path, *more: str) -> None:
        """Train to the end."""
        self.start(folder, *more)
        done = self.runner.finish(folder)
        assert done.returncode == 0, done.stderr

    def start_and_kill(self, moment: random.Random, in_mid_write: bool) -> Path:
        """Start a training and kill it; where it was faster, again. Returns its folder."""
        while True:
            folder = self.make_folder("killed")
            process = self.start(folder)
            if in_mid_write:
                wait_for_write(folder / "out", moment.randint(1, EPOCHS), 20 * self.seconds)
            else:
                time.sleep(self.seconds * moment.random())
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
            if self.runner.finish(folder).returncode == -signal.SIGKILL:
                return folder
            shutil.rmtree(folder)

    def kill_once(self, moment: random.Random, in_mid_write: bool) -> None:
        """Kill a training, let the same command finish it, and compare what it wrote."""
        folder = self.start_and_kill(moment, in_mid_write)
        self.tally.in_mid_write += bool(list(folder.glob("out/*.part")))
        checkpoint, _ = self.training.files(folder)
        if checkpoint.exists():
            self.tally.resumed += 1
            self.run(folder, "--resume")
        else:
            self.tally.before_the_first_file += 1
            self.run(folder)
        for file, expected in zip(self.training.files(folder), self.expected, strict=True):
            self.tally.differing += differences(torch.load(file), expected, file.name)
        shutil.rmtree(folder)


def wait_for_write(folder: Path, number: int, longest: float) -> None:
    """Wait until the temporary file of that many checkpoints has been seen."""
    seen: set[str] = set()
    latest = time.monotonic() + longest
    while time.monotonic() < latest:
        seen |= {file.name for file in folder.glob("checkpoint.pt.*.part")}
        if len(seen) >= number:
            return
        time.sleep(POLL)


def differences(one: Any, other: Any, name: str) -> list[str]:
    """Names of the tensors and values in which two nested states are not the same, to the bit."""
    if isinstance(one, Tensor):
        same = one.dtype == other.dtype and one.shape == other.shape
        return [] if same and bits(one) == bits(other) else [name]
    if isinstance(one, dict):
        if one.keys() != other.keys():
            return [name]
        return [found for key in one for found in differences(one[key], other[key], f"{name}/{key}")]
    if isinstance(one, list | tuple):
        if len(one) != len(other):
            return [name]
        pairs = zip(one, other, strict=True)
        return [found for i, pair in enumerate(pairs) for found in differences(*pair, f"{name}/{i}")]
    return [] if one == other else [name]


def bits(tensor: Tensor) -> bytes:
    """The bytes of the values, so that NaN equals itself and 0 is not -0."""
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def kill(name: str, runner: ScriptRunner, kills: int, seed: int, folder: Path) -> Tally:
    """Kill a training of that name so many times; returns what became of it."""
    killer = Killer(TRAININGS[name], runner, folder)
    moment = random.Random(seed)
    for number in range(kills):
        killer.kill_once(moment, in_mid_write=number % 2 == 1)
    return killer.tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="of each training")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    runner = start_runner()
    print("| training | kills | in the middle of a write | nothing written yet: started anew | resumed | bit-equal |")
    print("|---|---|---|---|---|---|")
    for name in TRAININGS:
        with tempfile.TemporaryDirectory() as folder:
            tally = kill(name, runner, args.kills, args.seed, Path(folder))
        equal = "all" if not tally.differing else f"not: {tally.differing[:5]}"
        counts = f"{tally.in_mid_write} | {tally.before_the_first_file} | {tally.resumed}"
        print(f"| {name} | {args.kills} | {counts} | {equal} |", flush=True)
    runner.stop()


if __name__ == "__main__":
    main()
