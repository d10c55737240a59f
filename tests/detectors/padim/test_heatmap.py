"""The two matrices against torch's bilinear resize and torchvision's reflect-padded Gaussian blur."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms.v2.functional import gaussian_blur

from detectors.padim.heatmap import blur_matrix, resize_and_blur_matrix


@pytest.mark.parametrize(
    ("size", "out_size"), [((16, 16), (64, 64)), ((24, 40), (96, 160)), ((75, 75), (300, 300)), ((7, 9), (40, 33))]
)
@pytest.mark.parametrize("sigma", [0.0, 1.0, 4.0])
def test_equals_interpolate_and_blur(size: tuple[int, int], out_size: tuple[int, int], sigma: float) -> None:
    x = torch.rand(2, 1, *size, dtype=torch.float64)
    rows, columns = (resize_and_blur_matrix(n, m, sigma) for n, m in zip(size, out_size, strict=True))
    want = F.interpolate(x, size=out_size, mode="bilinear")
    if sigma > 0:
        kernel = 2 * int(4 * sigma + 0.5) + 1
        want = gaussian_blur(want, [kernel, kernel], [sigma, sigma])
    torch.testing.assert_close(rows @ x @ columns.mT, want, rtol=1e-5, atol=1e-6)


@given(size=st.integers(1, 12), out_size=st.integers(1, 40), sigma=st.floats(0, 8))
def test_constants_stay_even_where_the_filter_is_larger_than_the_image(size: int, out_size: int, sigma: float) -> None:
    matrix = resize_and_blur_matrix(size, out_size, sigma)
    torch.testing.assert_close(matrix.sum(1), torch.ones(out_size, dtype=torch.float64))
    assert (matrix >= 0).all()


def test_blur_reflects_more_than_once() -> None:
    signal = torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64)
    tiled = torch.cat([signal, signal.flip(0)[1:-1]]).repeat(11)  # period of repeated reflection
    kernel = torch.exp(-(torch.arange(-16, 17, dtype=torch.float64) ** 2) / 32)
    want = [(kernel / kernel.sum() * tiled[20 + i - 16 : 20 + i + 17]).sum() for i in range(3)]
    torch.testing.assert_close(blur_matrix(3, 4.0) @ signal, torch.stack(want))


@pytest.mark.parametrize("arguments", [(0, 4, 1.0), (4, 0, 1.0), (4, 4, -1.0)])
def test_wrong_arguments(arguments: tuple[int, int, float]) -> None:
    with pytest.raises(ValueError, match="expected"):
        resize_and_blur_matrix(*arguments)
