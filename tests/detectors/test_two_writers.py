"""Two processes that write one file at once never leave a broken one."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

WRITER = """
import sys
from pathlib import Path
import torch
from detectors.checkpoint import write_safely
for i in range(200):
    write_safely({"numbers": torch.full((20_000,), float(sys.argv[2]))}, Path(sys.argv[1]))
"""


@pytest.mark.slow
def test_a_file_of_two_writers_is_whole_at_every_moment(tmp_path: Path) -> None:
    file = tmp_path / "state.pt"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(file), number]) for number in ("1", "2")]
    reads = 0
    while any(writer.poll() is None for writer in writers):
        if file.is_file():
            numbers = torch.load(file, weights_only=True)["numbers"]
            assert numbers.unique().item() in (1, 2)
            reads += 1
    assert [writer.returncode for writer in writers] == [0, 0]
    assert reads > 0
    assert list(tmp_path.iterdir()) == [file]  # no temporary file is left
