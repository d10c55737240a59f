"""Images for the example scripts: folders of real images, and crops of the photograph that scikit-image ships.

A folder is laid out `train/normal`, `test/normal`, `test/abnormal` and, optionally, `test/masks` (same file stem).
Images are kept in memory as uint8 and handed out in [0, 1].
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
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
    normal, abnormal = image_files(root / "test/normal"), image_files(root / "test/abnormal")
    labels = torch.tensor([0] * len(normal) + [1] * len(abnormal))
    masks = read_masks(root / "test/masks", normal, abnormal, size) if (root / "test/masks").is_dir() else None
    return Dataset(read_train(root, size), read_images(normal + abnormal, size, "test"), labels, masks)


def read_train(root: Path, size: int) -> Tensor:
    """The healthy images of a data set, (N, 3, size, size) uint8; it needs no test set."""
    return read_images(image_files(root / "train/normal"), size, "train")


def image_files(folder: Path) -> list[Path]:
    """The image files of a folder in the order of their names."""
    files = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)
    if not files:
        raise FileNotFoundError(
            f"expected images ({', '.join(sorted(SUFFIXES))}) in {folder}, found none: "
            "lay the data out as train/normal, test/normal, test/abnormal"
        )
    return files


def read_images(files: list[Path], size: int, name: str) -> Tensor:
    """Read and resize images, (N, 3, size, size) uint8."""
    progress = tqdm(files, desc=f"reading {name}", leave=False)
    return torch.stack([tvf.resize(read_image(file), [size, size], antialias=True) for file in progress])


def read_image(file: Path) -> Tensor:
    """Read one image, (3, H, W) uint8."""
    try:
        image = Image.open(file)
        if image.mode.startswith("I"):  # 16-bit grey, which convert() would cut off at 255
            image = image.convert("I").point(lambda value: value / 257).convert("L")
        return tvf.pil_to_tensor(image.convert("RGB"))
    except OSError as error:
        raise ValueError(f"{file} is not a readable image: replace or remove it ({error})") from error


def read_masks(folder: Path, normal: list[Path], abnormal: list[Path], size: int) -> Tensor:
    """Lesion masks of the test images, (M, 1, size, size) bool: empty for normal images."""
    empty = torch.zeros(len(normal), 1, size, size, dtype=torch.bool)
    by_stem = {path.stem: path for path in image_files(folder)}
    missing = [path.name for path in abnormal if path.stem not in by_stem]
    if missing:
        raise FileNotFoundError(f"expected a mask in {folder} for each abnormal image; none for {missing[:3]}")
    drawn = read_images([by_stem[path.stem] for path in abnormal], size, "masks")[:, :1]
    if not drawn.any():
        raise ValueError(f"expected lesions in the masks of {folder}, found all of them empty")
    return torch.cat([empty, drawn > drawn.max() / 2])  # lesions may be 1 or 255


def retina_crops(size: int, generator: torch.Generator, train: int = 256, test: int = 100) -> Dataset:
    """Crops of scikit-image's healthy fundus photograph: left half to train on, right half to test on.

    Half of the `test` crops get lesions from `draw_lesions`, which shares nothing with MedMix.
    """
    from skimage.data import retina

    photograph = torch.from_numpy(retina()).permute(2, 0, 1)
    middle = photograph.shape[2] // 2
    train_images = random_crops(photograph[:, :, :middle], train, size, generator)
    test_images = random_crops(photograph[:, :, middle:], test, size, generator)
    labels = (torch.arange(test) >= test // 2).long()
    masks = torch.zeros(test, 1, size, size, dtype=torch.bool)
    sick = labels.bool()
    test_images[sick], masks[sick] = draw_lesions(test_images[sick], generator)
    return Dataset(train_images, test_images, labels, masks)


def random_crops(photograph: Tensor, count: int, size: int, generator: torch.Generator, side: int = 192) -> Tensor:
    """Random `side` x `side` windows that lie wholly on the retina, resized: (count, 3, size, size) uint8."""
    windows: list[Tensor] = []
    while len(windows) < count:
        top = int(torch.randint(photograph.shape[1] - side + 1, (), generator=generator))
        left = int(torch.randint(photograph.shape[2] - side + 1, (), generator=generator))
        window = photograph[:, top : top + side, left : left + side]
        if window[0].min() > 60:  # the black surround of a fundus photograph is darker than that
            windows.append(tvf.resize(window, [size, size], antialias=True))
    return torch.stack(windows)


def draw_lesions(images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Paint exudate-like (bright yellow) or haemorrhage-like (dark red) blobs; returns images and masks.

    They are faint: a pixel changes by at most 40 %. A blob is where smooth noise, weighted by the distance to a random
    place, is high.
    """
    count, _, size, _ = images.shape
    noise = F.interpolate(torch.rand(count, 1, 10, 10, generator=generator), size=(size, size), mode="bicubic")
    place = 0.25 + 0.5 * torch.rand(count, 2, generator=generator)
    reach = 0.08 + 0.08 * torch.rand(count, 1, 1, generator=generator)
    axis = (torch.arange(size) + 0.5) / size
    squared = (axis[None, :, None] - place[:, 0, None, None]) ** 2 + (
        axis[None, None, :] - place[:, 1, None, None]
    ) ** 2
    height = torch.exp(-squared / (2 * reach**2))[:, None] * (0.5 + noise)  # (count, 1, size, size)
    opacity = ((height - 0.55) / 0.15).clamp(0, 1)
    bright = torch.rand(count, 1, 1, 1, generator=generator) < 0.5
    exudate, haemorrhage = torch.tensor([245.0, 225, 130]), torch.tensor([110.0, 20, 15])
    colour = torch.where(bright, exudate[:, None, None], haemorrhage[:, None, None])
    painted = images * (1 - 0.4 * opacity) + colour * 0.4 * opacity
    return painted.round().to(torch.uint8), opacity > 0.5
