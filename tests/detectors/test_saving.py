"""One file from which a detector is rebuilt, and options that belong to the state."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18

import detectors
from detectors import PaDiM
from detectors.checkpoint import write_safely


def draw(count: int = 5) -> Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def make_padim(backbone: str | nn.Module = "resnet18", **options: Any) -> PaDiM:
    torch.manual_seed(0)
    weights = {"weights": None} if isinstance(backbone, str) else {}
    return PaDiM(backbone, **{"num_features": 12, **weights, **options})


@pytest.fixture(scope="module")
def fitted() -> PaDiM:
    return make_padim(blur_sigma=2.0, top_fraction=0.1).fit([draw()]).set_threshold([draw()])


@pytest.mark.parametrize("backbone", ["resnet18", "timm:resnet10t", "timm:test_vit"])
def test_a_detector_is_rebuilt_from_its_file_alone(backbone: str, tmp_path: Path) -> None:
    detector = make_padim(backbone, normalize="imagenet", eps=0.02).fit([draw()]).set_threshold([draw()])
    detector.metadata = {"trained on": "healthy", "size": 32, "classes": ["a", 1, 0.5], "share": 0.25, "ok": True}
    detector.save(tmp_path / "folder" / "padim.pt")
    loaded = detectors.load(tmp_path / "folder" / "padim.pt")
    assert isinstance(loaded, PaDiM)
    assert loaded.metadata == detector.metadata
    assert not loaded.training
    for got, want in zip(loaded(draw()), detector(draw()), strict=True):
        assert torch.equal(got, want)
    assert torch.load(tmp_path / "folder" / "padim.pt", weights_only=True)["backbone"] == backbone
    loaded.save(tmp_path / "again.pt")
    assert torch.equal(detectors.load(tmp_path / "again.pt")(draw()).pred_score, detector(draw()).pred_score)


def test_given_channels_are_rebuilt(tmp_path: Path) -> None:
    detector = make_padim(channels=torch.arange(7), num_features=None).fit([draw()])
    detector.save(tmp_path / "padim.pt")
    assert detectors.load(tmp_path / "padim.pt").fit([draw()]).channels.tolist() == list(range(7))


def test_a_module_without_a_name_is_asked_for(tmp_path: Path) -> None:
    detector = make_padim(resnet18().eval()).fit([draw()])
    detector.save(tmp_path / "padim.pt")
    with pytest.raises(ValueError, match="backbone=module"):
        detectors.load(tmp_path / "padim.pt")
    loaded = detectors.load(tmp_path / "padim.pt", backbone=resnet18())
    assert torch.equal(loaded(draw()).pred_score, detector(draw()).pred_score)
    with pytest.raises(ValueError, match="cannot be rebuilt"):
        detectors.load(tmp_path / "padim.pt", backbone=nn.Conv2d(3, 3, 3))


@pytest.mark.parametrize(
    "other",
    [{"blur_sigma": 1.0}, {"eps": 0.1}, {"top_fraction": 0.2}, {"nested": False}, {"num_features": 13},
     {"layers": ("layer1", "layer2")}, {"channels": torch.arange(12)}],
)  # fmt: skip
def test_every_option_is_compared(fitted: PaDiM, other: dict[str, Any], tmp_path: Path) -> None:
    options = {"blur_sigma": 2.0, "top_fraction": 0.1} | other
    torch.save(fitted.state_dict(), tmp_path / "state.pt")
    with pytest.raises(ValueError, match=rf"expected .*{next(iter(other))}=.* as here, got one saved with"):
        make_padim(**options).load(tmp_path / "state.pt")
    with pytest.raises(ValueError, match="as here, got one saved with"):
        make_padim(**options).load_state_dict(fitted.state_dict())


def test_all_options_are_in_the_state(fitted: PaDiM) -> None:
    """A new argument of PaDiM must be compared, too, or be named here with its reason."""
    arguments = set(PaDiM.__init__.__annotations__) - {"return"}
    restored = {"backbone", "weights", "normalize"}  # their tensors are in the state
    assert arguments - restored - {"generator"} == set(fitted.options)


def test_the_load_method_reads_the_file_of_save(fitted: PaDiM, tmp_path: Path) -> None:
    fitted.save(tmp_path / "padim.pt")
    loaded = make_padim(blur_sigma=2, top_fraction=0.1).load(tmp_path / "padim.pt")
    assert torch.equal(loaded(draw()).pred_score, fitted(draw()).pred_score)


def test_a_state_without_options_is_refused(fitted: PaDiM) -> None:
    state = fitted.state_dict()
    del state["options"]
    with pytest.raises(RuntimeError, match="options"):
        make_padim(blur_sigma=2.0, top_fraction=0.1).load_state_dict(state)


@pytest.mark.parametrize("metadata", [{1: "a"}, {"a": None}, {"a": {"b": 1}}, {"a": [None]}, {"a": torch.ones(1)}])
def test_metadata_holds_plain_values(fitted: PaDiM, metadata: dict[Any, Any], tmp_path: Path) -> None:
    detector = copy.copy(fitted)
    detector.metadata = metadata
    with pytest.raises(TypeError, match="expected metadata"):
        detector.save(tmp_path / "padim.pt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "a file of detector.save"),
        ({"kind": "Sequential"}, "import its class"),
        ({"kind": 5}, "expected kind"),
        ({"backbone": "resnet99"}, "cannot be rebuilt"),
        ({"metadata": {"a": None}}, "expected metadata"),
        ({"metadata": None}, "expected metadata"),
        ({"state_dict": {"a": 1}}, "expected a state_dict"),
        ({"state_dict": {}}, "options as bytes"),
        ({"state_dict": {"options": torch.tensor([91, 93], dtype=torch.uint8)}}, "options by name"),
        ({"state_dict": {"options": torch.tensor([123, 125], dtype=torch.uint8)}}, "cannot be rebuilt"),
    ],
)
def test_foreign_files_are_refused(fitted: PaDiM, change: dict[str, Any], message: str, tmp_path: Path) -> None:
    fitted.save(tmp_path / "padim.pt")
    torch.save(torch.load(tmp_path / "padim.pt") | change, tmp_path / "changed.pt")
    with pytest.raises(ValueError, match=message):
        detectors.load(tmp_path / "changed.pt")


def test_a_refused_write_says_so_and_leaves_the_old_file(fitted: PaDiM, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="it is a folder"):
        fitted.save(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="choose another place"):
        fitted.save(tmp_path / "file" / "padim.pt")
    torch.save({"old": torch.ones(1)}, tmp_path / "old.pt")
    with pytest.raises(AttributeError):
        write_safely({"new": lambda: None}, tmp_path / "old.pt")
    assert torch.load(tmp_path / "old.pt") == {"old": torch.ones(1)}
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "old.pt"]


def test_a_detector_without_values_is_not_saved(fitted: PaDiM, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one on meta: save it before it is moved there"):
        copy.deepcopy(fitted).to("meta").save(tmp_path / "padim.pt")
    assert not (tmp_path / "padim.pt").exists()
