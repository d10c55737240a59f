"""The page holds everything, asks the network for nothing, and no file name breaks it."""

import json
import re
from pathlib import Path

import pytest
import torch

from detectors import map_limits, overlay, write_report
from detectors.folders.overlay import heat_colours


def data_of(page: str) -> dict:
    found = re.search(r"^const data = (.*);$", page, flags=re.MULTILINE)
    assert found is not None
    return json.loads(found[1])


def write(file: Path, names: list[str], **options: object) -> str:
    count = len(names)
    images = (torch.rand(1 + 2 * (i % 2), 12, 20) for i in range(count))
    write_report(file, names, images, torch.arange(count) / 2, torch.rand(count, 1, 4, 4), **options)
    return file.read_text(encoding="utf-8")


def test_page_holds_all_images_scores_and_the_threshold(tmp_path: Path) -> None:
    page = write(tmp_path / "a.html", ["a.png", "b.png"], threshold=0.25, title="Lungs", notes=["2 left out"])
    data = data_of(page)
    assert (data["title"], data["notes"], data["threshold"]) == ("Lungs", ["2 left out"], 0.25)
    assert [(e["name"], e["score"], e["width"], e["height"]) for e in data["images"]] == [
        ("a.png", 0, 20, 12),
        ("b.png", 0.5, 20, 12),
    ]
    for entry in data["images"]:
        assert entry["image"].startswith("data:image/jpeg;base64,/9j/")
        assert entry["heat"].startswith("data:image/png;base64,iVBOR")


def test_page_needs_no_network(tmp_path: Path) -> None:
    page = re.sub(r"base64,[^\"]*", "", write(tmp_path / "a.html", ["a.png"]))  # which may hold any letters
    addresses = set(re.findall(r"(?:https?:)?//[\w.-]+[^\s\"']*", page))
    assert addresses <= {"http://www.w3.org/2000/svg"}  # a name, not an address
    assert not re.search(r"<link|@import|src=\"|url\(", page)


def test_no_name_breaks_out_of_the_script(tmp_path: Path) -> None:
    name = "</script><script>alert(1)</script>&\u2028.png"
    page = write(tmp_path / "a.html", [name])
    assert page.count("</script>") == 1
    assert data_of(page)["images"][0]["name"] == name


def test_counts_must_agree(tmp_path: Path) -> None:
    scores, maps = torch.zeros(2), torch.zeros(2, 1, 4, 4)
    images = [torch.rand(3, 8, 8)] * 3
    for count, message in ((1, "expected 2 images as there are names, got 1"), (3, "got more")):
        with pytest.raises(ValueError, match=message):
            write_report(tmp_path / "a.html", ["a", "b"], images[:count], scores, maps)
    with pytest.raises(ValueError, match="got 1, 2 and 2"):
        write_report(tmp_path / "a.html", ["a"], images[:1], scores, maps)


def test_colours_run_from_clear_to_bright() -> None:
    colours = heat_colours(torch.tensor([[[0.0, 0.25, 0.5, 1, 2]]]), (0, 1))
    assert colours[3, 0].tolist() == [0, 0.25, 0.5, 1, 1]
    assert colours[:3, 0, 1].tolist() == pytest.approx([87 / 255, 16 / 255, 110 / 255])
    brightness = colours[:3, 0].sum(0)
    assert (brightness.diff()[:3] > 0).all()


def test_limits_do_not_light_up_normal_images() -> None:
    maps = torch.tensor([[[[0.0, 1, 2]]]])
    assert map_limits(maps) == (1, 2)
    assert map_limits(maps, pixel_threshold=3) == (1, 5)
    assert map_limits(maps, pixel_threshold=1.25) == (1, 1.5)
    low, high = map_limits(maps, pixel_threshold=0.5)
    assert high > low
    low, high = map_limits(torch.ones(1, 1, 2, 2))
    assert high > low


def test_overlay_leaves_the_image_where_the_map_is_low() -> None:
    image = torch.rand(3, 8, 8)
    assert torch.equal(overlay(image, torch.zeros(1, 8, 8), (0, 1)), image)
    hot = overlay(image, torch.ones(1, 8, 8), (0, 1), opacity=1)
    torch.testing.assert_close(hot[:, 0, 0], torch.tensor([252, 255, 164]) / 255)


def test_scores_must_be_a_tensor_of_one_axis(tmp_path: Path) -> None:
    for scores, got in (([0.5], "list"), (torch.zeros(1, 1), r"\(1, 1\)")):
        with pytest.raises(TypeError, match=rf"scores as a tensor \(N,\), got {got}: take prediction.pred_score"):
            write_report(tmp_path / "a.html", ["a"], [torch.rand(3, 8, 8)], scores, torch.zeros(1, 1, 4, 4))
