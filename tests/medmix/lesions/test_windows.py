"""Windows: large enough, pasted right, and the same pixel by pixel."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from medmix_cases import SEEDS, SHAPES, SIZES, generator

from medmix import (
    MedMix,
)
from medmix.lesions.blending import seamless
from medmix.lesions.outlines import OUTLINES, lesion_alpha
from medmix.lesions.windows import RenderedLesions, paste, pixelwise, window_starts

OPTIONS: list[dict[str, object]] = [
    {}, {"softness": 0.0}, {"blending": "hard"}, {"blending": "seamless"}, {"nonlinear": None},
    {"noise": (0.0, 0.0)}, {"nonlinear": "genesis"}, {"deformation": "fisheye"},
    {"deformation": "wave"}, {"shape": "ellipse"}, {"shape": "rectangle"}, {"p": 0.5}, {"same_on_batch": True},
]  # fmt: skip


@given(st.booleans(), st.booleans(), st.integers(5, 40), st.integers(0, 999))
def test_pasted_lesions_stay_in_range_and_leave_the_outside(shifted: bool, soft: bool, side: int, seed: int) -> None:
    patch, target = torch.rand(2, 2, 3, side, side, generator=generator(seed))
    inside = torch.rand(2, 1, side, side, generator=generator(seed + 1)) < 0.5
    patch = seamless(patch, target, inside) if shifted else patch
    alpha = inside * (0.7 if soft else 1.0)
    images, masks = target.clone(), torch.zeros(2, 1, side, side, dtype=torch.uint8)
    own, corner = torch.arange(2), torch.zeros(2, 2, dtype=torch.int64)
    starts, mask_starts = (window_starts(corner, own, x.shape) for x in (images, masks))
    pasted, masks = paste(images, masks, RenderedLesions(starts, mask_starts, patch, alpha, inside))
    assert pasted.min() >= 0
    assert pasted.max() <= 1
    assert torch.equal(pasted.masked_select(~inside), target.masked_select(~inside))
    assert torch.equal(masks.bool(), inside)
    if not soft:
        assert torch.equal(pasted.masked_select(inside), patch.masked_select(inside))


@pytest.mark.parametrize("options", OPTIONS[:4], ids=str)
def test_pixel_by_pixel_is_the_same(options: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    """The way that CUDA takes under `torch.use_deterministic_algorithms`."""
    mix, x, nothing = MedMix(3, **options), torch.rand(4, 3, 40, 40), torch.zeros(4, 1, 40, 40, dtype=torch.bool)
    expected = mix(x)
    monkeypatch.setattr("medmix.lesions.windows.pixelwise", lambda *tensors: True)
    actual = mix(x, params=mix._params)
    assert all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True))
    assert torch.equal(mix(nothing, params=mix._params, data_keys=["mask"]), expected.masks)


@given(
    st.integers(1, 7), st.integers(16, 90), st.integers(16, 90), SIZES, SHAPES, st.sampled_from([1, 3, 9]),
    st.booleans(), SEEDS,
)  # fmt: skip
def test_no_window_is_too_small_for_its_lesion(batch, height, width, size, shape, num_lesions, same, seed) -> None:
    """The mask is that of the lesions drawn on the whole image."""
    mix = MedMix(num_lesions, size=size, shape=shape, same_on_batch=same)
    masks = mix(torch.zeros(batch, 1, height, width), generator=generator(seed)).masks
    whole = torch.zeros_like(masks)
    for slot in range(num_lesions):
        centre, radius, outline = (mix._params[name][:, slot] for name in ("centre", "radius", "outline"))
        rows, columns = (torch.arange(n) - centre[:, i, None] for i, n in enumerate((height, width)))
        whole |= lesion_alpha(OUTLINES[shape], 0, (rows[:, :, None], columns[:, None]), radius, outline)[1]
    assert torch.equal(masks, whole)


def test_when_windows_are_taken_pixel_by_pixel() -> None:
    """For autograd; and where CUDA, for which a stand-in speaks, has to write deterministically."""
    plain, followed, on_cuda = torch.zeros(1), torch.zeros(1, requires_grad=True), SimpleNamespace(is_cuda=True)
    assert not pixelwise(plain)
    assert pixelwise(plain, followed)
    with torch.no_grad():
        assert not pixelwise(plain, followed)
        assert not pixelwise(on_cuda)
        torch.use_deterministic_algorithms(True)
        try:
            assert pixelwise(on_cuda)
            assert not pixelwise(plain)
        finally:
            torch.use_deterministic_algorithms(False)
