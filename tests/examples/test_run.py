"""`run.py` from its command line: each run is a line, done once; wrong wishes are named in a line."""

from pathlib import Path

import pytest
from results import images_file, read_csv, scores_file

import run
from run import main

COMMON = ("--size", "32", "--epochs", "2", "--batch-size", "5", "--init", "random")
ROWS = ("--rows", "start", "start-calibrated", "msacl")
DETECTORS = ("--detectors", "padim", "knn", "igd", "--igd-epochs", "1", "--igd-width", "0.03125")


def test_each_run_is_a_line_and_is_done_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["--data", str(folder), "--out", str(out), *COMMON, *ROWS, *DETECTORS]
    main([*command, "--evaluate-at", "1"])
    lines = read_csv(out / "results.csv")
    runs = [(line["row"], line["epochs"], line["detector"]) for line in lines if line["row"] != "no learning"]
    rows = (("start", "0"), ("start-calibrated", "0"), ("msacl", "1 of 2"), ("msacl", "2"))
    assert runs == [(*row, detector) for row in rows for detector in ("padim", "knn", "igd")]
    assert lines[-1]["settings"] == "batch_size=5 igd_epochs=1 igd_width=0.03125 igd_lr=0.001 igd_scales=global"
    assert len(read_csv(images_file(out / "results.csv"))) == 10
    scores = read_csv(scores_file(out / "results.csv"))
    assert {len(line["scores"].split()) for line in scores} == {10}
    assert [line["rule"] for line in scores[:2]] == ["maximum", "top tenth"]

    monkeypatch.setattr(run, "judge", lambda *arguments: pytest.fail("a finished run was repeated"))
    main(command)
    assert read_csv(out / "results.csv") == lines
    capsys.readouterr()
    main(["--table", str(out / "results.csv")])
    printed = capsys.readouterr().out
    settings = "batch_size=5 start=efficientnet_lite0-random"
    assert f"| msacl | 2 | {settings} | padim | 1 |" in printed
    assert f"| MSACL - IGD ({settings}) |" in printed
    assert "10 groups, 5 normal and 5 abnormal images" in printed
    assert f"| msacl | 2 | {settings} | knn | score | start-calibrated | 1, 1 |" in printed


def test_another_detector_trains_no_encoder_anew(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["--data", str(folder), "--out", str(tmp_path / "out"), *COMMON, "--rows", "msacl", "--detectors"]
    main([*command, "padim"])
    monkeypatch.setattr(run, "pretrain", lambda *arguments: pytest.fail("an encoder was trained again"))
    main([*command, "padim", "padim-layer3", "patchcore", "kde", "ocsvm"])
    first, *others = [line for line in read_csv(tmp_path / "out/results.csv") if line["row"] == "msacl"]
    assert [line["detector"] for line in others] == ["padim-layer3", "patchcore", "kde", "ocsvm"]
    assert {line["accuracy"] for line in others} == {first["accuracy"]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "not found: nowhere"),
        ([], "none was given"),
        (["--table", "no.csv"], r"no\.csv"),
        (["--data", ".", "--rows", "msacl2"], "expected a row of"),
        (["--data", ".", "--epochs", "0"], "at least 1"),
        (["--data", ".", "--seeds", "0"], "at least 1"),
    ],
)
def test_wishes_that_cannot_be_met_are_named(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=message):
        main(arguments)


def test_sets_of_one_name_would_be_mixed_up(folder: Path, tmp_path: Path) -> None:
    twin = tmp_path / "other/tiny"
    twin.mkdir(parents=True)
    with pytest.raises(SystemExit, match="different names"):
        main(["--data", str(folder), str(twin), "--out", str(tmp_path / "out")])
