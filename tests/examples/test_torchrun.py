"""`pretrain.py` under torchrun is the training of one process with the joined batch."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from data import read_folder
from pretrain import Config, pretrain
from skimage.io import imsave

SCRIPT = Path(__file__).resolve().parents[2] / "examples/pretrain.py"
TERMS = {
    "total": "total",
    "centring": r"\(3\)",
    "contrastive": r"\(5\)",
    "augmentation": r"\(8\)",
    "position": r"\(9\)",
}
CONFIG = Config(size=32, epochs=5, batch_size=8)  # eight images: one step an epoch


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    for name in ("train/normal", "test/normal", "test/abnormal"):
        (tmp_path / name).mkdir(parents=True)
        for i in range(8 if name == "train/normal" else 1):
            image = torch.randint(256, (4, 4, 3), dtype=torch.uint8, generator=generator)
            image = image.repeat_interleave(8, dim=0).repeat_interleave(8, dim=1)
            imsave(tmp_path / name / f"{i}.png", image.numpy(), check_contrast=False)
    return tmp_path


@pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")
def test_two_processes_print_the_losses_of_one(folder: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(SCRIPT)]
    options = {"data": folder, "out": folder / "two", "size": 32, "epochs": 5, "batch-size": 8}
    command += [str(part) for name, value in options.items() for part in (f"--{name}", value)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    lines = [line for line in result.stdout.splitlines() if line.startswith("epoch")]

    history: list[dict[str, float]] = []
    (folder / "one").mkdir()
    pretrain(read_folder(folder, CONFIG.size).train, CONFIG, folder / "one", history=history)
    assert len(lines) == len(history) == 5
    for line, row in zip(lines, history, strict=True):
        two = {name: float(re.search(rf"{label} (-?[\d.]+)", line)[1]) for name, label in TERMS.items()}
        one = {name: row[name] for name in TERMS}
        print("two processes:", two, "one process:", {name: round(value, 3) for name, value in one.items()})
        assert two == pytest.approx(one, abs=1.1e-3, rel=1e-4)  # three decimals are printed
