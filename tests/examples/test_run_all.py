"""`run.py --rows all`: every row of the paper's tables from one command, each once, also after a stop."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from detecting import Judgement
from networks.encoders import make_backbone
from results import read_csv
from rivals.own_rows import OWN_ROWS, RivalSetting, fit_rival, rival_epochs
from rows import ROWS, START_ROWS

import run
from run import main

COMMON = ("--size", "32", "--init", "random", "--rival-epochs", "2", "--rival-width", "0.03125")


def lines_of(out: Path) -> list[dict[str, str]]:
    return [line for line in read_csv(out / "results.csv") if line["row"] != "no learning"]


def test_rivals_that_are_rows_train_and_go_on_after_a_stop(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    command = ["--data", str(folder), "--out", str(out), *COMMON, "--rows", *OWN_ROWS]
    started = []

    def stopped_at_the_third(row: str, *arguments: object) -> object:
        started.append(row)
        if len(started) == 3:
            raise KeyboardInterrupt
        return fit_rival(row, *arguments)

    monkeypatch.setattr(run, "fit_rival", stopped_at_the_third)
    with pytest.raises(SystemExit, match="stopped"):
        main(command)
    main(command)
    assert started == [*OWN_ROWS[:3], *OWN_ROWS[2:]]
    lines = lines_of(out)
    assert [line["row"] for line in lines] == list(OWN_ROWS)
    assert {line["detector"] for line in lines} == {"own"}
    assert {line["epochs"] for line in lines} == {"2"}
    assert [line["start"] for line in lines] == [""] * 5 + ["efficientnet_lite0 random"]
    assert all(0 <= float(line["image_auroc"]) <= 1 for line in lines)
    curves = [read_csv(file) for file in (out / "curves").iterdir()]
    assert len(curves) == len(OWN_ROWS)
    assert all([line["epoch"] for line in curve] == ["1", "2"] for curve in curves)


def test_all_rows_are_judged_by_what_the_tables_need(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    judgement = Judgement({"score": torch.arange(10.0)}, {"image_auroc": 1.0})
    monkeypatch.setattr(run, "pretrain", lambda *arguments: make_backbone("efficientnet_lite0"))
    monkeypatch.setattr(
        run, "save_backbone", lambda backbone, architecture, file: file.with_suffix(".checkpoint").touch()
    )
    monkeypatch.setattr(run, "judge", lambda *arguments: judgement)
    monkeypatch.setattr(run, "fit_rival", lambda *arguments: SimpleNamespace(history=[{"loss": 1.0}]))
    monkeypatch.setattr(run, "judge_detector", lambda *arguments: judgement)
    out = tmp_path / "out"
    command = ["--data", str(folder), "--out", str(out), *COMMON, "--rows", "all"]
    main(command)
    lines = lines_of(out)
    judged = {row: [line["detector"] for line in lines if line["row"] == row] for row in (*START_ROWS, *ROWS)}
    assert judged.pop("start-calibrated") == ["padim", "knn", "igd", "patchcore", "kde", "ocsvm"]
    assert judged.pop("msacl") == judged.pop("ccd") == ["padim", "knn", "igd"]
    assert judged.pop("droc") == ["padim", "knn", "kde", "ocsvm"]
    assert all(detectors == ["padim", "knn"] for detectors in judged.values())
    assert [line["row"] for line in lines if line["detector"] == "own"] == list(OWN_ROWS)
    capsys.readouterr()
    main(command)
    assert lines_of(out) == lines


def test_rivals_take_as_many_steps_on_any_set() -> None:
    default = RivalSetting()
    for row in OWN_ROWS:
        small = rival_epochs(row, default, 384)
        large = rival_epochs(row, default, 768)
        assert small == pytest.approx(2 * large, abs=1)
    assert rival_epochs("dae", RivalSetting(rival_epochs=7), 384) == 7
    assert rival_epochs("dae", default, 3) > 0
