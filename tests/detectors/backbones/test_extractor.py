"""Where feature maps come from: torchvision names, files, named layers, modules that return maps."""

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from detectors import FeatureExtractor, PaDiM
from detectors.backbones.named import IMAGENET, is_name, named_backbone, published_statistics
from detectors.backbones.taps import folded

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


def test_a_failure_that_is_not_about_channels_stays_as_it_is() -> None:
    with pytest.raises(RuntimeError, match=r"Kernel size can't be greater"):
        FeatureExtractor(nn.Conv2d(3, 4, 9), None)(torch.rand(1, 3, 4, 4))


def test_folding_leaves_what_it_cannot_trace() -> None:
    """Maps stay the same; where torch.fx gives up, or the backbone returns its maps itself, so does the backbone."""
    images = torch.rand(2, 3, 16, 16)
    for extract in (FeatureExtractor(Maps("list"), None), FeatureExtractor(Maps("flat"), ["first", "second"])):
        want, backbone = extract(images), extract.backbone
        extract.fold()
        assert extract.backbone is backbone or folded(backbone.backbone, backbone.layers) is not None
        for one, other in zip(extract(images), want, strict=True):
            torch.testing.assert_close(one, other)
    assert folded(Branching(), ["conv"]) is None


class Branching(nn.Module):
    """Looks at values, which torch.fx cannot follow."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images) if images.sum() > 0 else images


def test_maps_of_another_thread_are_not_taken() -> None:
    """Two threads in one network: the hooks of the first also see what the second computes."""
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Identity())
    extract = FeatureExtractor(net, ["0", "1"])
    other: list[list[Tensor]] = []

    def interrupt(module: nn.Module, inputs: Any, output: Tensor) -> None:
        if threading.current_thread() is threading.main_thread():
            thread = threading.Thread(target=lambda: other.append(extract(torch.zeros(1, 3, 8, 8))))
            thread.start()
            thread.join()

    images = torch.rand(1, 3, 4, 4)
    extract.backbone.backbone[0].register_forward_hook(interrupt)
    maps = extract(images)
    assert torch.equal(maps[1], net[0](images).relu())
    assert len(other) == 1
    assert other[0][1].shape == (1, 4, 8, 8)


def test_what_is_a_name() -> None:
    assert is_name("resnet18")
    assert not is_name("resnet18x")
    assert not is_name(Path("resnet18"))


def test_weights_with_another_classifier(resnet: nn.Module, tmp_path: Path) -> None:
    """Features need none: a head for other classes is left out, as if it were missing."""
    state = resnet.state_dict() | {"fc.weight": torch.zeros(7, 512), "fc.bias": torch.zeros(7)}
    torch.save(state, tmp_path / "seven.pt")
    network = named_backbone("resnet18", tmp_path / "seven.pt")
    assert network.fc.out_features == 1000
    assert torch.equal(network.conv1.weight, resnet.conv1.weight)


def test_weights_whose_name_does_not_exist() -> None:
    with pytest.raises(ValueError, match=r"by a name that torchvision knows, .* got 'IMAGENET1K_V9'"):
        named_backbone("resnet18", "IMAGENET1K_V9")


def test_an_error_without_a_download_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        raise OSError("out of file handles")

    monkeypatch.setattr("torchvision.models.get_model", broken)
    with pytest.raises(OSError, match=r"^out of file handles$"):
        named_backbone("resnet18")


def test_statistics_of_published_weights(resnet: nn.Module) -> None:
    assert published_statistics(resnet) == IMAGENET
    network = named_backbone("timm:tf_efficientnet_lite0")
    assert published_statistics(network) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def test_without_timm_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModuleNotFoundError, match="pip install timm"):
        named_backbone("timm:resnet18")
