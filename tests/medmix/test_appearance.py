"""What the alterations do: each alone, and the colour map against torchvision."""

import pytest
import torch
import torchvision.transforms.functional as tvf
from torch import Tensor

from medmix import MedMix, WeakAugmentation
from medmix.appearance import hue_rotation, jitter_colour

OFF: dict[str, object] = {"color_jitter": (0, 0, 0, 0), "noise": (0, 0), "nonlinear": None, "softness": 0}
HALF = 0.5  # the uniform number that changes nothing


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mid_range(seed: int) -> Tensor:
    """Images that no strength used here brings to the clamp."""
    return 0.4 + 0.2 * torch.rand(6, 3, 12, 10, generator=generator(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    "alteration",
    [
        {"color_jitter": (0.4, 0, 0, 0)}, {"color_jitter": (0, 0.4, 0, 0)}, {"color_jitter": (0, 0, 0.4, 0)},
        {"color_jitter": (0, 0, 0, 0.2)}, {"noise": (0.1, 0.1)}, {"nonlinear": "bezier"}, {"nonlinear": "genesis"},
        {"deformation": "fisheye"}, {"deformation": "wave"},
    ],
    ids=str,
)  # fmt: skip
def test_each_alteration_alone_changes_the_lesions(alteration: dict[str, object]) -> None:
    x = torch.rand(16, 3, 48, 48, generator=generator(0))
    mix, plain = MedMix(2, **(OFF | alteration)), MedMix(2, **OFF)
    changed, _, masks = mix(x, generator=generator(1))
    plain_images, _, same_masks = plain(x, generator=generator(1))
    assert torch.equal(masks, same_masks)
    difference = (changed - plain_images).abs()
    per_lesion = (difference * masks).sum(dim=(1, 2, 3)) / masks.sum(dim=(1, 2, 3))
    assert per_lesion.median() > 0.03


def test_noise_has_the_standard_deviation_asked_for() -> None:
    for std in (0.02, 0.1):
        x = torch.full((32, 3, 64, 64), 0.5)
        images, _, masks = MedMix(2, **(OFF | {"noise": (std, std)}))(x, generator=generator(0))
        assert abs(images[masks.expand_as(images)].std() / std - 1) < 0.05


def test_noise_takes_up_its_range() -> None:
    x = torch.full((64, 3, 64, 64), 0.5)
    images, _, masks = MedMix(1, **(OFF | {"noise": (0.02, 0.1)}))(x, generator=generator(0))
    std = torch.stack([image[:, mask[0]].std() for image, mask in zip(images, masks, strict=True)])
    assert 0.018 < std.min() < 0.03
    assert 0.09 < std.max() < 0.11


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


def test_weak_crops_have_the_areas_and_shapes_asked_for() -> None:
    weak = WeakAugmentation(8, scale=(0.3, 0.5), ratio=(0.8, 1.25))
    crop = weak.forward_parameters((2000, 3, 40, 60), generator(0))["crop"]
    width, height = crop[:, 0, 0].abs(), crop[:, 1, 1]  # fractions of the image
    area, ratio = width * height, 60 * width / (40 * height)
    assert 0.3 <= area.min() < 0.31
    assert 0.49 < area.max() <= 0.5001
    assert 0.79 < ratio.min() < 0.82
    assert 1.2 < ratio.max() < 1.26
    for shift, side in ((crop[:, 0, 2], width), (crop[:, 1, 2], height)):  # to all borders, never over one
        assert 0.99 < (side + shift).max() <= 1.0001
        assert 0.99 < (side - shift).max() <= 1.0001


def test_weak_views_are_jittered() -> None:
    x = torch.full((64, 3, 8, 8), 0.5)
    x[:, 0] = 0.7
    assert (WeakAugmentation(8, jitter_p=1.0)(x, generator=generator(0)) - x).abs().mean() > 0.02
    part = WeakAugmentation(8, jitter_p=0.5, grayscale_p=0)(x, generator=generator(0))
    assert 16 < ((part - x).abs().amax(dim=(1, 2, 3)) > 1e-3).sum() < 48


def test_all_other_images_are_donors() -> None:
    mix, x = MedMix(1, **OFF), torch.arange(8.0)[:, None, None, None].expand(-1, 1, 16, 16) / 8
    seen = {
        (row, round(float(value) * 8))
        for seed in range(60)
        for row, image in enumerate(mix(x, generator=generator(seed)).images)
        for value in image.unique()
    }
    assert seen == {(row, donor) for row in range(8) for donor in range(8)}


def test_sizes_are_spread_over_the_range() -> None:
    radius = MedMix(1, size=(0.1, 0.4)).forward_parameters((2000, 1, 100, 100), generator=generator(0))["radius"]
    assert 5 <= radius.min() < 5.2
    assert 19.8 < radius.max() <= 20
    assert abs(radius.mean() - 12.5) < 0.3


def test_sizes_of_one_image_are_independent() -> None:
    """Spread over the batch, not over the image: else the lesions' total area would tell their number."""
    params = MedMix(3, size=(0.05, 0.15)).forward_parameters((3000, 1, 200, 200), generator=generator(0))
    radius = params["radius"]
    assert (torch.corrcoef(radius.T) - torch.eye(3)).abs().max() < 0.06
    for slot in range(3):
        assert (torch.histc(radius[:, slot], 10, 5, 15) - 300).abs().max() <= 12  # the grid's are smaller
