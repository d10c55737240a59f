"""The weak augmentation."""

import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

import medmix.weak
from medmix import WeakAugmentation
from medmix.weak import crop_grid, fits_in_parts


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


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


def test_crop_grid_is_affine_grid() -> None:
    crop = WeakAugmentation(8, scale=(0.2, 1)).forward_parameters((5, 3, 20, 30), generator())["crop"]
    expected = F.affine_grid(crop, [5, 1, 7, 9], align_corners=False)
    torch.testing.assert_close(crop_grid(crop, (7, 9)), expected)


@given(st.integers(1, 4), st.sampled_from([1, 2, 3, 5]), st.integers(8, 40), st.integers(8, 40), st.integers(0, 99))
def test_weak_views_keep_range_and_replay(batch, channels, height, width, seed) -> None:
    x = torch.rand(batch, channels, height, width, generator=generator(seed))
    weak = WeakAugmentation((12, 10))
    y = weak(x, generator=generator(seed))
    assert y.shape == (batch, channels, 12, 10)
    assert y.min() >= 0
    assert y.max() <= 1
    params = weak.forward_parameters(x.shape, generator=generator(seed))
    assert torch.equal(y, weak(x, params=params))


def test_without_any_change_the_image_stays() -> None:
    x = torch.rand(3, 3, 16, 16)
    weak = WeakAugmentation(16, scale=(1, 1), ratio=(1, 1), flip_p=0, jitter_p=0, grayscale_p=0)
    torch.testing.assert_close(weak(x), x)


def test_flip_alone_is_a_flip() -> None:
    x = torch.rand(3, 3, 16, 16)
    weak = WeakAugmentation(16, scale=(1, 1), ratio=(1, 1), flip_p=1, jitter_p=0, grayscale_p=0)
    torch.testing.assert_close(weak(x), x.flip(3))


def test_weak_views_are_the_same_under_autocast() -> None:
    x = torch.rand(8, 3, 16, 16)
    expected = WeakAugmentation(16)(x, generator=generator())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(WeakAugmentation(16)(x, generator=generator()), expected)


def test_grayscale_is_grey_in_all_channels() -> None:
    y = WeakAugmentation(16, grayscale_p=1)(torch.rand(3, 3, 16, 16))
    torch.testing.assert_close(y[:, 0], y[:, 1])


def test_images_a_few_at_a_time_are_those_of_all_at_once(monkeypatch) -> None:
    x = torch.rand(5, 3, 16, 16)
    weak = WeakAugmentation(8)
    params = weak.forward_parameters(x.shape)
    together = weak(x, params)
    monkeypatch.setattr(medmix.weak, "CACHED_VALUES", 2 * x[0].numel())
    assert torch.equal(weak(x, params), together)


def test_weak_views_have_a_gradient() -> None:
    x = torch.rand(3, 3, 16, 16, requires_grad=True)
    weak = WeakAugmentation(8)
    params = weak.forward_parameters(x.shape)
    view = weak(x, params)
    assert torch.equal(view, weak(x.detach(), params))
    view.sum().backward()
    assert x.grad.abs().sum() > 0


def test_repr_tells_every_option() -> None:
    weak = WeakAugmentation(16, flip_p=0.25)
    assert eval(repr(weak), {"WeakAugmentation": WeakAugmentation}).__dict__.keys() == weak.__dict__.keys()
    assert "size=(16, 16)" in repr(weak)
    assert "flip_p=0.25" in repr(weak)


def test_where_images_are_augmented_a_few_at_a_time(monkeypatch) -> None:
    x = torch.rand(2, 3, 16, 16)
    assert fits_in_parts(x, x)
    assert not fits_in_parts(x, x.to("meta"))
    followed = x.clone().requires_grad_()
    assert not fits_in_parts(x, followed)
    with torch.no_grad():
        assert fits_in_parts(followed)
    monkeypatch.setattr("torch.compiler.is_compiling", lambda: True)
    assert not fits_in_parts(x)
