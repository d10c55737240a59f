"""MedMix as a citizen of kornia and of PyTorch: containers, gradients, compilation, no waiting for the device."""

import kornia.augmentation as K
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from medmix import MedMix

READS = ("_local_scalar_dense", "nonzero", "item", "is_nonzero")


class CountReads(TorchDispatchMode):
    """Counts the operators that make the host wait for a value."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(name in str(func) for name in READS):
            self.reads.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("deformation", [None, "fisheye"])
def test_drawing_and_composing_read_nothing_back(deformation: str | None) -> None:
    """The check of the values, which looks at CPU tensors only, stands before this."""
    mix, x = MedMix(deformation=deformation), torch.rand(4, 3, 32, 32)
    with CountReads() as counter:
        params = mix.forward_parameters(x.shape)
        mix.compose(x, params)
    assert counter.reads == []


@pytest.mark.filterwarnings("ignore")  # the compiler's own deprecations
def test_compiles_without_graph_breaks_to_the_same_output() -> None:
    """With torch's default backend, Inductor, which needs a C++ compiler."""
    mix, x = MedMix(2), torch.rand(2, 3, 32, 32)
    params = mix.forward_parameters(x.shape)
    before = x.clone()
    compiled = torch.compile(mix.compose, fullgraph=True)
    for a, b in zip(compiled(x, params), mix.compose(x, params), strict=True):
        torch.testing.assert_close(a, b)
    assert torch.equal(x, before)


@pytest.mark.parametrize(
    "options",
    [
        {}, {"softness": 0.0}, {"blending": "hard"}, {"blending": "seamless"}, {"nonlinear": None},
        {"noise": (0.0, 0.0)}, {"nonlinear": "genesis"}, {"deformation": "fisheye"},
        {"deformation": "wave"}, {"shape": "ellipse"},
    ],
    ids=str,
)  # fmt: skip
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool])
def test_in_a_container_masks_are_joined(dtype: torch.dtype) -> None:
    mix = MedMix(2, data_keys=["input", "mask"])
    container = K.AugmentationSequential(K.RandomHorizontalFlip(p=1.0), mix, data_keys=["input", "mask"])
    x, mask = torch.rand(3, 3, 32, 32), torch.zeros(3, 1, 32, 32)
    mask[:, :, :4, :4] = 1
    images, joined = container(x, mask.to(dtype) if dtype == torch.float32 else mask)
    changed = (images != x.flip(3)).any(1, keepdim=True)
    assert changed.flatten(1).any(1).all()
    assert (joined[:, :, :4, -4:] == 1).all()
    assert (joined[changed] == 1).all()


def test_one_image_with_keepdim() -> None:
    image, label, mask = MedMix(2, keepdim=True)(torch.rand(3, 32, 32))
    assert image.shape == (3, 32, 32)
    assert mask.shape == (1, 32, 32)
    assert int(label) == 2


def test_repr_tells_every_option() -> None:
    text = repr(MedMix(2, shape="ellipse", p=0.5))
    for part in ("num_lesions=(2,)", "shape='ellipse'", "softness=", "nonlinear='bezier'", "p=0.5", "keepdim=False"):
        assert part in text


def test_modules_apply_still_works() -> None:
    seen: list[Tensor] = []
    MedMix().apply(lambda module: seen.append(module))
    assert seen
