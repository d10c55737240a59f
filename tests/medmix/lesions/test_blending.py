"""Seamless blending against a direct solution of Poisson's equation."""

import pytest
import torch
from medmix_cases import generator
from torch import Tensor

from medmix import MedMix
from medmix.lesions.blending import membrane, seamless


def disc(side: int, radius: float) -> Tensor:
    axis = torch.arange(side) - (side - 1) / 2
    return (axis[:, None] ** 2 + axis**2 < radius**2)[None, None]


def smooth(shape: tuple[int, ...], seed: int) -> Tensor:
    """Random images without sharp edges, in [.2, .8]."""
    coarse = torch.rand(*shape[:2], 4, 4, generator=generator(seed), dtype=torch.float64)
    return 0.2 + 0.6 * torch.nn.functional.interpolate(coarse, shape[2:], mode="bilinear")


def solve_poisson(patch: Tensor, target: Tensor, inside: Tensor) -> Tensor:
    """The exact solution (S, S) of the discrete Poisson equation, one unknown per pixel, by a dense linear system."""
    side = patch.shape[-1]
    matrix, right = torch.eye(side * side, dtype=torch.float64), target.flatten().clone()
    for row, column in inside.nonzero().tolist():
        index = row * side + column
        right[index] = 0
        for r, c in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            if 0 <= r < side and 0 <= c < side:
                matrix[index, r * side + c] = -1
                right[index] += patch[row, column] - patch[r, c]
        matrix[index, index] = -matrix[index].sum() + matrix[index, index]
    return torch.linalg.solve(matrix, right).view(side, side)


@pytest.mark.parametrize(("side", "radius"), [(17, 6.0), (33, 14.0), (41, 20.4)])
def test_seamless_solves_poissons_equation(side: int, radius: float) -> None:
    patch, target = smooth((1, 1, side, side), 0), smooth((1, 1, side, side), 1)
    inside = disc(side, radius)
    exact = solve_poisson(patch[0, 0], target[0, 0], inside[0, 0]).clamp(0, 1)
    blended = seamless(patch, target, inside)[0, 0]
    before = (patch[0, 0] - exact)[inside[0, 0]].abs().max()
    error = (blended - exact)[inside[0, 0]].abs().max()
    assert error < 0.02 * before


def test_a_membrane_continues_a_plane() -> None:
    """A plane is harmonic: what spans its border is the plane itself."""
    rows, columns = torch.meshgrid(torch.arange(33.0), torch.arange(33.0), indexing="ij")
    plane = (0.2 + 0.01 * rows - 0.005 * columns)[None, None]
    unknown = disc(33, 13.0).float()
    found = membrane(plane * (1 - unknown), unknown)
    assert (found - plane).abs().max() < 0.01 * (plane.max() - plane.min())


def test_seamless_drops_a_constant_difference() -> None:
    target = smooth((2, 3, 25, 25), 3)
    inside = disc(25, 9.0)
    blended = seamless(target + 0.15, target, inside)
    assert ((blended - target) * inside).abs().max() < 0.01 * 0.15  # what the fixed number of multigrid cycles leaves


def test_seamless_lesions_have_a_smaller_edge_than_hard_ones() -> None:
    """The step across the border, on smooth images with every lesion shifted by its jitter."""
    x = smooth((16, 3, 64, 64), 5).float()
    steps = {}
    for blending in ("hard", "seamless"):
        images, _, masks = MedMix(1, blending=blending, noise=(0, 0))(x, generator=generator(0))
        crossing = masks[..., 1:] != masks[..., :-1]
        steps[blending] = (images.diff(dim=3).abs() * crossing).sum() / crossing.sum()
    assert steps["seamless"] < 0.25 * steps["hard"]


def test_hard_is_a_softness_of_zero() -> None:
    x = torch.rand(4, 3, 32, 32)
    hard = MedMix(2, blending="hard")
    feathered = MedMix(2, softness=0)
    images = hard(x).images
    torch.testing.assert_close(images, feathered(x, params=hard._params).images)


def test_unknown_blending_is_refused() -> None:
    with pytest.raises(ValueError, match="seamless"):
        MedMix(blending="poisson")
