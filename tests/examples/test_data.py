from pathlib import Path

import numpy as np
import pytest
import torch
from data import Batches, read_folder, read_train
from PIL import Image
from torchvision.transforms.v2.functional import to_pil_image


def write_images(folder: Path, count: int, channels: int = 3) -> None:
    folder.mkdir(parents=True)
    for i in range(count):
        to_pil_image(torch.full((channels, 20, 30), 10 * i, dtype=torch.uint8)).save(folder / f"{i:02}.png")


def write_mask(file: Path, value: int) -> None:
    """A lesion in the upper left quarter."""
    mask = torch.zeros(1, 20, 30, dtype=torch.uint8)
    mask[:, :10, :15] = value
    to_pil_image(mask).save(file)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_images(tmp_path / "train/normal", 4)
    write_images(tmp_path / "test/normal", 2)
    write_images(tmp_path / "test/abnormal", 3)
    write_images(tmp_path / "test/masks", 3, channels=1)
    write_mask(tmp_path / "test/masks/01.png", 255)
    return tmp_path


def test_folder_is_read_with_labels_and_masks(folder: Path) -> None:
    data = read_folder(folder, 16)
    assert data.train.shape == (4, 3, 16, 16)
    assert data.labels.tolist() == [0, 0, 1, 1, 1]
    assert data.masks is not None
    assert data.masks.shape == (5, 1, 16, 16)
    assert data.masks.flatten(1).sum(dim=1).tolist() == [0, 0, 0, 64, 0]  # the others are darker than half
    assert data.masks[3, :, :8, :8].all()


def test_masks_may_be_drawn_in_ones(folder: Path) -> None:
    for name in ("00", "01", "02"):
        write_mask(folder / f"test/masks/{name}.png", 1)
    masks = read_folder(folder, 20).masks
    assert masks is not None
    assert masks[2:].flatten(1).sum(dim=1).tolist() == [100, 100, 100]
    for name in ("00", "01", "02"):
        write_mask(folder / f"test/masks/{name}.png", 0)
    with pytest.raises(ValueError, match="all of them empty"):
        read_folder(folder, 20)


def test_healthy_images_need_no_test_set(tmp_path: Path) -> None:
    write_images(tmp_path / "train/normal", 3)
    assert read_train(tmp_path, 16).shape == (3, 3, 16, 16)


def test_sixteen_bits_of_grey_become_eight(tmp_path: Path) -> None:
    (tmp_path / "train/normal").mkdir(parents=True)
    ramp = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    Image.fromarray(ramp).save(tmp_path / "train/normal/ramp.png")
    assert torch.equal(read_train(tmp_path, 16)[0, 0], torch.arange(256, dtype=torch.uint8).view(16, 16))


def test_missing_folder_says_what_layout_is_expected(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="train/normal, test/normal, test/abnormal"):
        read_folder(tmp_path, 16)


def test_unreadable_image_is_named(folder: Path) -> None:
    (folder / "train/normal/99.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"99\.png is not a readable image"):
        read_folder(folder, 16)


def test_missing_mask_is_named(folder: Path) -> None:
    (folder / "test/masks/01.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"01\.png"):
        read_folder(folder, 16)


def test_batches_shuffle_reproducibly_and_scale() -> None:
    images = torch.arange(10, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 2, 2)
    order = [
        torch.cat(list(Batches(images, batch_size=4, generator=torch.Generator().manual_seed(1)))) for _ in range(2)
    ]
    assert torch.equal(*order)
    assert torch.equal(order[0].sort(0).values * 255, images.float())
    assert len(Batches(images, batch_size=4)) == 3
    assert len(list(Batches(images, batch_size=4, drop_last=True))) == 2


def test_manifest_names_the_patients(folder: Path) -> None:
    assert len(set(read_folder(folder, 16).test_groups)) == 5
    lines = ["file,group", "test/normal/00.png,a", "test/normal/01.png,b", "test/abnormal/00.png,a"]
    (folder / "manifest.csv").write_text("\n".join(lines))
    assert read_folder(folder, 16).test_groups == ["a", "b", "a", "test/abnormal/01.png", "test/abnormal/02.png"]
