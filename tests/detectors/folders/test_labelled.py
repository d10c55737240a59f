"""A test folder becomes (image, label[, mask]) items that `evaluate` takes."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader

from detectors import ImageFiles, LabelledFiles, PaDiM, evaluate

METADATA = {"image_size": 16, "image_channels": 3}


def write(file: Path, value: int, lesion: int | None = None) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    values = np.full((40, 32), value, dtype=np.uint8)
    if lesion is not None:
        values[:20, :16] = lesion
    Image.fromarray(values).save(file)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        write(tmp_path / f"normal/{name}.png", 10)
        write(tmp_path / f"abnormal/sub/{name}.png", 20)
        write(tmp_path / f"masks/sub/{name}.bmp", 0, lesion=1 if name == "a" else 255)
    return tmp_path


def test_items_hold_image_label_and_mask(folder: Path) -> None:
    test = LabelledFiles(folder, METADATA)
    items = [test[i] for i in range(len(test))]
    assert [int(label) for _, label, _ in items] == [0, 0, 1, 1]
    assert [int(mask.sum()) for _, _, mask in items] == [0, 0, 64, 64]
    assert items[2][2][0, :8, :8].all()
    assert [round(255 * float(image.mean())) for image, _, _ in items] == [10, 10, 20, 20]
    with pytest.raises(IndexError):
        test[4]


def test_without_masks_items_are_pairs(folder: Path) -> None:
    (folder / "masks").rename(folder / "elsewhere")
    assert [len(item) for item in LabelledFiles(folder, METADATA)] == [2] * 4


def test_a_missing_mask_is_named(folder: Path) -> None:
    (folder / "masks/sub/b.bmp").unlink()
    with pytest.raises(FileNotFoundError, match=r"none for \['sub/b'\]"):
        LabelledFiles(folder, METADATA)


def test_evaluate_takes_the_items(folder: Path) -> None:
    healthy = ImageFiles(folder / "normal", 16)
    detector = PaDiM("resnet18", weights=None, layers=("layer1",), num_features=4).fit(DataLoader(healthy, 2))
    values = evaluate(detector, DataLoader(LabelledFiles(folder, healthy.metadata), 2))
    assert {"image_auroc", "pixel_auroc"} <= set(values)
