import pytest
import pytorch_msssim
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as torchmetrics_ms_ssim
from torchmetrics.functional.image import structural_similarity_index_measure as torchmetrics_ssim

from detectors.igd.ms_ssim import (
    WEIGHTS,
    gaussian_window,
    ms_ssim,
    ms_ssim_residual,
    scales_for,
)
from detectors.igd.windows import band_matrix, window_means


def pair(shape: tuple[int, ...], noise: float = 0.3, seed: int = 0, dtype=torch.float32) -> tuple[Tensor, Tensor]:
    """A smooth image and a noisy version of it, in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    small = torch.rand(*shape[:2], 8, 8, generator=generator, dtype=dtype)
    x = F.interpolate(small, size=shape[2:], mode="bicubic").clamp(0, 1)
    return x, torch.lerp(x, torch.rand(*shape, generator=generator, dtype=dtype), noise)


def plain_ms_ssim(x: Tensor, y: Tensor, window_size: int, sigma: float, weights, data_range: float) -> Tensor:
    """The definition, window by window, in numbers that cannot cancel: variances from centred values."""
    line = torch.exp(-((torch.arange(window_size, dtype=x.dtype) - window_size // 2) ** 2) / (2 * sigma**2))
    window = torch.outer(line, line) / line.sum() ** 2
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    value = torch.ones(x.shape[:2], dtype=x.dtype)
    for scale, weight in enumerate(weights):
        wx, wy = (i.unfold(2, window_size, 1).unfold(3, window_size, 1) for i in (x, y))
        mx, my = ((w * window).sum((-2, -1), keepdim=True) for w in (wx, wy))
        cov, vx, vy = (
            (window * a * b).sum((-2, -1)) for a, b in ((wx - mx, wy - my), (wx - mx, wx - mx), (wy - my, wy - my))
        )
        contrast = (2 * cov + c2) / (vx + vy + c2)
        luminance = ((2 * mx * my + c1) / (mx**2 + my**2 + c1))[..., 0, 0]
        last = scale == len(weights) - 1
        value = value * (contrast * luminance if last else contrast).mean((2, 3)).relu() ** weight
        x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
    return value.mean(1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("window_size", "size"), [(11, (176, 208)), (7, (112, 128)), (3, (64, 64))])
@pytest.mark.parametrize("data_range", [1.0, 255.0])
def test_equals_pytorch_msssim(channels, window_size, size, data_range):
    x, y = (image * data_range for image in pair((2, channels, *size)))
    expected = pytorch_msssim.ms_ssim(x, y, data_range, size_average=False, win_size=window_size)
    actual = ms_ssim(x, y, data_range=data_range, window_size=window_size)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)


def test_equals_torchmetrics_for_one_channel():
    # torchmetrics averages the coarsest scale over reflected borders too, the others not: weight 0 leaves it out.
    x, y = pair((2, 1, 176, 192))
    weights = (*WEIGHTS[:4], 0.0)
    expected = torchmetrics_ms_ssim(x, y, sigma=1.5, data_range=1.0, betas=weights, reduction="none")
    torch.testing.assert_close(ms_ssim(x, y, weights=weights), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(177, 177), (176, 179), (178, 191)])  # 178 is odd once halved
def test_odd_sides_are_halved_as_torchmetrics_does(size):
    x, y = pair((2, 1, *size))
    weights = (*WEIGHTS[:4], 0.0)
    expected = torchmetrics_ms_ssim(x, y, sigma=1.5, data_range=1.0, betas=weights, reduction="none")
    torch.testing.assert_close(ms_ssim(x, y, weights=weights), expected, atol=1e-5, rtol=0)


def test_odd_sides_differ_from_pytorch_msssim():
    x, y = pair((2, 1, 177, 177))
    padded = pytorch_msssim.ms_ssim(x, y, 1.0, size_average=False)
    assert (ms_ssim(x, y) - padded).abs().max() > 1e-3


def test_residual_of_one_scale_equals_torchmetrics():
    x, y = pair((2, 3, 48, 40), dtype=torch.float64)
    _, full = torchmetrics_ssim(x, y, sigma=1.5, data_range=1.0, return_full_image=True)
    residual = ms_ssim_residual(x, y, weights=(1.0,))
    torch.testing.assert_close(residual, 1 - full.mean(1, keepdim=True), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("side", "sigma"), [(32, 1.5), (64, 1.5), (128, 0.8)])
def test_equals_the_definition_where_no_library_applies(side, sigma):
    x, y = pair((2, 2, side, side), dtype=torch.float64)
    window, weights = scales_for(side)
    expected = plain_ms_ssim(x, y, window, sigma, weights, 1.0)
    actual = ms_ssim(x, y, window_size=window, sigma=sigma, weights=weights)
    torch.testing.assert_close(actual, expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("size", [(24, 26), (66, 70)])  # both ways to filter
def test_gradcheck(size):
    x, y = (i.requires_grad_() for i in pair((1, 1, *size), dtype=torch.float64))
    assert torch.autograd.gradcheck(
        lambda a, b: ms_ssim(a, b, window_size=5, weights=(0.4, 0.6)), (x, y), fast_mode=True
    )
    assert torch.autograd.gradcheck(
        lambda a, b: ms_ssim_residual(a, b, window_size=5, weights=(0.4, 0.6)), (x, y), fast_mode=True
    )


def test_gradient_is_finite_where_a_scale_is_not_positive():
    x, _ = pair((1, 1, 64, 64))
    y = (1 - x).requires_grad_()
    value = ms_ssim(x, y, window_size=7, weights=scales_for(64)[1])
    value.sum().backward()
    assert value.item() == 0
    assert y.grad is not None
    assert torch.isfinite(y.grad).all()


def test_a_step_along_the_gradient_raises_the_similarity():
    x, y = pair((2, 3, 64, 64))
    y.requires_grad_()
    before = ms_ssim(x, y, window_size=7, weights=scales_for(64)[1])
    before.sum().backward()
    after = ms_ssim(x, (y + 1e-2 * y.grad / y.grad.abs().max()).detach(), window_size=7, weights=scales_for(64)[1])
    assert (after > before).all()


shapes = st.sampled_from([(1, 1, 28, 28), (2, 1, 31, 40), (1, 3, 29, 33), (1, 2, 28, 66)])  # 66: by convolution
options = st.fixed_dictionaries(
    {
        "window_size": st.sampled_from([1, 3, 7]),
        "sigma": st.floats(0.5, 3),
        "weights": st.lists(st.floats(0, 1), min_size=1, max_size=3).map(tuple),
    }
)
seeds = st.integers(0, 2**31)


@given(shape=shapes, options=options, seed=seeds, noise=st.floats(0, 1))
def test_symmetric_and_within_bounds(shape, options, seed, noise):
    x, y = pair(shape, noise, seed)
    value = ms_ssim(x, y, **options)
    torch.testing.assert_close(value, ms_ssim(y, x, **options), atol=1e-6, rtol=0)
    assert value.shape == shape[:1]
    assert ((value >= 0) & (value <= 1 + 1e-5)).all()


@given(shape=shapes, options=options, seed=seeds)
def test_identity_is_one(shape, options, seed):
    x, _ = pair(shape, seed=seed)
    torch.testing.assert_close(ms_ssim(x, x, **options), torch.ones(shape[0]), atol=1e-5, rtol=0)
    assert ms_ssim_residual(x, x, **options).abs().max() < 1e-4


@given(shape=shapes, options=options, seed=seeds, factor=st.floats(0.01, 1000))
def test_scales_with_the_data_range(shape, options, seed, factor):
    x, y = (image.double() for image in pair(shape, seed=seed))
    for function in (ms_ssim, ms_ssim_residual):
        scaled = function(x * factor, y * factor, data_range=factor, **options)
        torch.testing.assert_close(scaled, function(x, y, **options), atol=1e-7, rtol=0)


@given(shape=shapes, window_size=st.sampled_from([1, 3, 7, 11]), sigma=st.floats(0.5, 3), seed=seeds)
def test_both_ways_to_filter_agree(shape, window_size, sigma, seed):
    x, _ = pair(shape, seed=seed)
    window = gaussian_window(window_size, sigma, x)
    expected = band_matrix(window, shape[2]) @ x @ band_matrix(window, shape[3]).mT
    kernel = torch.outer(window, window).expand(shape[1], 1, -1, -1)
    torch.testing.assert_close(expected, F.conv2d(x, kernel, groups=shape[1]), atol=1e-5, rtol=0)
    torch.testing.assert_close(window_means(x, window), expected, atol=1e-5, rtol=0)


def test_residual_is_highest_where_the_images_differ():
    x, _ = pair((1, 3, 64, 64))
    y = x.clone()
    y[:, :, 40:52, 8:20] = 1 - y[:, :, 40:52, 8:20]
    residual = ms_ssim_residual(x, y, window_size=7, weights=scales_for(64)[1])[0, 0]
    row, column = divmod(int(residual.argmax()), 64)
    assert residual.shape == (64, 64)
    assert 40 <= row < 52
    assert 8 <= column < 20
    assert residual[:16, 40:].max() < 0.05 * residual.max()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(dtype):
    x, y = (image.to(dtype) for image in pair((1, 3, 64, 64)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = ms_ssim(x, y, window_size=7, weights=scales_for(64)[1])
    expected = ms_ssim(x.double(), y.double(), window_size=7, weights=scales_for(64)[1])
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("side", "window", "scales"),
    [(24, 3, 4), (32, 3, 4), (64, 7, 4), (128, 11, 4), (175, 11, 4), (176, 11, 5), (512, 11, 5)],
)
def test_scales_for_every_size_are_legal(side, window, scales):
    size, weights = scales_for(side)
    assert (size, len(weights)) == (window, scales)
    assert sum(weights) == pytest.approx(1, abs=2e-4)
    x, _ = pair((1, 1, side, side))
    assert ms_ssim(x, x, window_size=size, weights=weights).item() == pytest.approx(1, abs=1e-5)


def test_errors_say_what_is_legal():
    image = torch.rand(1, 1, 64, 64)
    with pytest.raises(ValueError, match="at least 176 for 5 scales and window 11, got 64 x 64"):
        ms_ssim(image, image)
    ms_ssim(torch.rand(1, 1, 176, 176), torch.rand(1, 1, 176, 176))  # the size it names is legal
    with pytest.raises(ValueError, match="at least 24 x 24"):
        scales_for(23)
    with pytest.raises(ValueError, match="one shape"):
        ms_ssim(image, image[:, :, 1:])
    with pytest.raises(ValueError, match="odd window_size"):
        ms_ssim(image, image, window_size=4)
    with pytest.raises(ValueError, match="at least one scale"):
        ms_ssim(image, image, weights=())
    with pytest.raises(ValueError, match="data_range"):
        ms_ssim(image, image, data_range=0)
    with pytest.raises(TypeError, match=r"floating-point tensor, got torch\.uint8"):
        ms_ssim((image * 255).byte(), image)
    with pytest.raises(TypeError, match="got list"):
        ms_ssim([1], image)


@pytest.mark.parametrize("side", [32, 64, 256])
@pytest.mark.parametrize("level", [0.0, 0.5, 0.999])
@pytest.mark.parametrize("contrast", [1.0, 1e-2, 1e-4])
def test_float32_stays_within_its_bound_of_float64(side, level, contrast):
    """Weak contrast on a bright ground is the worst case: variances are small differences of large squares."""
    x, y = (level * (1 - contrast) + contrast * image for image in pair((2, 3, side, side), dtype=torch.float64))
    window, weights = scales_for(side)
    for function, bound in ((ms_ssim, 2e-5), (ms_ssim_residual, 2e-4)):
        exact = function(x, y, window_size=window, weights=weights)
        single = function(x.float(), y.float(), window_size=window, weights=weights)
        assert (single - exact).abs().max() < bound
