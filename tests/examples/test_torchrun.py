"""`pretrain.py` under torchrun is the training of one process with the joined batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from skimage.io import imsave

SCRIPT = Path(__file__).with_name("pretrain_in_float64.py")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
TERMS = ("total", "centring", "contrastive", "augmentation", "position")
STEPS = 2


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    for name, count in {"train/normal": 4}.items():
        (tmp_path / name).mkdir(parents=True)
        for i in range(count):
            image = torch.randint(256, (4, 4, 3), dtype=torch.uint8, generator=generator)
            image = image.repeat_interleave(8, dim=0).repeat_interleave(8, dim=1)
            imsave(tmp_path / name / f"{i}.png", image.numpy(), check_contrast=False)
    return tmp_path


def losses(folder: Path, name: str, launcher: tuple[str, ...]) -> list[dict[str, float]]:
    """Terms of each epoch, which is one step: the batch is the whole data set."""
    options = {"data": folder, "out": folder / name, "size": 32, "epochs": STEPS, "batch-size": 4}
    arguments = [str(part) for option, value in options.items() for part in (f"--{option}", value)]
    arguments += ["--architecture", "resnet18", "--init", "random"]
    arguments += ["--weights", "1", "1", "1", "1"]  # batch-norm joins processes, all four terms do
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *launcher, str(SCRIPT), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    rows = [json.loads(line[6:]) for line in result.stdout.splitlines() if line.startswith("epoch {")]
    return [{term: row[term] for term in TERMS} for row in rows]


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one(folder: Path) -> None:
    one, two = losses(folder, "one", ()), losses(folder, "two", TORCHRUN)
    assert len(one) == len(two) == STEPS
    for step, (a, b) in enumerate(zip(one, two, strict=True)):
        print(f"step {step + 1}: one process {a}\n        two processes {b}")
        assert b == pytest.approx(a, rel=1e-9)
    weights = [torch.load(folder / name / "encoder.pt", weights_only=True)["state_dict"] for name in ("one", "two")]
    torch.testing.assert_close(*weights, rtol=1e-6, atol=1e-9)
