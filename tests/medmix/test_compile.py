"""Gradients, compilation, no waiting for the device."""

import pytest
import torch
from torch._subclasses import FakeTensorMode
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
from medmix.lesions.windows import cut_windows
from medmix.views import StrongAugmentation

READS = ("_local_scalar_dense", "nonzero", "item", "is_nonzero")


UPLOADS = ("lift_fresh",)  # constants made on the host


ON_HOST = ["aten.lift_fresh.default"] * 2  # a draw's "window_sides" and "forward_input_shape", which stay there


OPTIONS: list[dict[str, object]] = [
    {}, {"softness": 0.0}, {"blending": "hard"}, {"blending": "seamless"}, {"nonlinear": None},
    {"noise": (0.0, 0.0)}, {"nonlinear": "genesis"}, {"deformation": "fisheye"},
    {"deformation": "wave"}, {"shape": "ellipse"}, {"shape": "rectangle"}, {"p": 0.5}, {"same_on_batch": True},
]  # fmt: skip


SLOW_DEFAULTS = pytest.param({}, marks=pytest.mark.slow)


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
    monkeypatch.setattr("medmix._checks.check_values", lambda images: None)  # looks at CPU tensors only
    views, patches, x = MultiClassViews(strong, WeakAugmentation(16)), NeighbourPatches(8), torch.rand(4, 3, 32, 32)
    with CountReads(READS + UPLOADS) as counter:
        views(x)
        patches(x)
    assert counter.reads == (ON_HOST * 3 if isinstance(strong, MedMix) else [])


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.parametrize("options", [SLOW_DEFAULTS, *OPTIONS[1:10]], ids=str)
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


@pytest.mark.slow
def test_with_gradient_and_compiled_agree() -> None:
    mix, x = MedMix(3), torch.rand(4, 3, 32, 32)
    params = mix.forward_parameters(x.shape)
    plain = mix(x, params=params)
    compiled = torch.compile(mix.compose, fullgraph=True, backend="aot_eager", dynamic=False)
    followed = compiled(x.clone().requires_grad_(), params)
    torch.testing.assert_close(plain.images, followed.images.detach())
    assert torch.equal(plain.masks, followed.masks)


@pytest.mark.parametrize("options", OPTIONS[:4], ids=str)
def test_the_compilers_way_pastes_the_same(options: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    """With the operators that the compiler is handed, run as they are."""
    mix, x = MedMix(**options), torch.rand(3, 3, 32, 32)
    params = mix.forward_parameters(x.shape)
    plain = mix.compose(x, params)
    monkeypatch.setattr("torch.compiler.is_compiling", lambda: True)
    for a, b in zip(mix.compose(x, params), plain, strict=True):
        assert torch.equal(a, b)


def test_the_compiler_is_told_the_shapes() -> None:
    images, starts = torch.rand(2, 3, 8, 8), torch.tensor([0, 70, 128, 300])
    with FakeTensorMode() as fake:
        windows = cut_windows(fake.from_tensor(images), fake.from_tensor(starts), 4)
    assert windows.shape == cut_windows(images, starts, 4).shape == (4, 4, 4)
