"""The judge without test images: split by patient, lesions pasted where the masks say, measures of forgetting."""

from pathlib import Path

import pytest
import search
import torch
from choose import Lesion, cka, effective_rank, hold_out, main, paste_lesions
from results import read_csv
from torchvision.transforms.v2.functional import to_pil_image


def write_set(folder: Path, with_masks: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    for split, count in (("train/normal", 10), ("test/normal", 3), ("test/abnormal", 3)):
        (folder / split).mkdir(parents=True)
        for i in range(count):
            image = torch.randint(100, 256, (3, 32, 32), dtype=torch.uint8, generator=generator)
            to_pil_image(image).save(folder / split / f"{i}.png")
    if with_masks:
        (folder / "test/masks").mkdir()
        mask = torch.zeros(1, 32, 32, dtype=torch.uint8)
        mask[:, 8:24, 10:20] = 255
        for i in range(3):
            to_pil_image(mask).save(folder / f"test/masks/{i}.png")


def test_patients_are_on_one_side(tmp_path: Path) -> None:
    write_set(tmp_path, with_masks=False)
    lines = [f"train/normal/{i}.png,{i % 5}" for i in range(10)]
    (tmp_path / "manifest.csv").write_text("\n".join(["file,group", *lines]))
    images = torch.arange(10)[:, None]
    train, held = hold_out(tmp_path, images)
    assert len(held) == 2
    assert not set((train % 5).flatten().tolist()) & set((held % 5).flatten().tolist())


def test_lesions_change_what_the_mask_says_and_keep_grey_grey() -> None:
    lesion = Lesion(torch.full((3, 20, 10), 200.0), torch.ones(1, 20, 10), torch.full((3, 1, 1), 120.0))
    grey = torch.full((4, 3, 64, 64), 100, dtype=torch.uint8)
    sick, masks = paste_lesions(grey, [lesion])
    assert masks.flatten(1).any(1).all()
    assert torch.equal(sick[:, 0], sick[:, 1])
    centre = masks & (sick[:, :1] == 180)  # the difference of 80 is kept
    assert centre.flatten(1).any(1).all()
    assert (sick[~masks.expand_as(sick)] <= 145).all()  # a soft edge around


def test_forgetting_is_measured() -> None:
    features = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    rotation = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(1))).Q
    assert cka(features, 3 * features @ rotation) == pytest.approx(1, abs=1e-5)
    assert cka(features, features.flip(0)) < 0.5
    assert effective_rank(features[:, :1].repeat(1, 8)) == pytest.approx(1, abs=1e-3)
    assert 7 < effective_rank(features) <= 8


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_set(tmp_path / "a", with_masks=False)
    write_set(tmp_path / "b", with_masks=True)
    options = ["--size", "32", "--epochs", "1", "--batch-size", "4", "--init", "random"]
    main(["--data", str(tmp_path / "a"), "--donors", str(tmp_path / "b"), *options])
    printed = capsys.readouterr().out
    assert "start-calibrated image_auroc" in printed
    assert "CKA 1.00" in printed
    with pytest.raises(SystemExit, match="expected masks in"):
        main(["--data", str(tmp_path / "b"), "--donors", str(tmp_path / "a"), *options])


def test_rates_are_searched_once_and_the_best_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_set(tmp_path / "a", with_masks=False)
    write_set(tmp_path / "b", with_masks=True)
    file = tmp_path / "rates.csv"
    sets = ["--data", str(tmp_path / "a"), "--donors", str(tmp_path / "b"), "--out", str(file)]
    command = [*sets, "--size", "32", "--init", "random", "--steps", "1", "--rows", "simclr", "--factors", "0.3", "3"]
    search.main(command)
    lines = read_csv(file)
    assert [(line["row"], line["factor"]) for line in lines] == [
        ("start-calibrated", "0.0000"),
        ("simclr", "0.3000"),
        ("simclr", "3.0000"),
    ]
    capsys.readouterr()
    search.main(command)
    assert read_csv(file) == lines
    assert "| row | a, x 0.3 | a, x 3 | a, best |" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="--data and --donors"):
        search.main([])


def test_best_factor_is_the_mean_over_seeds() -> None:
    figures = {("0", 0.3): 0.6, ("1", 0.3): 0.9, ("0", 1.0): 0.7, ("1", 1.0): 0.7, ("0", 3.0): 0.99}
    lines = [{"seed": s, "factor": str(f), "image_auroc": str(value)} for (s, f), value in figures.items()]
    assert search.best_factor(lines) == 0.3


@pytest.mark.parametrize(("auroc", "best"), [("0.704", 1.0), ("0.706", 3.0)])
def test_usual_rate_stays_where_another_is_hardly_better(auroc: str, best: float) -> None:
    lines = [{"seed": "0", "factor": f, "image_auroc": value} for f, value in (("1.0", "0.7"), ("3.0", auroc))]
    assert search.best_factor(lines) == best
