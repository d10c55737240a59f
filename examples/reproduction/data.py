"""Read a data set laid out as train/normal, test/normal, test/abnormal and, optionally, test/masks (same file stem).

Images are kept in memory as uint8 and handed out in [0, 1]. A manifest.csv with the columns `file` and `group` says
which images belong to one patient; without it each image is a group of its own.
"""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as tvf
from tqdm import tqdm

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


class Dataset(NamedTuple):
    """Healthy images to train on and labelled images to test on."""

    train: Tensor  # (N, 3, S, S) uint8
    test: Tensor  # (M, 3, S, S) uint8
    labels: Tensor  # (M,) int64, 1 = abnormal
    masks: Tensor | None  # (M, 1, S, S) bool, or None where nobody drew the lesions
    test_files: list[str]  # (M,) paths below the folder
    test_groups: list[str]  # (M,) patients


class Batches:
    """Mini-batches over tensors of equal length; uint8 images come out as floats in [0, 1].

    Args:
        tensors: One or more tensors with the same first dimension.
        batch_size: Rows per batch.
        generator: Shuffles anew at each pass; None keeps the order.
        drop_last: Leave out a last batch that is not full.
    """

    def __init__(
        self,
        *tensors: Tensor,
        batch_size: int,
        generator: torch.Generator | None = None,
        drop_last: bool = False,
    ) -> None:
        self.tensors = tensors
        self.batch_size = min(batch_size, len(tensors[0]))
        self.generator = generator
        self.drop_last = drop_last

    def __len__(self) -> int:
        full, rest = divmod(len(self.tensors[0]), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[Tensor | tuple[Tensor, ...]]:
        count = len(self.tensors[0])
        order = torch.arange(count) if self.generator is None else torch.randperm(count, generator=self.generator)
        for rows in order.split(self.batch_size)[: len(self)]:
            batch = tuple(t[rows].float() / 255 if t.dtype == torch.uint8 else t[rows] for t in self.tensors)
            yield batch if len(batch) > 1 else batch[0]


def labelled_batches(data: Dataset, batch_size: int = 32) -> Batches:
    """Batches of (images, labels) or, where there are masks, (images, labels, masks)."""
    tensors = (data.test, data.labels) if data.masks is None else (data.test, data.labels, data.masks)
    return Batches(*tensors, batch_size=batch_size)


def read_folder(root: Path, size: int) -> Dataset:
    """Read a data set laid out as this module's docstring says, resized to `size` x `size`."""
    normal = image_files(root / "test/normal")
    abnormal = image_files(root / "test/abnormal")
    files = normal + abnormal
    labels = torch.tensor([0] * len(normal) + [1] * len(abnormal))
    masks = None
    if (root / "test/masks").is_dir():
        masks = _read_masks(root / "test/masks", normal, abnormal, size)
    groups = read_groups(root)
    names = [file.relative_to(root).as_posix() for file in files]
    return Dataset(
        train=read_train(root, size),
        test=_read_images(files, size, "test"),
        labels=labels,
        masks=masks,
        test_files=names,
        test_groups=[groups.get(name, name) for name in names],
    )


def read_train(root: Path, size: int) -> Tensor:
    """The healthy images of a data set, (N, 3, size, size) uint8; it needs no test set."""
    return _read_images(image_files(root / "train/normal"), size, "train")


def read_groups(root: Path) -> dict[str, str]:
    """The patient of each file, by its path below `root`; empty without a manifest."""
    manifest = root / "manifest.csv"
    if not manifest.is_file():
        return {}
    with manifest.open(newline="", encoding="utf-8") as stream:
        return {line["file"]: line["group"] for line in csv.DictReader(stream)}


def image_files(folder: Path) -> list[Path]:
    """The image files of a folder in the order of their names."""
    files = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)
    if not files:
        raise FileNotFoundError(
            f"expected images ({', '.join(sorted(SUFFIXES))}) in {folder}, found none: "
            "lay the data out as train/normal, test/normal, test/abnormal"
        )
    return files


def _read_images(files: list[Path], size: int, name: str) -> Tensor:
    """Read and resize images, (N, 3, size, size) uint8."""
    progress = tqdm(files, desc=f"reading {name}", leave=False)
    return torch.stack([tvf.resize(_read_image(file), [size, size], antialias=True) for file in progress])


def _read_image(file: Path) -> Tensor:
    """Read one image, (3, H, W) uint8."""
    try:
        image = Image.open(file)
        if image.mode.startswith("I"):  # 16-bit grey, which convert() would cut off at 255
            image = image.convert("I").point(lambda value: value / 257).convert("L")
        return tvf.pil_to_tensor(image.convert("RGB"))
    except OSError as error:
        raise ValueError(f"{file} is not a readable image: replace or remove it ({error})") from error


def _read_masks(folder: Path, normal: list[Path], abnormal: list[Path], size: int) -> Tensor:
    """Lesion masks of the test images, (M, 1, size, size) bool: empty for normal images."""
    empty = torch.zeros(len(normal), 1, size, size, dtype=torch.bool)
    by_stem = {path.stem: path for path in image_files(folder)}
    missing = [path.name for path in abnormal if path.stem not in by_stem]
    if missing:
        raise FileNotFoundError(f"expected a mask in {folder} for each abnormal image; none for {missing[:3]}")
    drawn = _read_images([by_stem[path.stem] for path in abnormal], size, "masks")[:, :1]
    if not drawn.any():
        raise ValueError(f"expected lesions in the masks of {folder}, found all of them empty")
    return torch.cat([empty, drawn > drawn.max() / 2])  # lesions may be 1 or 255
