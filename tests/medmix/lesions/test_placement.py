"""Places and sizes of lesions, and that the label is their number."""

import math

import numpy as np
import pytest
import scipy.ndimage
import torch
from hypothesis import given
from hypothesis import strategies as st
from medmix_cases import SEEDS, SHAPES, SIZES, generator
from torch import Tensor

from medmix import MedMix
from medmix.lesions import placement
from medmix.lesions.foreground import sample_pixels
from medmix.lesions.placement import draw_donors, sample_layout, spread_sizes

Point = tuple[int, int]


def components(mask: Tensor) -> tuple[int, int]:
    """Numbers of 4-connected and of 8-connected components of a mask (H, W)."""
    array = mask.numpy()
    return scipy.ndimage.label(array)[1], scipy.ndimage.label(array, np.ones((3, 3)))[1]


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


@given(
    st.integers(1, 17),
    st.integers(16, 300),
    st.integers(16, 300),
    SIZES,
    SHAPES,
    st.sampled_from([(0, 1, 2, 3), 1, 3, 7, 16]),
    SEEDS,
)
def test_label_is_the_number_of_components(batch, height, width, size, shape, num_lesions, seed) -> None:
    mix = MedMix(num_lesions, size=size, shape=shape, noise=(0, 0), nonlinear=None, color_jitter=(0, 0, 0, 0))
    _, labels, masks = mix(torch.zeros(batch, 1, height, width), generator=generator(seed))
    assert [components(mask[0]) for mask in masks] == [(n, n) for n in labels.tolist()]
    expected = mix.num_lesions if batch % len(mix.num_lesions) == 0 else ()
    assert all((labels == n).sum() == batch // len(expected) for n in expected)


@pytest.mark.parametrize("size", [(1 / 4, 1 / 2.3), (1 / 8, 1 / 4)])
@pytest.mark.parametrize("num_lesions", [2, 3, 5])
def test_a_lesion_lies_anywhere_whatever_its_slot(num_lesions: int, size: tuple[float, float]) -> None:
    """Else the place of one lesion would tell how many there are."""
    batch = 20000
    params = MedMix(num_lesions, size=size).forward_parameters((batch, 1, 64, 64), generator(0))
    half = params["centre"] < 31.5  # (B, K, 2)
    for share in (*half.double().mean(dim=0).T, half.all(dim=2).double().mean(dim=0)):  # (K,) each
        assert (share - share.mean()).abs().max() < 4.5 * 0.5 / batch**0.5
    assert params["radius"].mean(dim=0).std() < 0.02


def grid_centre(numbers: list[float], turn: int, rank: int, radius: float, shape: tuple[int, int], slots: int) -> Point:
    """A lesion's place in its cell of the regular grid, as far off the middle as radius and gap allow."""
    cells = math.ceil(math.sqrt(slots))
    cell = divmod((rank + turn) % cells**2, cells)
    place = []
    for axis in (0, 1):
        width = shape[axis] / cells
        slack = max(width - 2 - 1 - 2 * radius, 0)
        place.append(math.floor((cell[axis] + 0.5) * width + (numbers[axis] - 0.5) * slack))
    return place[0], place[1]


def free_centre(numbers: list[float], radius: float, shape: tuple[int, int]) -> Point:
    """A place at which a lesion lies wholly inside the image."""
    margin = math.ceil(radius)
    first = [min(margin, (length - 1) // 2) for length in shape]
    steps = [math.floor(numbers[axis] * max(shape[axis] - 2 * margin, 1)) for axis in (0, 1)]
    return first[0] + steps[0], first[1] + steps[1]


def pixel_of_foreground(number: float, foreground: np.ndarray, margin: int) -> Point:
    """One of the pixels whose square neighbourhood lies in the foreground, or of all where there is none."""
    padded = np.pad(foreground, margin)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * margin + 1, 2 * margin + 1))
    inner = windows.all(axis=(2, 3))
    allowed = np.argwhere(inner if inner.any() else foreground)
    if not len(allowed):
        return foreground.shape[0] - 1, foreground.shape[1] - 1
    row, column = allowed[math.floor(number * len(allowed))]
    return int(row), int(column)


def room(centre: Point, foreground: np.ndarray | None) -> float:
    """Distance from a place to the nearest pixel outside of the foreground."""
    if foreground is None:
        return math.inf
    outside = np.argwhere(~np.pad(foreground, 1)) - 1
    return float(np.sqrt(((outside - np.array(centre)) ** 2).sum(axis=1)).min())


def layout_by_hand(
    numbers: list[list[list[float]]], shape: tuple[int, int], size: tuple[float, float], foreground: np.ndarray | None
) -> tuple[list[Point], list[float]]:
    """Places and radii of one image's lesions, from its numbers (L + 1, K, 4), by loops over layouts and lesions."""
    side, slots, last = min(shape), len(numbers[0]), len(numbers) - 1
    targets = [[min(side / 2 * (size[0] + (size[1] - size[0]) * u[2]), (side - 1) / 2) for u in row] for row in numbers]
    cell = math.floor(side / math.ceil(math.sqrt(slots)))
    radii = [*targets[:-1], [min(radius, max(cell - 2, 0.5) / 2) for radius in targets[-1]]]
    turn = math.floor(numbers[0][0][3] * math.ceil(math.sqrt(slots)) ** 2)
    ranks = np.argsort([u[3] for u in numbers[-1]])
    margin = math.floor(side / 2 * size[0])
    centres = []
    for l, row in enumerate(numbers):  # noqa: E741
        if l == last:
            centres.append([grid_centre(u, turn, ranks[k], radii[l][k], shape, slots) for k, u in enumerate(row)])
        elif foreground is None:
            centres.append([free_centre(u, radii[l][k], shape) for k, u in enumerate(row)])
        else:
            far = margin if l < (last + 1) // 2 else margin // 2
            centres.append([pixel_of_foreground(u[0], foreground, far) for u in row])

    apart, share = np.ones((len(numbers), slots)), np.zeros((len(numbers), slots))
    rooms = [[room(centre, foreground) for centre in row] for row in centres]
    for l, k in np.ndindex(*share.shape):  # noqa: E741
        pairs = [(i, j) for j in range(k + 1) for i in range(j)]
        gaps = [(math.dist(centres[l][i], centres[l][j]) - 2) / (radii[l][i] + radii[l][j]) for i, j in pairs]
        apart[l, k] = min(max(min(gaps, default=1), 0), 1)
        by_layout = min(radii[l][i] / targets[l][i] for i in range(k + 1))
        by_place = min(rooms[l][i] / targets[l][i] for i in range(k + 1))
        share[l, k] = min(apart[l, k] * by_layout, by_place)
    least = 0 if foreground is None else 0.5
    number = max([1, *(k + 1 for k in range(slots) if share[:, k].max() >= least)])
    best = int(share[:, number - 1].argmax())
    found = [min(radii[best][k] * apart[best, number - 1], rooms[best][k]) for k in range(slots)]
    return centres[best], [radius if k < number else 0 for k, radius in enumerate(found)]


FOREGROUNDS = ("none", "all", "disc", "nothing", "noise", "strip")


def foreground_of(kind: str, shape: tuple[int, int]) -> np.ndarray | None:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    disc = (rows - shape[0] / 2) ** 2 + (columns - shape[1] / 2) ** 2 < (min(shape) / 3) ** 2
    noise = np.random.default_rng(0).random(shape) < 0.8
    strip = np.zeros(shape, dtype=bool)
    strip[5:9, 3:-2] = True
    kinds = {"all": np.ones(shape, dtype=bool), "disc": disc, "nothing": np.zeros(shape, dtype=bool)}
    return (kinds | {"noise": noise, "strip": strip}).get(kind)


@pytest.mark.parametrize("kind", FOREGROUNDS)
@pytest.mark.parametrize("slots", [1, 2, 3, 5])
@pytest.mark.parametrize("size", [(0.1, 0.3), (0.25, 0.45), (0.9, 1.0), (0.05, 0.05)])
def test_layouts_are_those_of_the_loops(kind: str, slots: int, size: tuple[float, float]) -> None:
    for seed, shape in enumerate([(20, 33), (34, 21), (16, 16)]):
        foreground = foreground_of(kind, shape)
        numbers = torch.rand(2, 5, slots, 4, generator=generator(seed), dtype=torch.float64)
        foregrounds = [foreground, foreground_of("nothing", shape)] if foreground is not None else [None] * 2
        mask = None if foreground is None else torch.from_numpy(np.stack(foregrounds))[:, None]
        centres, radii = sample_layout(numbers, shape, size, mask)
        for image in range(2):
            want_centres, want_radii = layout_by_hand(numbers[image].tolist(), shape, size, foregrounds[image])
            np.testing.assert_allclose(radii[image], want_radii, rtol=1e-6, atol=1e-6)
            present = radii[image] > 0
            assert torch.equal(centres[image][present].double(), torch.tensor(want_centres).double()[present])


def test_sizes_of_a_slot_are_spread_evenly() -> None:
    layout = torch.rand(3, 2, 2, 4, generator=generator(0))
    order = torch.tensor([[2, 1], [0, 2], [1, 0]])
    spread = spread_sizes(layout, order)
    for image, row, slot in np.ndindex(3, 2, 2):
        rank = order[:, slot].tolist().index(image)
        expected = layout[image, row, slot].clone()
        expected[2] = (rank + expected[2]) / 3
        torch.testing.assert_close(spread[image, row, slot], expected)


def test_donors_are_the_other_images_alike() -> None:
    numbers = torch.tensor([0.0, 0.3, 0.34, 0.6, 0.67, 0.999])
    assert draw_donors(numbers, 4).tolist() == [1, 1, 2, 2, 3, 3]
    assert draw_donors(numbers, 2).tolist() == [1] * 6
    assert draw_donors(numbers, 1).tolist() == [0] * 6
    assert draw_donors(numbers, 1).dtype == torch.int64


def test_there_are_sixteen_random_layouts() -> None:
    assert placement.NUM_LAYOUTS == 16


@pytest.mark.parametrize("in_foreground", [True, False])
def test_nothing_comes_from_the_host(in_foreground: bool) -> None:
    """On an accelerator, for which "meta" stands, places are found there."""
    numbers = torch.rand(2, 5, 3, 4, device="meta")
    foreground = torch.ones(2, 1, 20, 30, dtype=torch.bool, device="meta") if in_foreground else None
    centres, radii = sample_layout(numbers, (20, 30), (0.1, 0.3), foreground)
    assert centres.is_meta
    assert centres.shape == (2, 3, 2)
    assert radii.is_meta


def test_lesions_at_the_edge_of_what_is_kept() -> None:
    """Where nothing may be left out, lesions at one place vanish both; at just the least share there are both."""
    radii = torch.full((1, 1, 2), 3.0)
    apart, together = torch.tensor([[[[5.0, 5.0], [5.0, 25.0]]]]), torch.full((1, 1, 2, 2), 5.0)
    for centres, free, share, expected in (
        (together, math.inf, 0.0, [0.0, 0.0]),
        (apart, 1.5, 0.5, [1.5, 1.5]),
        (apart, 1.4, 0.5, [1.4, 0.0]),
    ):
        found = placement.choose_layout(centres, radii, radii, torch.full((1, 1, 2), free), min_share=share)
        torch.testing.assert_close(found[1], torch.tensor([expected]))


GRID_RADII = [(64, 4, 15.0), (64, 5, 9.5), (7, 2, 0.5), (2, 9, 0.25), (9, 1, 3.5)]


@pytest.mark.parametrize(("side", "slots", "radius"), GRID_RADII)
def test_radius_in_the_grid(side: int, slots: int, radius: float) -> None:
    assert placement.grid_radius(side, slots) == radius


def test_first_and_last_pixel_of_a_foreground() -> None:
    foreground = torch.ones(1, 1, 3, 4, dtype=torch.bool)
    ends = torch.tensor([[[0.0, 0.9999]]])
    assert sample_pixels(ends, foreground, 0).tolist() == [[[[0.0, 0.0], [2.0, 3.0]]]]
    assert sample_pixels(ends, ~foreground, 0).tolist() == [[[[2.0, 3.0], [2.0, 3.0]]]]


def test_margins_of_one_image_do_not_hang_on_another() -> None:
    """In the second, too thin for the margin, all of the foreground is allowed."""
    foreground = torch.zeros(2, 1, 7, 7, dtype=torch.bool)
    foreground[0, :, 1:6, 1:6] = True
    foreground[1, :, 2] = True
    places = sample_pixels(torch.rand(2, 1, 50, generator=generator(0)), foreground, 2)
    assert (places[0] == 3).all()
    assert (places[1, ..., 0] == 2).all()
    assert places[1, ..., 1].unique().tolist() == list(range(7))
