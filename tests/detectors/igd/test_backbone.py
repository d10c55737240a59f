import copy

import pytest
import timm
import torch
from igd_cases import SMALL, colours, fitted, small_detector, smooth_images, tiny_backbone
from torch import Tensor, nn
from torchvision.models import get_model, resnet18

from detectors import IGD
from detectors.igd.backbone import PooledFeatures, feature_width


@pytest.mark.parametrize("channels", [1, 3])
def test_torchvision_resnet_is_a_backbone(channels):
    backbone = resnet18()
    before = copy.deepcopy(backbone.state_dict())
    detector = IGD(backbone, 32, "global", channels=channels, **SMALL)
    assert detector.scales["global"].model.project.in_features == 512
    detector.fit([torch.rand(2, channels, 32, 32)], 1, progress=False)
    assert isinstance(backbone.fc, nn.Linear)  # the caller's module is left alone
    torch.testing.assert_close(backbone.state_dict(), before)


def test_frozen_backbone_does_not_change_and_a_trained_one_does():
    for freeze in (True, False):
        detector = small_detector(freeze_backbone=freeze)
        before = copy.deepcopy(detector.backbones.state_dict())
        assert len(detector.backbones) == (1 if freeze else 2)
        detector.fit([smooth_images(4)], 1, progress=False)
        after = detector.backbones.state_dict()
        assert all(torch.equal(before[k], after[k]) for k in before) == freeze
        assert detector.train().scales["global"].backbone.module.training is not freeze


def test_wrong_backbones_are_refused():
    with pytest.raises(TypeError, match="got int"):
        IGD(3)
    with pytest.raises(ValueError, match=r"pooled features \(B, F\), got \(1, 3, 1024\)"):
        IGD(nn.Flatten(2), 32)
    with pytest.raises(ValueError, match="2 x 32 x 32 images, but it failed"):
        IGD(tiny_backbone(), 32, channels=2)


class Viewing(nn.Module):
    """Flattens its maps by `view`, which the channels_last layout does not allow."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 8, stride=8)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.convolution(images)
        return maps.view(len(maps), -1)


@torch.no_grad()
@pytest.mark.parametrize("backbone", [tiny_backbone(), Viewing(), resnet18()])
def test_features_are_those_of_the_backbone_in_any_memory_layout(backbone):
    detector, images = IGD(backbone, 32, "global", **SMALL), smooth_images(3)
    backbone.eval()
    maps = nn.Sequential(*list(backbone.children())[:-1]) if hasattr(backbone, "fc") else backbone
    features = maps(images)
    features = features.mean((2, 3)) if features.ndim == 4 else features
    torch.testing.assert_close(detector.scales["global"].backbone(images), features, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "side", "width"),
    [
        ("convnext_tiny", 32, 768),
        pytest.param("vit_b_32", 224, 768, marks=pytest.mark.slow),
        ("efficientnet_b0", 32, 1280),
        ("densenet121", 32, 1024),
        ("mobilenet_v3_small", 32, 1024),
        ("swin_t", 32, 768),
        ("timm:tf_efficientnet_lite0", 32, 1280),
    ],
)
def test_classification_logits_are_never_features(name, side, width):
    backbone = PooledFeatures(name, frozen=True)
    assert feature_width(backbone, side, 3) == width
    if not name.startswith("timm:"):
        assert feature_width(PooledFeatures(get_model(name), frozen=True), side, 3) == width


def test_head_of_timm_is_left_out_of_a_module():
    network = timm.create_model("convnext_atto", num_classes=10)
    assert feature_width(PooledFeatures(network, frozen=True), 32, 3) == 320


def test_a_classifier_without_linear_layer_is_refused_by_name():
    with pytest.raises(ValueError, match=r"SqueezeNet\.classifier holds no linear layer"):
        PooledFeatures(get_model("squeezenet1_1"), frozen=True)


@pytest.mark.parametrize("kind", [list, tuple, lambda maps: {"maps": maps}])
def test_backbones_with_several_outputs_are_refused(kind):
    class Several(nn.Conv2d):
        def forward(self, images: Tensor):
            return kind([super().forward(images)] * 2)

    with pytest.raises(ValueError, match=r"pooled features \(B, F\), got .*one of its outputs"):
        IGD(Several(3, 4, 3), 32)


def test_published_weights_bring_their_normalisation(monkeypatch):
    monkeypatch.setattr("detectors.igd.backbone.make_backbone", lambda *_, **__: (colours(), "resnet18"))
    features = PooledFeatures("resnet18", frozen=True, weights="imagenet")
    grey = torch.full((1, 3, 8, 8), 0.5)
    expected = [(0.5 - mean) / std for mean, std in zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)]
    assert features(grey)[0].tolist() == pytest.approx(expected, rel=1e-5)


def test_projection_is_where_the_codes_start():
    projection = nn.Sequential(nn.Linear(24, 8), nn.ReLU(), nn.Linear(8, 16))
    detector = small_detector(projection=projection)
    before = copy.deepcopy(projection.state_dict())
    for scale in detector.scales.values():
        torch.testing.assert_close(scale.model.project.state_dict(), before)
    detector.fit([smooth_images(4)], 1, progress=False)
    torch.testing.assert_close(projection.state_dict(), before)  # the caller's module is left alone
    trained = detector.scales["global"].model.project.state_dict()
    assert all(not torch.equal(before[name], trained[name]) for name in before)


@pytest.mark.parametrize(
    ("projection", "error", "message"),
    [
        (3, TypeError, "projection to be a torch.nn.Module or None, got int"),
        (nn.Linear(5, 16), ValueError, "projection of the backbone's 24 features, but it failed"),
        (nn.Linear(24, 5), ValueError, r"codes of code_dim=16 from the projection, got \(5,\)"),
    ],
)
def test_wrong_projections_are_refused(projection, error, message):
    with pytest.raises(error, match=message):
        small_detector(projection=projection)


def test_a_graph_is_kept_only_for_images_that_ask_for_a_gradient():
    detector, images = fitted(), smooth_images(2)
    prediction = detector(images)
    assert not prediction.pred_score.requires_grad
    assert not prediction.anomaly_map.requires_grad
    images.requires_grad_()
    detector(images).pred_score.sum().backward()
    assert images.grad.abs().sum() > 0


def test_224_pixels():
    detector = fitted(224)
    assert detector(smooth_images(1, 224)).anomaly_map.shape == (1, 1, 224, 224)


def test_values_are_read_on_a_cpu_only() -> None:
    """Elsewhere the host would have to wait: a meta tensor, which has no values, stands for an accelerator."""
    features = PooledFeatures(tiny_backbone(), frozen=True)
    features.mean, features.std = torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1)
    with pytest.raises(ValueError, match=r"images in \[0, 1\]"):
        features(255 * smooth_images(1))
    assert features.to("meta")(255 * smooth_images(1).to("meta")).shape[0] == 1
