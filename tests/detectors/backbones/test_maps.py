"""Maps of every kind of network: tokens, channels last, Hugging Face's outputs, timm's stages."""

from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
import transformers
from torch import Tensor, nn
from torchvision.models.swin_transformer import SwinTransformer
from torchvision.models.vision_transformer import VisionTransformer

from detectors import FeatureExtractor, PaDiM
from detectors.backbones.maps import Tokens, as_maps, channels_first, tokens_to_map


def images(height: int = 32, width: int = 32, count: int = 2) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))


def swin() -> nn.Module:
    torch.manual_seed(0)
    return SwinTransformer([4, 4], 16, [1, 1], [2, 2], [2, 2], num_classes=3).eval()


def as_tokens(maps: Tensor, prefix: int) -> Tensor:
    patches = maps.flatten(2).transpose(1, 2)
    return torch.cat([torch.full((len(maps), prefix, maps.shape[1]), -7.0), patches], 1)


@pytest.mark.parametrize("size", [(64, 64), (64, 96)])
def test_swin_of_torchvision_is_read_channels_last(size: tuple[int, int]) -> None:
    """At 64 px its first maps (2, 16, 16, 16) fit both ways: those of the other layer decide."""
    net, x = swin(), images(*size)
    got = FeatureExtractor(net, ("features.1", "features.3"))(x)
    first = net.features[1](net.features[0](x))
    second = net.features[3](net.features[2](first))
    for one, want in zip(got, (first, second), strict=True):
        assert torch.equal(one, want.permute(0, 3, 1, 2))
    detector = PaDiM(net, ("features.1", "features.3"), num_features=9).fit([x, x])
    assert [(level.rows, level.columns) for level in detector.embedding.levels] == [
        (size[0] // 8, size[1] // 8),
        (size[0] // 4, size[1] // 4),
    ]


def test_maps_without_the_images_aspect_are_refused() -> None:
    with pytest.raises(ValueError, match=r"aspect of images of 64 x 64.*\(3, 30, 5\)"):
        channels_first([torch.rand(2, 3, 30, 5)], [True], (64, 64))


@pytest.mark.parametrize("shape", [(8, 5, 7), (8, 1, 1), (16, 16, 16), (3, 14, 14)])
def test_maps_of_convolutions_stay(shape: tuple[int, int, int]) -> None:
    size = {(8, 5, 7): (68, 100), (3, 14, 14): (30, 30)}.get(shape, (64, 64))
    maps = torch.rand(2, *shape)
    assert channels_first([maps], [True], size)[0] is maps


@pytest.mark.parametrize("prefix", [0, 1, 5])
@pytest.mark.parametrize("size", [(32, 32), (32, 48), (48, 16)])
def test_tokens_against_maps_made_by_hand(prefix: int, size: tuple[int, int]) -> None:
    want = torch.rand(2, 6, size[0] // 8, size[1] // 8)
    for tokens in (Tokens((8, 8), prefix), Tokens((8, 8), None), Tokens((4, 4), 0 if prefix == 0 else None)):
        if tokens.patch_size == (4, 4) and prefix:
            continue
        assert torch.equal(tokens_to_map(as_tokens(want, prefix), size, tokens), want)


def test_tokens_without_a_known_patch_size() -> None:
    want = torch.rand(2, 6, 14, 14)
    assert torch.equal(tokens_to_map(as_tokens(want, 1), (224, 224), Tokens(None, None)), want)
    with pytest.raises(ValueError, match=r"71 tokens.*attribute patch_size"):
        tokens_to_map(torch.rand(2, 71, 6), (32, 32), Tokens((8, 8), None))


def test_vision_transformer_of_torchvision() -> None:
    torch.manual_seed(0)
    net, x = VisionTransformer(32, 8, 2, 2, 16, 16).eval(), images()
    layer = "encoder.layers.encoder_layer_0"
    seen: list[Tensor] = []
    net.get_submodule(layer).register_forward_hook(lambda m, i, o: seen.append(o))
    net(x)
    got = FeatureExtractor(net, (layer,))(x)[0]
    torch.testing.assert_close(got, seen[0][:, 1:].transpose(1, 2).reshape(2, 16, 4, 4))


def small(kind: str) -> tuple[nn.Module, int]:
    """A randomly initialised network of Hugging Face, and its number of class and register tokens."""
    torch.manual_seed(0)
    options: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32}
    if kind == "vit":
        config = transformers.ViTConfig(intermediate_size=16, patch_size=8, **options)
        return transformers.ViTModel(config).eval(), 1
    if kind == "dinov2":
        config = transformers.Dinov2WithRegistersConfig(mlp_ratio=1, patch_size=8, num_register_tokens=4, **options)
        return transformers.Dinov2WithRegistersModel(config).eval(), 5
    config = transformers.DINOv3ViTConfig(intermediate_size=16, patch_size=8, num_register_tokens=3, **options)
    return transformers.DINOv3ViTModel(config).eval(), 4


@pytest.mark.parametrize("kind", ["vit", "dinov2", "dinov3"])
def test_last_hidden_state_of_hugging_face(kind: str) -> None:
    net, prefix = small(kind)
    x = images()
    got = FeatureExtractor(net, None)(x)
    want = net(x).last_hidden_state[:, prefix:].transpose(1, 2).reshape(2, 16, 4, 4)
    assert len(got) == 1
    assert torch.equal(got[0], want)
    assert PaDiM(net, None, num_features=5).fit([x])(x).anomaly_map.shape == (2, 1, 32, 32)


def test_feature_maps_of_hugging_face() -> None:
    want = [torch.rand(2, 6, 8, 8), torch.rand(2, 7, 4, 4)]
    output = SimpleNamespace(feature_maps=tuple(want), last_hidden_state=None)
    got = as_maps(output, None, (32, 32), Tokens(None, None))
    assert all(torch.equal(one, other) for one, other in zip(got, want, strict=True))


@pytest.mark.parametrize("name", ["resnet10t", "test_vit", "test_efficientnet", "test_convnext"])
def test_timm_by_name_equals_timm(name: str) -> None:
    torch.manual_seed(0)
    extract = FeatureExtractor(f"timm:{name}", ("layer1", "layer2", "layer3"), weights=None)
    x = images(64, 64)
    got = extract(x)
    net = extract.backbone.backbone
    want = net.forward_intermediates(x, intermediates_only=True, output_fmt="NCHW")
    stages = [info["module"] for info in net.feature_info]
    assert len(got) >= 2
    for one, layer in zip(got, extract.backbone.layers, strict=True):
        assert torch.equal(one, want[stages.index(layer)])
    if name != "test_vit":
        assert {64 // one.shape[2] for one in got} <= {4, 8, 16}


def test_timm_module_tapped_by_name() -> None:
    torch.manual_seed(0)
    net = timm.create_model("test_vit", dynamic_img_size=True).eval()
    want = net.forward_intermediates(images(64, 64), indices=[1], intermediates_only=True)[0]
    assert torch.equal(FeatureExtractor(net, ("blocks.1",))(images(64, 64))[0], want)


@pytest.mark.parametrize("name", ["resnet18", "timm:resnet10t"])
def test_a_mistyped_layer_lists_those_that_exist(name: str) -> None:
    with pytest.raises(ValueError, match=r"unknown \['layr2'\].*closest names are.*layer2"):
        FeatureExtractor(name, ("layr2",), weights=None)


def test_a_mistyped_key_lists_those_that_exist() -> None:
    class Dict(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"fine": x, "coarse": x}

    with pytest.raises(ValueError, match=r"\['fine', 'coarse'\], got unknown \['corse'\]"):
        FeatureExtractor(Dict(), ("corse",))(images())


def test_an_unknown_name_of_timm_says_so() -> None:
    with pytest.raises(ValueError, match="timm:tf_efficientnet_lite0"):
        FeatureExtractor("timm:tf_efficientnet_lite9", None, weights=None)


def test_stages_of_timm_by_default_and_submodules_by_name() -> None:
    """Named by hand, submodules that are no stages are tapped; without names, the stages like ResNet's are taken."""
    x = images()
    by_default = FeatureExtractor("timm:resnet18", None, weights=None)(x)
    assert [m.shape[1] for m in by_default] == [64, 128, 256]
    tapped = FeatureExtractor("timm:resnet18", ["layer1.0.conv1", "layer2"], weights=None)(x)
    assert [m.shape[1:] for m in tapped] == [(64, 8, 8), (128, 4, 4)]
