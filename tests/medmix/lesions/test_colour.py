"""The colour map against torchvision."""

import pytest
import torch
import torchvision.transforms.functional as tvf
from medmix_cases import generator
from torch import Tensor

from medmix.lesions.colour import hue_rotation, jitter_colour


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
