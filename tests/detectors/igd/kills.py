"""Kill trainings of IGD at random moments, resume them, and compare the weights with an undisturbed run's.

    python tests/detectors/igd/kills.py --kills 20

A child process trains; after a random step and a random part of the next one it gets SIGKILL. The moments are seeded.
"""

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from igd_cases import small_detector, smooth_images

from detectors import IGD

EPOCHS = 4
STEPS = 2 * EPOCHS


def train(file: Path | None, resume: bool = False, on_step=None) -> IGD:
    detector = small_detector(64, freeze_backbone=False)
    order = torch.Generator().manual_seed(1)
    loader = torch.utils.data.DataLoader(smooth_images(4, 64), batch_size=2, shuffle=True, generator=order)
    options = {"refresh_every": 2, "checkpoint": file, "resume": resume, "on_step": on_step}
    return detector.fit(loader, EPOCHS, progress=False, **options)


def kill_once(file: Path, moment: random.Random) -> int:
    """Start a training in another process and kill it; returns after how many steps."""
    steps = moment.randrange(STEPS + 1)
    part_of_a_step = moment.random()
    command = [sys.executable, __file__, "--train", str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        last = time.monotonic()
        duration = 0.1
        for _ in range(steps):
            child.stdout.readline()
            duration = time.monotonic() - last
            last = time.monotonic()
        time.sleep(min(duration, 1.0) * part_of_a_step)
        child.send_signal(signal.SIGKILL)
    return steps


def differing(one: IGD, other: IGD) -> list[str]:
    """Names of the tensors that are not bit-equal."""
    theirs = other.state_dict()
    return [name for name, tensor in one.state_dict().items() if not torch.equal(tensor, theirs[name])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train", type=Path, help="used by the child process")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.train:
        train(args.train, on_step=lambda *_: print("step", flush=True))
        return
    undisturbed = train(None)
    moment = random.Random(args.seed)
    survived = 0
    for kill in range(args.kills):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "igd.pt"
            steps = kill_once(file, moment)
            started_anew = not file.exists()
            wrong = differing(undisturbed, train(file, resume=not started_anew))
        survived += not wrong
        print(
            f"kill {kill + 1}: after {steps} of {STEPS} steps, {'no file yet' if started_anew else 'resumed'}, {wrong}"
        )
    print(f"{survived} of {args.kills} kills survived with bit-equal weights")


if __name__ == "__main__":
    main()
