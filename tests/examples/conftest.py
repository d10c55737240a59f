"""Let the tests import the example scripts' modules and `forked_scripts`; a tiny data set for their command lines."""

import sys
from pathlib import Path

import pytest
import torch
from torchvision.transforms.v2.functional import to_pil_image

TESTS = Path(__file__).resolve().parent
sys.path[:0] = [str(TESTS.parents[1] / "examples/reproduction"), str(TESTS)]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of noise of 32 px: 10 healthy images to train on, 5 and 5 to test on."""
    root = tmp_path_factory.mktemp("data") / "tiny"
    generator = torch.Generator().manual_seed(0)
    for split, count in (("train/normal", 10), ("test/normal", 5), ("test/abnormal", 5)):
        (root / split).mkdir(parents=True)
        for i in range(count):
            image = torch.randint(256, (3, 32, 32), dtype=torch.uint8, generator=generator)
            to_pil_image(image).save(root / split / f"{i}.png")
    return root
