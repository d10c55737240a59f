"""Checks of images' values, and the progress bar."""

import sys

import pytest
import torch

from detectors.inputs import check_span, check_unit_range, with_progress


def test_values_are_read_outside_the_compiler_only(monkeypatch: pytest.MonkeyPatch) -> None:
    images = 255 * torch.rand(1, 3, 4, 4)
    with pytest.raises(ValueError, match=r"images in \[0, 1\]"):
        check_unit_range(images)
    with pytest.raises(ValueError, match="data_range=1 apart"):
        check_span(images, 1.0)
    monkeypatch.setattr("torch.compiler.is_compiling", lambda: True)
    check_unit_range(images)
    check_span(images, 1.0)


def test_progress_without_tqdm_is_a_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    loader = [1, 2]
    assert with_progress(loader, "fitting", False) is loader
    assert list(with_progress(loader, "fitting", True)) == loader
    capsys.readouterr()
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert with_progress(loader, "fitting", True) is loader
    assert capsys.readouterr().out == "fitting\n"
