"""The short scripts from their command line, on a handful of images."""

import importlib
import sys
from pathlib import Path

import pytest
import torch
from torchvision.transforms.v2.functional import to_pil_image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    for split, count in (("train/normal", 9), ("test/normal", 4), ("test/abnormal", 4), ("test/masks", 4)):
        (tmp_path / "data" / split).mkdir(parents=True)
        for i in range(count):
            image = torch.randint(256, (1 if "masks" in split else 3, 32, 32), dtype=torch.uint8, generator=generator)
            to_pil_image(image).save(tmp_path / "data" / split / f"{i}.png")
    return tmp_path / "data"


def run(monkeypatch: pytest.MonkeyPatch, script: str, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
    importlib.import_module(script).main()


@pytest.mark.parametrize(
    ("script", "options", "saved"),
    [
        ("train_padim", ("--calibrate",), ("padim.pt", "padim.png")),
        ("train_igd", ("--scales", "global", "--width", 1 / 32, "--epochs", 1), ("igd.pt", "igd.png")),
    ],
)
def test_detectors_train_and_report(
    script: str, options: tuple[object, ...], saved: tuple[str, ...],
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run(monkeypatch, script, "--data", folder, "--out", tmp_path, "--size", 32, *options)
    printed = capsys.readouterr().out
    for name in ("image_auroc", "pixel_auroc", "aupro"):
        assert name in printed
    assert all((tmp_path / name).is_file() for name in saved)


def test_gallery_needs_few_images_and_no_test_set(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in sorted((folder / "train/normal").glob("*"))[3:]:
        path.unlink()
    (folder / "test").rename(tmp_path / "elsewhere")
    run(monkeypatch, "gallery", "--data", folder, "--out", tmp_path / "gallery.png", "--size", 48)
    assert (tmp_path / "gallery.png").is_file()


def test_resuming_nothing_is_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match="without --resume"):
        run(monkeypatch, "pretrain", "--data", folder, "--out", tmp_path, "--size", 32, "--batch-size", 4, "--resume")
