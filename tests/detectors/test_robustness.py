"""What several threads and several writers do to a detector; the length of a fit.

MSACL_IMAGES=100000 python -m pytest tests/detectors/test_robustness.py -k flat
"""

import os
import resource
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from detectors import PaDiM
from detectors.checkpoint import write_safely

IMAGES = int(os.environ.get("MSACL_IMAGES", "2000"))


def make_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, 4, 1), nn.ReLU(), nn.Conv2d(4, 5, 3, 2, 1)).eval()


def make_padim() -> PaDiM:
    return PaDiM(make_net(), ("1", "2"), num_features=6, blur_sigma=1.0, generator=torch.Generator().manual_seed(0))


def draw(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def detector() -> PaDiM:
    return make_padim().fit([draw(8)]).set_threshold([draw(8)])


def test_eight_threads_predict_as_one(detector: PaDiM) -> None:
    batches = [draw(2, seed) for seed in range(24)]
    want = [detector(batch) for batch in batches]
    with ThreadPoolExecutor(8) as pool:
        for got, one in zip(pool.map(detector, batches), want, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(got, one, strict=True))


def test_writers_at_once_never_leave_a_broken_file(tmp_path: Path) -> None:
    file = tmp_path / "state.pt"

    def write(number: int) -> None:
        for _ in range(10):
            write_safely({"number": torch.full((500,), float(number))}, file)

    with ThreadPoolExecutor(4) as pool:
        writers = [pool.submit(write, number) for number in range(4)]
        while not all(writer.done() for writer in writers):
            if file.exists():
                assert torch.load(file)["number"].unique().numel() == 1
        for writer in writers:
            writer.result()
    assert [one.name for one in tmp_path.iterdir()] == ["state.pt"]


def test_memory_of_fit_and_predict_is_flat() -> None:
    def batches(count: int) -> Iterator[Tensor]:
        for start in range(0, count, 50):
            yield draw(50, start)

    detector = make_padim().fit(batches(1000))
    for images in batches(1000):
        detector(images)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    detector.fit(batches(IMAGES))
    for images in batches(IMAGES):
        detector(images)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 5000  # kB
