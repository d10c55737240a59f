"""What the alterations do, each alone."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from medmix_cases import SEEDS, generator, mixes
from torch import Tensor

from medmix import MedMix
from medmix.lesions.alterations import Alteration, ColourJitter, GaussianNoise, IntensityCurve, Warp, alter

OFF: dict[str, object] = {"color_jitter": (0, 0, 0, 0), "noise": (0, 0), "nonlinear": None, "softness": 0}


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


def test_unaltered_patches_are_pieces_of_the_donor() -> None:
    """With every alteration off, a lesion on black images shows the constant of the image it was cut from."""
    x = torch.arange(6.0)[:, None, None, None].expand(6, 1, 32, 32) / 5
    mix = MedMix(2, softness=0, color_jitter=(0, 0, 0, 0), noise=(0, 0), nonlinear=None)
    images, _, masks = mix(x)
    donors = (torch.arange(6)[:, None] + mix._params["donor_offset"]) % 6
    for i in range(6):
        values = images[i].masked_select(masks[i])
        assert torch.isin(values, donors[i] / 5).all()


@given(st.floats(0, 1, width=32), mixes(), SEEDS)
def test_constant_images_stay_finite(value: float, mix: MedMix, seed: int) -> None:
    images = mix(torch.full((2, 3, 24, 24), value), generator=generator(seed)).images
    assert torch.isfinite(images).all()


def test_lesions_are_visible_and_as_large_as_asked() -> None:
    torch.manual_seed(0)
    x = torch.rand(64, 3, 8, 8).repeat_interleave(16, 2).repeat_interleave(16, 3)
    for shape in ("blob", "ellipse", "rectangle"):
        images, _, masks = MedMix(1, size=(0.25, 0.25), shape=shape)(x)
        rows, columns = masks.any(dim=3).sum(dim=2), masks.any(dim=2).sum(dim=2)
        longest = torch.maximum(rows, columns)
        assert (longest <= 33).all()
        assert (longest >= 15).all()
        change = ((images - x).abs() * masks).sum(dim=(1, 2, 3)) / masks.sum(dim=(1, 2, 3)) / 3
        assert change.mean() > 0.05


@dataclass(frozen=True)
class Blur:
    """A further alteration, as a user would write it: a box blur of random strength."""

    strongest: float = 1.0

    def check(self) -> None:
        if not 0 <= self.strongest <= 1:
            raise ValueError(f"expected strongest in [0, 1], got {self.strongest}")

    def draw(self, uniform: Callable[[int], Tensor], channels: int) -> dict[str, Tensor]:
        return {"blur": self.strongest * uniform(1)[..., 0]}

    def apply(self, patch: Tensor, drawn: dict[str, Tensor]) -> Tensor:
        return torch.lerp(patch, F.avg_pool2d(patch, 3, 1, 1), drawn["blur"][:, None, None, None])


def test_a_new_alteration_is_one_class() -> None:
    """Three lines at most besides: here none, `alterations=` takes it. Everything else of a seed stays as it was."""
    x = torch.rand(8, 3, 48, 48, generator=generator(0))
    plain, blurred = MedMix(2), MedMix(2, alterations=[Blur()])
    before, after = plain(x, generator=generator(1)), blurred(x, generator=generator(1))
    assert torch.equal(before.masks, after.masks)
    changed = (before.images != after.images).any(dim=1, keepdim=True)
    assert changed[after.masks].float().mean() > 0.9
    assert torch.equal(after.images, blurred(x, params=blurred._params).images)
    assert "Blur(strongest=1.0)" in repr(blurred)
    with pytest.raises(ValueError, match="strongest"):
        MedMix(alterations=[Blur(2)])
    with pytest.raises(ValueError, match="drawn by a MedMix of the same"):
        blurred(x, params=plain._params)


def test_alterations_at_the_same_lesions_for_all_images() -> None:
    mix = MedMix(1, alterations=[Blur()], same_on_batch=True)
    mix(torch.rand(3, 3, 32, 32))
    assert torch.equal(mix._params["blur"], mix._params["blur"][:1].expand(3, -1))


@pytest.mark.parametrize("curve", ["bezier", "genesis"])
def test_the_share_of_inverted_curves(curve: str) -> None:
    """An inverted curve falls: its polynomial y(t) begins at 1. The rest of the draw stays."""
    for share in (0.0, 0.25, 1.0):
        mix = MedMix(3, nonlinear=curve, inversion=share)
        params = mix.forward_parameters((2000, 1, 32, 32), generator=generator(0))
        begins = params["curve"][..., -4]  # (B, K) y(0)
        assert abs(begins.mean() - share) < 0.03
        plain = MedMix(3, nonlinear=curve).forward_parameters((2000, 1, 32, 32), generator=generator(0))
        assert torch.equal(params["std"], plain["std"])
    with pytest.raises(ValueError, match="inversion"):
        MedMix(inversion=1.5)


def test_grey_noise_is_the_same_in_all_channels() -> None:
    x = torch.full((16, 3, 64, 64), 0.5)
    for grey in (True, False):
        mix = MedMix(2, **(OFF | {"noise": (0.1, 0.1), "grey_noise": grey}))
        images, _, masks = mix(x, generator=generator(0))
        assert torch.equal(images[:, 0], images[:, 2]) == grey
        assert abs(images[masks.expand_as(images)].std() / 0.1 - 1) < 0.05


@pytest.mark.parametrize(
    ("alteration", "counts", "names"),
    [
        (Warp("wave"), [3], ["warp"]),
        (ColourJitter((0.1, 0.1, 0.1, 0.1)), [4], ["colour", "pivot"]),
        (IntensityCurve("bezier"), [4], ["curve"]),
        (IntensityCurve("genesis"), [5], ["curve"]),
        (IntensityCurve(None), [4], ["curve"]),
        (GaussianNoise((0.1, 0.2)), [1, 1], ["noise_start", "std"]),
    ],
    ids=str,
)
def test_what_each_alteration_draws(alteration: Alteration, counts: list[int], names: list[str]) -> None:
    """How many numbers decides what a seed gives."""
    asked = []

    def uniform(count: int) -> Tensor:
        asked.append(count)
        return torch.full((2, 3, count), 0.75)

    drawn = alteration.draw(uniform, 3)
    assert asked == counts
    assert sorted(drawn) == names
    assert all(value.shape[:2] == (2, 3) for value in drawn.values())
    if "std" in drawn:
        torch.testing.assert_close(drawn["std"], torch.full((2, 3), 0.175))
        assert (drawn["noise_start"] == 2**16 * 3 // 4).all()


def test_noise_is_a_stretch_of_the_pool() -> None:
    patch = torch.full((2, 3, 4, 5), 0.5)
    pool = torch.arange(200) / 200
    drawn = {"noise_pool": pool, "noise_start": torch.tensor([7, 0]), "std": torch.tensor([0.5, 0.25])}
    for grey in (False, True):
        noisy = GaussianNoise((0.0, 0.5), grey).apply(patch.clone(), drawn)
        for image, start, std in ((0, 7, 0.5), (1, 0, 0.25)):
            count = 20 if grey else 60
            stretch = pool[start : start + count].view(-1, 4, 5)
            torch.testing.assert_close(noisy[image], (0.5 + std * stretch).clamp(0, 1).expand(3, 4, 5))
    bright = GaussianNoise((0.0, 0.5)).apply(torch.ones(2, 3, 4, 5), drawn)
    assert bright.max() == 1
    assert GaussianNoise((0.0, 0.0)).apply(patch, {}) is patch
    assert not torch.equal(GaussianNoise((0.0, 1.0)).apply(patch.clone(), drawn), patch)


def test_alterations_follow_each_other_in_float32() -> None:
    """Half-precision patches are altered in float32 and come back as they came; others keep their precision."""

    @dataclass(frozen=True)
    class Note:
        add: float

        def apply(self, patch: Tensor, drawn: dict[str, Tensor]) -> Tensor:
            drawn[str(patch.dtype)] = patch
            return patch * 2 + self.add

    widened = {"float16": "float32", "bfloat16": "float32", "float32": "float32", "float64": "float64"}
    for dtype, work in widened.items():
        seen: dict[str, Tensor] = {}
        patch = torch.zeros(1, 1, 2, 2, dtype=getattr(torch, dtype))
        altered = alter(patch, [Note(0.25), Note(0.0)], seen)
        assert seen.keys() == {f"torch.{work}"}
        assert altered.dtype == patch.dtype
        assert (altered == 0.5).all()


def test_alterations_that_are_off_leave_the_patch() -> None:
    patch = torch.rand(1, 3, 4, 4)
    assert Warp(None).apply(patch, {}) is patch
    assert IntensityCurve(None).apply(patch, {}) is patch


def test_options_of_alterations() -> None:
    for alteration in (Warp(None), Warp("fisheye"), IntensityCurve(None), IntensityCurve("genesis", 1.0)):
        alteration.check()
    for alteration, words in (
        (Warp("sphere"), "deformation"),
        (IntensityCurve("line"), "nonlinear"),
        (IntensityCurve("bezier", 1.1), "inversion"),
        (GaussianNoise((0.2, 0.1)), "noise"),
        (ColourJitter((0.1, 0.1, 0.1, 2.0)), "color_jitter"),
    ):
        with pytest.raises(ValueError, match=rf"expected .*\b{words}\b"):
            alteration.check()
