"""Every kind of file that a folder may hold is read to the right values, or named as unusable."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydicom import dcmread
from pydicom.data import get_testdata_file

from detectors import ImageFiles
from detectors.folders.pixels import read_pixels

RAMP = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
COLOURS = np.stack([RAMP, RAMP[::-1], RAMP.T], axis=-1)


def write_12_bit(file: Path, highest: int = 4095) -> np.ndarray:
    values = np.linspace(0, highest, 64).round().astype(np.uint16).reshape(8, 8)
    Image.fromarray(values).save(file)
    return values


def read_one(folder: Path, size: int = 8, **options: object) -> torch.Tensor:
    images = ImageFiles(folder, size, **options)
    assert len(images) == 1
    return images[0]


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp", "PNG"])
@pytest.mark.parametrize("values", [RAMP, COLOURS], ids=["grey", "colour"])
def test_eight_bits_are_divided_by_255(suffix: str, values: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    expected = torch.from_numpy(values.reshape(8, 8, -1).astype(np.float32) / 255).permute(2, 0, 1).expand(3, -1, -1)
    torch.testing.assert_close(read_one(tmp_path), expected)


@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_lossy_formats_come_close(suffix: str, tmp_path: Path) -> None:
    Image.fromarray(np.full((40, 30, 3), (200, 100, 50), dtype=np.uint8)).save(tmp_path / f"a.{suffix}", quality=95)
    torch.testing.assert_close(read_one(tmp_path).mean((1, 2)), torch.tensor([200, 100, 50]) / 255, atol=0.02, rtol=0)


@pytest.mark.parametrize("mode", ["1", "P", "LA", "RGBA", "CMYK", "YCbCr"])
def test_other_modes_become_grey_or_colour(mode: str, tmp_path: Path) -> None:
    suffix = "jpg" if mode in ("CMYK", "YCbCr") else "png"
    Image.new("RGB", (8, 8), "white").convert(mode).save(tmp_path / f"a.{suffix}")
    torch.testing.assert_close(read_one(tmp_path), torch.ones(3, 8, 8))


def test_photographs_stand_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    Image.fromarray(np.zeros((10, 20), dtype=np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    assert ImageFiles(tmp_path, 8).thumbnail(0).shape == (3, 20, 10)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_twelve_bits_in_sixteen_are_scaled_by_what_the_files_hold(suffix: str, tmp_path: Path) -> None:
    values = write_12_bit(tmp_path / f"a.{suffix}")
    torch.testing.assert_close(read_one(tmp_path, channels=1)[0], torch.from_numpy(values.astype(np.float32) / 4095))


@pytest.mark.parametrize(("highest", "top"), [(255, 255), (1000, 1023), (4000, 4095), (16000, 16383), (65535, 65535)])
def test_the_fewest_bits_that_hold_all_files_are_the_range(highest: int, top: int, tmp_path: Path) -> None:
    write_12_bit(tmp_path / "a.png", highest)
    write_12_bit(tmp_path / "b.png", highest // 5)
    images = ImageFiles(tmp_path, 8)
    assert images.deep_range == (0, top)
    assert float(images[1].max()) == pytest.approx(highest // 5 / top)
    assert images.summary() == (
        f"2 images in {tmp_path}; 2 of them deeper than 8 bits, with values 0 to {highest}: "
        f"scaled from 0..{top} to 0..1"
    )


def test_a_quarter_unused_is_warned_about_with_the_remedy(tmp_path: Path) -> None:
    write_12_bit(tmp_path / "a.png", 2500)
    with pytest.warns(UserWarning, match=r"hold 0 to 2500, which is 61% of 0 to 4095: .* deep_range=\(0, 2500\)"):
        ImageFiles(tmp_path, 8)
    assert float(ImageFiles(tmp_path, 8, deep_range=(0, 2500))[0].max()) == 1


def test_sixteen_bit_colours_keep_their_lower_bits(tmp_path: Path) -> None:
    values = (np.arange(192, dtype=np.uint16) * 21).reshape(8, 8, 3)
    cv2 = pytest.importorskip("cv2")
    cv2.imwrite(str(tmp_path / "a.png"), values[..., ::-1])
    expected = torch.from_numpy(values.astype(np.float32) / 4095).permute(2, 0, 1)
    torch.testing.assert_close(read_one(tmp_path), expected)


def test_fractions_and_negative_values_in_tiff(tmp_path: Path) -> None:
    for name in ("fractions", "hounsfield"):
        (tmp_path / name).mkdir()
    Image.fromarray(RAMP.astype(np.float32) / 252).save(tmp_path / "fractions/a.tif")
    Image.fromarray(RAMP.astype(np.int32) * 8 - 1000).save(tmp_path / "hounsfield/a.tif")
    assert ImageFiles(tmp_path / "fractions", 8).deep_range == (0, 1)
    assert ImageFiles(tmp_path / "hounsfield", 8).deep_range == (-1000, 252 * 8 - 1000)
    window = read_one(tmp_path / "hounsfield", deep_range=(-200, 200))
    torch.testing.assert_close(window[0], torch.from_numpy((RAMP * 8.0 - 800) / 400).float().clamp(0, 1))


def test_files_that_cannot_be_used_are_counted_and_named(tmp_path: Path) -> None:
    (tmp_path / "deep/er").mkdir(parents=True)
    (tmp_path / ".hidden").mkdir()
    Image.fromarray(RAMP).save(tmp_path / "deep/er/good.png")
    Image.fromarray(RAMP).save(tmp_path / ".hidden/ignored.png")
    for name in ("a.xyz", "b.xyz", "c.xyz", "d.xyz", "notes"):
        (tmp_path / name).write_bytes(b"nothing")
    Image.fromarray(COLOURS.repeat(99, 0)).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:-300])
    Image.fromarray(RAMP).save(tmp_path / "frames.tif", save_all=True, append_images=[Image.fromarray(RAMP)])
    Image.fromarray(np.full((8, 8), np.nan, dtype=np.float32)).save(tmp_path / "nan.tif")
    (tmp_path / "no.png").write_bytes(b"no image")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.warns(UserWarning, match="are left out") as caught:
        images = ImageFiles(tmp_path, 8)
    message = str(caught[0].message)
    assert images.names == ["deep/er/good.png", "whole.jpg"]
    assert message.startswith(f"9 of 11 files in {tmp_path} are left out: ")
    for part in (
        "4 unknown suffix .xyz (a.xyz, b.xyz, c.xyz, ...)",
        "1 without suffix (notes)",
        "1 damaged or no image (image file is truncated",
        "1 holds 2 images: write one file for each (frames.tif)",
        "1 holds values that are not finite (nan.tif)",
        "1 damaged or no image (cannot identify image file",
    ):
        assert part in message
    assert images.summary() == f"2 images in {tmp_path}; 9 other files left out"


def test_deep_colour_of_tiff_is_refused_rather_than_cut_off(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "a.tif", COLOURS.astype(np.uint16) * 16, photometric="rgb")
    with pytest.raises(ValueError, match="more than 8 bits, which are read from PNG only"):
        read_pixels(tmp_path / "a.tif")


def test_unreadable_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(RAMP).save(tmp_path / "a.png")
    (tmp_path / "locked").write_bytes(b"")

    def refuse(self: Path, *args: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.warns(UserWarning, match=r"1 unreadable: Permission denied \(locked\)"):
        ImageFiles(tmp_path, 8)


def test_folder_without_images_says_what_it_holds(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="found no file at all"):
        ImageFiles(tmp_path, 8)
    (tmp_path / "a.xyz").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"found 1 unknown suffix .xyz \(a.xyz\)"):
        ImageFiles(tmp_path, 8)
    with pytest.raises(FileNotFoundError, match="expected a folder of images, found none at"):
        ImageFiles(tmp_path / "nowhere", 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size of at least 1"),
        ({"size": 8, "channels": 2}, "1 or 3 channels"),
        ({"size": 8, "deep_range": (1, 1)}, "lowest < highest"),
        ({"size": 8, "deep_range": 4095}, r"\(lowest, highest\) or None"),
    ],
)
def test_options_out_of_range_are_refused(options: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        ImageFiles(tmp_path, **options)


def test_a_file_damaged_later_is_named(tmp_path: Path) -> None:
    Image.fromarray(RAMP).save(tmp_path / "a.png")
    images = ImageFiles(tmp_path, 8)
    (tmp_path / "a.png").write_bytes(b"gone")
    with pytest.raises(ValueError, match=r"a\.png cannot be read any more"):
        images[0]


def test_new_images_are_read_like_the_fitted_ones(tmp_path: Path) -> None:
    for name, highest in (("fitted", 4095), ("new", 1000), ("beyond", 9000)):
        (tmp_path / name).mkdir()
        write_12_bit(tmp_path / name / "a.png", highest)
    metadata = ImageFiles(tmp_path / "fitted", 8, channels=1).metadata
    assert metadata == {"image_size": 8, "image_channels": 1, "image_range": [0, 4095]}
    new = ImageFiles.like(tmp_path / "new", metadata)
    assert new[0].shape == (1, 8, 8)
    assert float(new[0].max()) == pytest.approx(1000 / 4095)
    assert ImageFiles.like(tmp_path / "new", metadata, size=16)[0].shape == (1, 16, 16)
    with pytest.warns(UserWarning, match="hold 0 to 9000, but the detector was fitted on 0 to 4095"):
        ImageFiles.like(tmp_path / "beyond", metadata)
    with pytest.raises(ValueError, match=r"detector\.metadata\.update\(images\.metadata\)"):
        ImageFiles.like(tmp_path / "new", {"threshold": 1})


def test_colour_becomes_grey_by_its_brightness(tmp_path: Path) -> None:
    Image.fromarray(COLOURS).save(tmp_path / "a.png")
    expected = torch.from_numpy(np.array(Image.fromarray(COLOURS).convert("L"), dtype=np.float32) / 255)
    torch.testing.assert_close(read_one(tmp_path, channels=1)[0], expected, atol=1 / 255, rtol=0)


def test_thumbnails_keep_their_aspect_and_never_grow(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((60, 120), dtype=np.uint8)).save(tmp_path / "a.png")
    images = ImageFiles(tmp_path, 8)
    assert images.thumbnail(0, 40).shape == (3, 20, 40)
    assert images.thumbnail(0, 500).shape == (3, 60, 120)


def dicom(name: str, folder: Path, as_name: str = "a.dcm") -> Path:
    """A copy of a file that pydicom ships, in a folder of its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = get_testdata_file(name, download=False)
    folder.mkdir(exist_ok=True)
    (folder / as_name).write_bytes(Path(source).read_bytes())
    return folder / as_name


def test_dicom_of_ct_is_read_in_hounsfield_units(tmp_path: Path) -> None:
    values = read_pixels(dicom("CT_small.dcm", tmp_path))
    assert values.shape == (1, 128, 128)
    assert (float(values.min()), float(values.max())) == (128 - 1024, 2191 - 1024)
    window = read_one(tmp_path, size=128, deep_range=(-200, 300))
    assert (float(window.min()), float(window.max())) == (0, 1)


@pytest.mark.parametrize("as_name", ["a.dcm", "IM0001", "a.ima"])
def test_dicom_is_known_by_its_first_bytes(as_name: str, tmp_path: Path) -> None:
    dicom("MR_small.dcm", tmp_path, as_name)
    with pytest.warns(UserWarning, match="127 to 2145, which is 49% of 0 to 4095"):
        images = ImageFiles(tmp_path, 16)
    assert images.deep_range == (0, 4095)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("SC_rgb_rle.dcm", (3, 100, 100)),
        ("SC_rgb_small_odd.dcm", (3, 3, 3)),
        ("examples_palette.dcm", (3, 350, 800)),
        ("SC_ybr_full_422_uncompressed.dcm", (3, 100, 100)),
    ],
)
def test_dicom_in_colour(name: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    pytest.importorskip("pydicom")
    assert read_pixels(dicom(name, tmp_path)).shape == shape


def test_dicom_of_eight_bits_stays_uint8(tmp_path: Path) -> None:
    assert read_pixels(dicom("SC_rgb_rle.dcm", tmp_path)).dtype == torch.uint8


@pytest.mark.parametrize("signed", [False, True])
def test_dicom_white_by_low_values_is_inverted(signed: bool, tmp_path: Path) -> None:
    file = dicom("MR_small.dcm", tmp_path)
    dataset = dcmread(file)
    stored = dataset.pixel_array.astype(np.int64)
    dataset.PhotometricInterpretation = "MONOCHROME1"
    dataset.PixelRepresentation = int(signed)
    dataset.save_as(file)
    top = -1 if signed else 2**16 - 1
    assert read_pixels(file)[0].tolist() == (top - stored).tolist()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("SC_rgb_rle_2frame.dcm", "holds 2 images"),
        ("MR_truncated.dcm", "number of bytes of pixel data is less than expected"),
        ("rtstruct.dcm", "damaged or no image"),
        ("meta_missing_tsyntax.dcm", "damaged or no image"),
    ],
)
def test_dicom_that_holds_no_single_image_is_named(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        read_pixels(dicom(name, tmp_path))


def test_dicom_without_pydicom_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = dicom("MR_small.dcm", tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    with pytest.raises(ValueError, match=r"pip install 'msacl\[dicom\]'"):
        read_pixels(file)
