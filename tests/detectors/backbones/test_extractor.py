"""Where feature maps come from: torchvision names, files, named layers, modules that return maps."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from detectors import FeatureExtractor, PaDiM
from detectors.backbones.named import IMAGENET

LAYERS = ["layer1", "layer2", "layer3"]


class Maps(nn.Module):
    """Returns maps itself: as a list (timm's features_only), a dict (torchvision's extractor), or one tensor."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.first, self.second = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 5, 3, 2, 1)

    def forward(self, images: Tensor) -> Any:
        first = self.first(images)
        second = self.second(first)
        kinds = {"list": [first, second], "dict": {"layer1": first, "other": second}, "tensor": second, "flat": [7]}
        return kinds[self.kind]


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.resnet18().eval()


def test_equals_the_layers_of_the_backbone(resnet: nn.Module) -> None:
    images = torch.rand(2, 3, 64, 64)
    x = resnet.maxpool(resnet.relu(resnet.bn1(resnet.conv1(images))))
    wanted = [x := getattr(resnet, name)(x) for name in LAYERS]
    for got, want in zip(FeatureExtractor(resnet, LAYERS)(images), wanted, strict=True):
        assert torch.equal(got, want)
    last, first = FeatureExtractor(resnet, ["layer3", "layer1.0.conv1"])(images)
    assert torch.equal(last, wanted[2])
    assert first.shape == (2, 64, 16, 16)


def test_nothing_after_the_last_layer_runs(resnet: nn.Module) -> None:
    extract = FeatureExtractor(resnet, LAYERS)
    extract.backbone.backbone.layer4 = None
    assert len(extract(torch.rand(1, 3, 64, 64))) == 3


@pytest.mark.parametrize(("kind", "shapes"), [("list", [4, 5]), ("dict", [4, 5]), ("tensor", [5])])
@pytest.mark.parametrize("layers", [None, LAYERS])
def test_backbones_that_return_maps(kind: str, shapes: list[int], layers: list[str] | None) -> None:
    images = torch.rand(3, 3, 16, 16)
    assert [m.shape[1] for m in FeatureExtractor(Maps(kind), layers)(images)] == shapes
    detector = PaDiM(Maps(kind), layers, num_features=3).fit([images])
    assert detector(images).anomaly_map.shape == (3, 1, 16, 16)


def test_dict_keys_are_chosen_by_name() -> None:
    assert [m.shape[1] for m in FeatureExtractor(Maps("dict"), ["other"])(torch.rand(1, 3, 8, 8))] == [5]


def test_normalisation() -> None:
    images = torch.rand(2, 3, 16, 16)
    plain = Maps("tensor")
    mean, std = (torch.tensor(value).reshape(1, 3, 1, 1) for value in IMAGENET)
    for normalize in ("imagenet", IMAGENET):
        torch.testing.assert_close(
            FeatureExtractor(plain, None, normalize=normalize)(images)[0], plain((images - mean) / std)
        )
    assert torch.equal(FeatureExtractor(plain, None)(images)[0], plain(images))
    assert FeatureExtractor("resnet18", LAYERS, weights=None).mean is None


def test_weights_from_files(resnet: nn.Module, tmp_path: Path) -> None:
    images = torch.rand(1, 3, 32, 32)
    want = FeatureExtractor(resnet, LAYERS)(images)[2]
    state = {name: value for name, value in resnet.state_dict().items() if not name.startswith("fc.")}
    torch.save(state, tmp_path / "state.pt")
    torch.save({"architecture": "resnet18", "state_dict": state}, tmp_path / "encoder.pt")
    assert torch.equal(FeatureExtractor("resnet18", LAYERS, weights=tmp_path / "state.pt")(images)[2], want)
    assert torch.equal(FeatureExtractor(tmp_path / "encoder.pt", LAYERS)(images)[2], want)
    assert torch.equal(FeatureExtractor(str(tmp_path / "encoder.pt"), LAYERS)(images)[2], want)
    with pytest.raises(ValueError, match="right architecture"):
        FeatureExtractor("resnet34", LAYERS, weights=tmp_path / "state.pt")
    with pytest.raises(ValueError, match="architecture"):
        FeatureExtractor(tmp_path / "state.pt", LAYERS)
    with pytest.raises(FileNotFoundError):
        FeatureExtractor("resnet18", LAYERS, weights=tmp_path / "missing.pt")


def test_failing_download_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*args: Any, **kwargs: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("torch.hub.download_url_to_file", no_network)
    monkeypatch.setattr("torch.hub.get_dir", lambda: "/nonexistent-folder-for-weights")
    monkeypatch.setattr("os.makedirs", lambda *args, **kwargs: None)
    with pytest.raises(RuntimeError, match=r"no route to host.*path of a state_dict.*weights=None"):
        PaDiM("resnet18")


@pytest.mark.parametrize(
    ("backbone", "layers", "error", "message"),
    [
        ("resnet18x", LAYERS, ValueError, "model of torchvision"),
        (5, LAYERS, TypeError, "int"),
        (Maps("list"), "layer1", TypeError, "sequence of layer names"),
        (Maps("list"), ["first", "third"], ValueError, r"unknown \['third'\]"),
    ],
)
def test_wrong_backbones(backbone: Any, layers: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        FeatureExtractor(backbone, layers)


def test_backbone_without_maps(resnet: nn.Module) -> None:
    for extract in (FeatureExtractor(resnet, None), FeatureExtractor(Maps("flat"), None)):
        with pytest.raises(ValueError, match="name submodules"):
            extract(torch.rand(1, 3, 32, 32))


def test_importing_detectors_does_not_import_torchvision() -> None:
    code = "import sys, detectors; print([m for m in ('torchvision', 'sklearn.metrics', 'kornia') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
