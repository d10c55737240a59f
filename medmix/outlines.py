"""The outline of a lesion and its opacity, from pixel offsets without any angle: a pass over the window costs most.

The outline is a closed curve around the centre. A pixel's distance is relative to it: 0 at the centre, 1 on the curve.
"""

import math
from collections.abc import Sequence
from itertools import zip_longest
from typing import Literal

import torch
from torch import Tensor

from medmix.constants import constants

Shape = Literal["blob", "ellipse", "rectangle"]

OUTLINE_DIM = 6  # random numbers per outline
OUTLINE_WIDTH = {"blob": 11, "ellipse": 3, "rectangle": 2}  # numbers that describe it
HARMONICS = ((2, 0.16), (3, 0.12), (4, 0.07), (5, 0.05))  # orders and weights of the blob's waves
COSINES = ((-1, 0, 2), (0, -3, 0, 4), (1, 0, -8, 0, 8), (0, 5, 0, -20, 0, 16))  # cos(k a) as polynomials in c = cos(a)
SINES = ((0, 2), (-1, 0, 4), (0, -4, 0, 8), (1, 0, -12, 0, 16))  # sin(k a) / sin(a) as polynomials in c


def outline_coefficients(shape: Shape, uniform: Tensor) -> Tensor:
    """What describes random outlines: numbers (..., 6) in [0, 1) -> (..., OUTLINE_WIDTH).

    An ellipse has the cosine and sine of its turn and its aspect, a rectangle half its width and height, both within a
    circle of radius 1, a blob the coefficients of P (6) and Q (5), see `blob_share`.
    """
    aspect, turn = 0.5 + 0.5 * uniform[..., 0], uniform[..., 1]
    if shape == "ellipse":
        return torch.stack([(math.pi * turn).cos(), (math.pi * turn).sin(), aspect], dim=-1)
    if shape == "rectangle":
        diagonal, lies = torch.atan(aspect), (turn < 0.5)[..., None]
        sides = torch.stack([diagonal.cos(), diagonal.sin()], dim=-1)
        return torch.where(lies, sides, sides.flip(-1))
    return blob_polynomials(2 * math.pi * uniform[..., 2:6])


def lesion_alpha(
    shape: Shape, softness: float, offset: tuple[Tensor, Tensor], radius: Tensor, outline: Tensor
) -> tuple[Tensor, Tensor]:
    """Opacity of one lesion per image, and its mask.

    Args:
        shape: "blob", "ellipse" or "rectangle".
        softness: Share of the radius over which the lesion fades in.
        offset: Pixel positions relative to the centre: rows (B, S, 1) and columns (B, 1, S).
        radius: Radius of the circle around the lesion, (B,).
        outline: Coefficients of `outline_coefficients`, (B, D).

    Returns:
        Opacity (B, 1, S, S) in [0, 1], 0 outside, and the mask (B, 1, S, S) bool, true where the lesion lies. The
        centre pixel is always in it: an absent lesion's offset has to lie far away.
    """
    distance = relative_distance(shape, offset, radius, outline)[:, None]  # (B, 1, S, S)
    inside = distance < 1
    if softness == 0:
        return inside.to(distance.dtype), inside
    ramp = distance.sub_(1).mul_(-1 / softness).clamp_(0, 1)  # 0 outside
    return (-2 * ramp).add_(3).mul_(ramp).mul_(ramp), inside


def relative_distance(shape: Shape, offset: tuple[Tensor, Tensor], radius: Tensor, outline: Tensor) -> Tensor:
    """Distance of each pixel from the centre over that of the outline in its direction: (B, S, S)."""
    rows, columns = offset
    scale = radius.clamp(min=1e-9)[:, None, None]
    centre_distance = length(rows, columns)
    if shape == "ellipse":
        distance = ellipse_norm(rows, columns, outline) / scale
    elif shape == "rectangle":
        distance = rectangle_norm(rows, columns, outline) / scale
    else:
        distance = centre_distance / blob_share(rows, columns, centre_distance, outline).mul_(scale)
    core = scale.clamp(max=1.5)  # a lesion of few pixels is a disc: thinner outlines fall apart
    return torch.minimum(distance, centre_distance / core)


def length(rows: Tensor, columns: Tensor) -> Tensor:
    """Euclidean length of vectors, without the guard against overflow that makes `torch.hypot` slow."""
    return (rows * rows + columns * columns).sqrt_()


def ellipse_norm(rows: Tensor, columns: Tensor, outline: Tensor) -> Tensor:
    """Norm (B, S, S) that is 1 on a turned ellipse with half axes 1 and .5 to 1."""
    cosine, sine, aspect = outline[:, :, None, None].unbind(dim=1)  # (B, 1, 1) each
    along = cosine * columns + sine * rows
    across = (cosine * rows - sine * columns) / aspect
    return length(along, across)


def rectangle_norm(rows: Tensor, columns: Tensor, outline: Tensor) -> Tensor:
    """Norm (B, S, S) that is 1 on an upright or lying rectangle of half diagonal 1 and aspect .5 to 1."""
    width, height = outline[:, :, None, None].unbind(dim=1)
    return torch.maximum(rows.abs() / height, columns.abs() / width)


def blob_share(rows: Tensor, columns: Tensor, distance: Tensor, outline: Tensor) -> Tensor:
    """A smooth closed curve of low harmonics, .8 + sum w_k sin(k a + phase_k) / 2, between .6 and 1: (B, S, S).

    In c = cos(a) and s = sin(a) it is P(c) + s Q(c) with polynomials P and Q.
    """
    inverse = 1 / distance.clamp(min=1e-6)
    cosine, sine = columns * inverse, rows * inverse
    coefficients = outline[:, :, None, None]
    even, odd = coefficients[:, :6], coefficients[:, 6:]
    return horner(odd, cosine).mul_(sine).add_(horner(even, cosine))


def blob_polynomials(phase: Tensor) -> Tensor:
    """Coefficients of P and of Q, the constants first, one after the other: (..., 4) radians -> (..., 11)."""
    halves = constants([weight / 2 for _, weight in HARMONICS], phase)
    even, odd = combine(COSINES, halves * phase.sin()), combine(SINES, halves * phase.cos())
    return torch.stack([even[0] + 0.8, *even[1:], *odd], dim=-1)


def combine(polynomials: Sequence[Sequence[int]], weights: Tensor) -> list[Tensor]:
    """The coefficients (...) of a weighted sum of polynomials, the constant first; weights (..., N)."""
    terms = weights.unbind(dim=-1)
    nothing = torch.zeros_like(terms[0])
    return [
        sum((c * term for c, term in zip(column, terms, strict=True) if c != 0), nothing)
        for column in zip_longest(*polynomials, fillvalue=0)
    ]


def horner(coefficients: Tensor, x: Tensor) -> Tensor:
    """The polynomial with these coefficients (B, N, 1, 1), the constant first, at x (B, S, S)."""
    *lower, second, first = coefficients.unbind(dim=1)
    value = (first * x).add_(second)  # addcmul is slow with two broadcast operands
    for coefficient in reversed(lower):
        value = torch.addcmul(coefficient, value, x)
    return value
