import sys
from pathlib import Path

import pytest
import reproduce
import torch
from results import read_csv, summary
from torchvision.transforms.v2.functional import to_pil_image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    for split, count in (("train/normal", 10), ("test/normal", 5), ("test/abnormal", 5)):
        (tmp_path / "tiny" / split).mkdir(parents=True)
        for i in range(count):
            image = torch.randint(256, (3, 32, 32), dtype=torch.uint8, generator=generator)
            to_pil_image(image).save(tmp_path / "tiny" / split / f"{i}.png")
    return tmp_path / "tiny"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["reproduce.py", *map(str, arguments)])
    reproduce.main()


@pytest.mark.filterwarnings("ignore")  # those of t-SNE on ten points
def test_each_run_is_a_line_and_is_done_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    common = ("--data", folder, "--out", out, "--size", 32, "--epochs", 1, "--batch-size", 5, "--device", "cpu")
    igd = ("--detectors", "padim", "igd", "--igd-epochs", 1, "--igd-width", 1 / 32, "--igd-scales", "global")
    run(monkeypatch, *common, *igd, "--rows", "start", "start-calibrated", "msacl", "--seeds", 1, "--set", "lr=0.02")
    lines = read_csv(out / "results.csv")
    assert [(line["row"], line["detector"]) for line in lines if line["row"] != "no learning"] == [
        (row, detector) for row in ("start", "start-calibrated", "msacl") for detector in ("padim", "igd")
    ]
    assert lines[-1]["settings"] == "lr=0.02 igd_epochs=1 igd_width=0.03125 igd_lr=0.0001 igd_scales=global"
    assert (out / "tiny-real-32-resnet18-random-msacl-padim-0-1-5-lr=0.02-tsne.png").is_file()
    assert {line["batch_size"] for line in lines if line["row"] == "start-calibrated"} == {"5"}

    monkeypatch.setattr(reproduce, "run_row", lambda *arguments: pytest.fail("a finished run was repeated"))
    run(monkeypatch, *common, *igd, "--rows", "start", "start-calibrated", "msacl", "--seeds", 1, "--set", "lr=0.02")
    assert read_csv(out / "results.csv") == lines
    capsys.readouterr()
    run(monkeypatch, "--table", out / "results.csv")
    assert "| resnet18 random | msacl | padim | 1 | 5 | 1 |" in capsys.readouterr().out


@pytest.mark.parametrize("setting", ["learning_rate=1", "lr", "alpha=4", "size=32", "lr=abc"])
def test_setting_that_cannot_be_made_is_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    with pytest.raises(SystemExit, match=setting.partition("=")[2 * (setting == "lr=abc")]):
        run(monkeypatch, "--data", folder, "--out", tmp_path, "--set", setting)


def test_folders_that_would_be_mixed_up_or_are_missing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    twin = tmp_path / "other/tiny"
    twin.mkdir(parents=True)
    for folders, message in (([folder, twin], "different names"), ([folder, "nowhere"], "nowhere"), ([], "none")):
        with pytest.raises(SystemExit, match=message):
            run(monkeypatch, "--out", tmp_path, *(["--data", *folders] if folders else []))
    for arguments in (("--table", tmp_path / "no.csv"), ("--data", folder, "--epochs", 0)):
        with pytest.raises(SystemExit):
            run(monkeypatch, *arguments)


def test_summary() -> None:
    assert summary(["0.5", "0.7"]) == "0.600 ± 0.141"
    assert summary(["0.5"]) == "0.500"
    assert summary([""]) == "-"
