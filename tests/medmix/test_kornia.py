"""MedMix as a citizen of kornia and of PyTorch: containers, gradients, compilation, no waiting for the device."""

import copy
import pickle

import kornia.augmentation as K
import pytest
import torch
from kornia.constants import DataKey
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from medmix import (
    MedMix,
    MultiClassViews,
    NeighbourPatches,
    NoiseClasses,
    PermutationClasses,
    RotationClasses,
    WeakAugmentation,
)
from medmix.views import StrongAugmentation
from medmix.warps import Deformation

READS = ("_local_scalar_dense", "nonzero", "item", "is_nonzero")
UPLOADS = ("lift_fresh",)  # constants made on the host
ON_HOST = ["aten.lift_fresh.default"] * 2  # a draw's "window_sides" and "forward_input_shape", which stay there


OPTIONS: list[dict[str, object]] = [
    {}, {"softness": 0.0}, {"blending": "hard"}, {"blending": "seamless"}, {"nonlinear": None},
    {"noise": (0.0, 0.0)}, {"nonlinear": "genesis"}, {"deformation": "fisheye"},
    {"deformation": "wave"}, {"shape": "ellipse"}, {"shape": "rectangle"}, {"p": 0.5}, {"same_on_batch": True},
]  # fmt: skip


class CountReads(TorchDispatchMode):
    """Counts the operators of these names: those that make the host wait for the device."""

    def __init__(self, names: tuple[str, ...] = READS) -> None:
        super().__init__()
        self.names = names
        self.reads: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(name in str(func) for name in self.names):
            self.reads.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("in_foreground", [False, True])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_drawing_and_composing_read_nothing_back(options: dict[str, object], in_foreground: bool) -> None:
    """The check of the values, which looks at CPU tensors only, stands before this."""
    mix, x = MedMix(**options), torch.rand(4, 3, 32, 32)
    foreground = torch.ones(4, 1, 32, 32, dtype=torch.bool) if in_foreground else None
    with CountReads(READS + UPLOADS) as counter:
        params = mix.forward_parameters(x.shape, foreground=foreground)
    assert counter.reads == ON_HOST
    with CountReads(READS + UPLOADS) as counter:
        mix.compose(x, params)
    assert counter.reads == []


@pytest.mark.parametrize("strong", [MedMix(), RotationClasses(), PermutationClasses(), NoiseClasses()], ids=str)
def test_views_and_patches_read_nothing_back(strong: StrongAugmentation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medmix.checks.check_values", lambda images: None)  # looks at CPU tensors only
    views, patches, x = MultiClassViews(strong, WeakAugmentation(16)), NeighbourPatches(8), torch.rand(4, 3, 32, 32)
    with CountReads(READS + UPLOADS) as counter:
        views(x)
        patches(x)
    assert counter.reads == (ON_HOST * 3 if isinstance(strong, MedMix) else [])


@pytest.mark.filterwarnings("ignore")  # the compiler's own deprecations
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_option_compiles_without_graph_breaks(options: dict[str, object]) -> None:
    """All but the code generation, which takes long."""
    mix, x = MedMix(2, **options), torch.rand(2, 3, 32, 32)
    params = mix.forward_parameters(x.shape)
    torch.compiler.reset()  # it gives up on a function that was compiled often
    compiled = torch.compile(mix.compose, fullgraph=True, backend="aot_eager", dynamic=False)
    for a, b in zip(compiled(x, params), mix.compose(x, params), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.filterwarnings("ignore")  # the compiler's own deprecations
def test_compiles_without_graph_breaks_to_the_same_output() -> None:
    """With torch's default backend, Inductor, which needs a C++ compiler."""
    mix, x = MedMix(2), torch.rand(2, 3, 32, 32)
    params = mix.forward_parameters(x.shape)
    before = x.clone()
    torch.compiler.reset()
    compiled = torch.compile(mix.compose, fullgraph=True)
    for a, b in zip(compiled(x, params), mix.compose(x, params), strict=True):
        torch.testing.assert_close(a, b)
    assert torch.equal(x, before)


@pytest.mark.parametrize("options", OPTIONS[:10], ids=str)
def test_gradcheck(options: dict[str, object]) -> None:
    mix = MedMix(2, **({"softness": 0.5} | options))
    x = 0.2 + 0.6 * torch.rand(2, 3, 16, 16, dtype=torch.float64)
    params = mix.forward_parameters(x.shape, generator=torch.Generator().manual_seed(0))
    params = {k: v.double() if v.is_floating_point() else v for k, v in params.items()}
    quick = bool(options)  # every single derivative for the defaults only: that takes seconds
    assert torch.autograd.gradcheck(lambda t: mix.compose(t, params).images, x.requires_grad_(), fast_mode=quick)


def test_with_and_without_gradient_agree() -> None:
    mix, x = MedMix(3), torch.rand(4, 3, 32, 32)
    params = mix.forward_parameters(x.shape)
    plain, followed = mix(x, params=params), mix(x.clone().requires_grad_(), params=params)
    assert followed.images.requires_grad
    torch.testing.assert_close(plain.images, followed.images.detach())
    compiled = torch.compile(mix.compose, fullgraph=True, backend="aot_eager", dynamic=False)
    followed = compiled(x.clone().requires_grad_(), params)
    torch.testing.assert_close(plain.images, followed.images.detach())
    assert torch.equal(plain.masks, followed.masks)


@pytest.mark.parametrize("options", OPTIONS[:4], ids=str)
def test_pixel_by_pixel_is_the_same(options: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    """The way that CUDA takes under `torch.use_deterministic_algorithms`."""
    mix, x, nothing = MedMix(3, **options), torch.rand(4, 3, 40, 40), torch.zeros(4, 1, 40, 40, dtype=torch.bool)
    expected = mix(x)
    monkeypatch.setattr("medmix.windows.pixelwise", lambda *tensors: True)
    actual = mix(x, params=mix._params)
    assert all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True))
    assert torch.equal(mix(nothing, params=mix._params, data_keys=["mask"]), expected.masks)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool])
def test_in_a_container_masks_are_joined(dtype: torch.dtype) -> None:
    mix = MedMix(2, data_keys=["input", "mask"])
    container = K.AugmentationSequential(K.RandomHorizontalFlip(p=1.0), mix, data_keys=["input", "mask"])
    x, mask = torch.rand(3, 3, 32, 32), torch.zeros(3, 1, 32, 32)
    mask[:, :, :4, :4] = 1
    images, joined = container(x, mask.to(dtype))
    changed = (images != x.flip(3)).any(1, keepdim=True)
    assert changed.flatten(1).any(1).all()
    assert (joined[:, :, :4, -4:] == 1).all()
    assert (joined[changed] == 1).all()


def test_parameters_follow_the_images_to_their_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kornia's containers draw without a device; "meta" stands for an accelerator."""
    monkeypatch.setattr("medmix.alteration.apply_colour", lambda images, *rest: images)  # autocast knows no "meta"
    mix, x = MedMix(2, data_keys=["input", "mask"]), torch.rand(2, 3, 32, 32, device="meta")
    images, mask = K.AugmentationSequential(mix, data_keys=["input", "mask"])(x, torch.zeros_like(x[:, :1]))
    assert images.device == mask.device == x.device
    assert mix(x, x[:, :1], params=mix.forward_parameters(x.shape))[0].device == x.device


def test_one_image_with_keepdim() -> None:
    x, everywhere = torch.rand(3, 32, 32), torch.ones(1, 32, 32, dtype=torch.bool)
    mix = MedMix((2, 3), keepdim=True)
    image, label, mask = mix(x, foreground=everywhere)
    assert (image.shape, mask.shape) == (x.shape, everywhere.shape)
    assert int(label) in (1, 2, 3)
    assert mix(x, data_keys=["input"]).shape == x.shape
    image, mask = MedMix(2, keepdim=True, data_keys=["input", "mask"])(x, everywhere)
    assert image.shape == x.shape
    assert torch.equal(mask, everywhere)
    container = K.AugmentationSequential(
        MedMix(2, data_keys=["input", "mask"]), data_keys=["input", "mask"], keepdim=True
    )
    image, mask = container(x, torch.zeros(1, 32, 32))
    assert (image.shape, mask.shape) == (x.shape, everywhere.shape)
    assert mask.any()


@pytest.mark.parametrize("deformation", [None, "wave"])
def test_a_copied_medmix_is_the_same(deformation: Deformation | None) -> None:
    mix, x = MedMix(2, shape="ellipse", deformation=deformation), torch.rand(4, 3, 32, 32)
    mix(x)
    for other in (copy.deepcopy(mix), pickle.loads(pickle.dumps(mix))):
        assert repr(other) == repr(mix)
        assert torch.equal(other(x, params=mix._params).images, mix(x, params=mix._params).images)


def test_kornias_own_names_of_data_keys() -> None:
    mix = MedMix(2, data_keys=[DataKey.INPUT, DataKey.MASK])
    assert mix(torch.rand(2, 3, 32, 32), torch.zeros(2, 1, 32, 32))[1].flatten(1).any(1).all()


def test_repr_tells_every_option() -> None:
    text = repr(MedMix(2, shape="ellipse", p=0.5))
    for part in (
        "num_lesions=(2,)",
        "shape='ellipse'",
        "softness=",
        "nonlinear='bezier'",
        "p=0.5",
        "keepdim=False",
        "data_keys=['input']",
    ):
        assert part in text


def test_modules_apply_still_works() -> None:
    seen: list[Tensor] = []
    MedMix().apply(lambda module: seen.append(module))
    assert seen
