"""Trainings that are killed end with the weights of an undisturbed run; `kills.py` prints the table of 20 kills."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from forked_scripts import ScriptRunner
from kills import TRAININGS, kill, start_runner

KILLS = int(os.environ.get("MSACL_KILLS", "2"))


@pytest.fixture(scope="module")
def runner() -> Iterator[ScriptRunner]:
    runner = start_runner()
    yield runner
    runner.stop()


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAININGS)
def test_killed_trainings_end_as_undisturbed_ones(name: str, runner: ScriptRunner, tmp_path: Path) -> None:
    tally = kill(name, runner, KILLS, seed=0, folder=tmp_path)
    assert tally.differing == []
    assert tally.resumed > 0
    assert tally.in_mid_write > 0
