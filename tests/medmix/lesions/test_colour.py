"""The colour map against torchvision."""

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as tvf
from medmix_cases import generator
from scipy.spatial.transform import Rotation
from torch import Tensor

from medmix.lesions.colour import colour_matrix, hue_rotation, jitter_colour


def mid_range(seed: int) -> Tensor:
    """Images that no strength used here brings to the clamp."""
    return 0.4 + 0.2 * torch.rand(6, 3, 12, 10, generator=generator(seed), dtype=torch.float64)


HALF = 0.5  # the uniform number that changes nothing


@pytest.mark.parametrize(
    ("position", "adjust"), [(0, tvf.adjust_brightness), (1, tvf.adjust_contrast), (2, tvf.adjust_saturation)]
)
def test_one_strength_equals_torchvision(position: int, adjust) -> None:
    x, uniform = mid_range(0), torch.rand(6, 4, generator=generator(1), dtype=torch.float64)
    strengths = [0.0] * 4
    strengths[position] = 0.3
    factors = 1 + 0.3 * (2 * uniform[:, position] - 1)
    expected = torch.stack([adjust(image, float(f)) for image, f in zip(x, factors, strict=True)])
    # torchvision rounds the weights of its luminance to four digits
    torch.testing.assert_close(jitter_colour(x, tuple(strengths), uniform), expected, atol=2e-4, rtol=0)


def test_strengths_together_equal_torchvision_in_order() -> None:
    x, uniform = mid_range(4), torch.rand(6, 4, generator=generator(5), dtype=torch.float64)
    uniform[:, 3] = HALF
    expected = []
    for image, (brightness, contrast, saturation) in zip(x, 1 + 0.3 * (2 * uniform[:, :3] - 1), strict=True):
        adjusted = tvf.adjust_contrast(tvf.adjust_brightness(image, float(brightness)), float(contrast))
        expected.append(tvf.adjust_saturation(adjusted, float(saturation)))
    actual = jitter_colour(x, (0.3, 0.3, 0.3, 0.1), uniform)
    torch.testing.assert_close(actual, torch.stack(expected), atol=2e-4, rtol=0)


def test_grayscale_equals_torchvision() -> None:
    x, flags = mid_range(2), torch.tensor([True, False] * 3)
    grey = jitter_colour(x, (0, 0, 0, 0), torch.full((6, 4), HALF, dtype=torch.float64), flags)
    torch.testing.assert_close(grey[flags], tvf.rgb_to_grayscale(x[flags], 3), atol=2e-4, rtol=0)
    torch.testing.assert_close(grey[~flags], x[~flags])


def test_hue_turns_the_colours_about_grey() -> None:
    turn = hue_rotation(torch.tensor([0.0, 2 * torch.pi / 3], dtype=torch.float64))
    torch.testing.assert_close(turn[0], torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(turn[1], torch.eye(3, dtype=torch.float64).roll(1, 0))
    x, uniform = mid_range(3), torch.full((6, 4), HALF, dtype=torch.float64)
    uniform[:, 3] = 0.9
    turned = jitter_colour(x, (0, 0, 0, 0.2), uniform)
    torch.testing.assert_close(turned.sum(dim=1), x.sum(dim=1))
    assert (turned - x).abs().mean() > 0.01


def changed_by_hand(image: np.ndarray, strengths: tuple[float, ...], numbers: np.ndarray, grey: bool) -> np.ndarray:
    """Image (C, H, W) after one change at a time: brightness, contrast, saturation, hue, grayscale."""
    channels = len(image)
    weights = np.array([0.299, 0.587, 0.114]) if channels == 3 else np.full(channels, 1 / channels)
    brightness, contrast, saturation, hue = strengths * (2 * numbers - 1)
    image = image * (1 + brightness)
    mean = (weights @ image.reshape(channels, -1)).mean()
    image = mean + (1 + contrast) * (image - mean)
    if channels == 3:
        luminance = np.tensordot(weights, image, 1)
        image = luminance + (1 + saturation) * (image - luminance)
        turn = Rotation.from_rotvec(2 * np.pi * hue * np.ones(3) / np.sqrt(3)).as_matrix()
        image = np.tensordot(turn, image, 1)
    if grey:
        image = np.broadcast_to(np.tensordot(weights, image, 1), image.shape)
    return image.clip(0, 1)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("strengths", [(0.3, 0.2, 0.4, 0.1), (1.0, 1.0, 1.0, 0.5), (0.0, 0.0, 0.0, 0.0)])
@pytest.mark.parametrize("grey", [True, False])
def test_all_changes_at_once_equal_one_after_the_other(
    channels: int, strengths: tuple[float, float, float, float], grey: bool
) -> None:
    x = torch.rand(5, channels, 4, 6, generator=generator(0), dtype=torch.float64)
    uniform = torch.rand(5, 4, generator=generator(1), dtype=torch.float64)
    changed = jitter_colour(x, strengths, uniform, torch.full((5,), grey) if grey else None)
    for image, numbers, got in zip(x.numpy(), uniform.numpy(), changed.numpy(), strict=True):
        np.testing.assert_allclose(got, changed_by_hand(image, np.array(strengths), numbers, grey), atol=1e-9)


def test_images_under_autocast_and_in_half_precision() -> None:
    """The product keeps float32 under autocast; half-precision images stay half."""
    x, uniform = torch.rand(2, 3, 4, 4, generator=generator(0)), torch.rand(2, 4, generator=generator(1))
    plain = jitter_colour(x, (0.3, 0.3, 0.3, 0.1), uniform)
    with torch.autocast("cpu"):
        assert torch.equal(jitter_colour(x, (0.3, 0.3, 0.3, 0.1), uniform), plain)
    half = jitter_colour(x.bfloat16(), (0.3, 0.3, 0.3, 0.1), uniform)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), plain, atol=0.05, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
@pytest.mark.parametrize("channels", [1, 3])
def test_nothing_comes_from_the_host(channels: int, dtype: torch.dtype) -> None:
    """On an accelerator, for which "meta" stands, the map is made there, in the precision of its numbers."""
    uniform = torch.rand(5, 4, dtype=dtype, device="meta")
    matrix, pivot = colour_matrix((0.1, 0.1, 0.1, 0.1), uniform, channels)
    assert (matrix.device, matrix.dtype, matrix.shape) == (uniform.device, uniform.dtype, (5, channels, channels))
    assert (pivot.device, pivot.dtype, pivot.shape) == (uniform.device, uniform.dtype, (5, channels))
