"""Figures are drawn from a data set, encoders and the CSV."""

from pathlib import Path

import pytest
import torch
from figures import main
from networks.encoders import make_backbone, save_backbone
from results import COLUMNS, append_csv
from torchvision.transforms.v2.functional import to_pil_image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    for split, count in (("train/normal", 6), ("test/normal", 5), ("test/abnormal", 5), ("test/masks", 5)):
        (tmp_path / "data" / split).mkdir(parents=True)
        for i in range(count):
            image = torch.randint(256, (1 if "masks" in split else 3, 32, 32), dtype=torch.uint8, generator=generator)
            to_pil_image(image).save(tmp_path / "data" / split / f"{i}.png")
    return tmp_path / "data"


@pytest.mark.parametrize("figure", ["maps", "features"])
def test_encoders_stand_side_by_side(figure: str, folder: Path, tmp_path: Path) -> None:
    encoder = tmp_path / "data-32-msacl-1-0.pt"
    save_backbone(make_backbone("efficientnet_lite0"), "efficientnet_lite0", encoder)
    out = tmp_path / "figure.png"
    options = ["--data", str(folder), "--encoders", str(encoder), "--size", "32", "--columns", "3", "--out", str(out)]
    main([figure, *options])
    assert out.stat().st_size > 1000


def test_curve_needs_the_start(tmp_path: Path) -> None:
    table = tmp_path / "results.csv"
    with pytest.raises(SystemExit, match="calibrated start"):
        main(["curve", "--table", str(table), "--data-name", "tiny"])
    runs = [("start-calibrated", "0"), ("msacl", "1 of 2"), ("msacl", "2"), ("ccd", "2")]
    lines = [
        {"data": "tiny", "detector": "padim", "row": row, "epochs": epochs, "image_auroc": 0.6, "accuracy": 0.5}
        for row, epochs in runs
    ]
    append_csv(table, COLUMNS, lines)
    main(["curve", "--table", str(table), "--data-name", "tiny", "--out", str(tmp_path / "curve.png")])
    assert (tmp_path / "curve.png").is_file()
