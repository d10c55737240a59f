"""Outlines of lesions, and their opacity, from pixel offsets without any angle: a pass over the window costs most.

An outline is a closed curve around the centre. A pixel's distance is relative to it: 0 at the centre, 1 on the curve.
To add one: a class with `draw` and `distance`, and its name in `Shape` and `OUTLINES`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal, Protocol

import torch
from torch import Tensor

from medmix._random import small_tensor

Shape = Literal["blob", "ellipse", "rectangle"]

OUTLINE_DIM = 6  # random numbers per outline
HARMONICS = ((2, 0.16), (3, 0.12), (4, 0.07), (5, 0.05))  # orders and weights of the blob's waves
COSINES = ((-1, 0, 2), (0, -3, 0, 4), (1, 0, -8, 0, 8), (0, 5, 0, -20, 0, 16))  # cos(k a) as polynomials in c = cos(a)
SINES = ((0, 2), (-1, 0, 4), (0, -4, 0, 8), (1, 0, -12, 0, 16))  # sin(k a) / sin(a) as polynomials in c


class Outline(Protocol):
    """A family of closed curves within a circle of radius 1."""

    def draw(self, uniform: Callable[[int], Tensor]) -> Tensor:
        """Coefficients (..., D) of random outlines; `uniform(count)` gives numbers (..., count) in [0, 1)."""

    def distance(
        self,
        rows: Tensor,
        columns: Tensor,
        length: Tensor,
        outline: Tensor,
        scale: Tensor,
    ) -> Tensor:
        """Distance (B, S, S) of each pixel from the centre over that of the outline in its direction.

        Args:
            rows: Offsets from the centre, (B, S, 1).
            columns: The same, (B, 1, S).
            length: The offsets' lengths, (B, S, S).
            outline: Coefficients (B, D).
            scale: The circle's radius, (B, 1, 1).
        """


@dataclass(frozen=True)
class Ellipse:
    """An ellipse with half axes 1 and .5 to 1: cosine and sine of its turn, and the shorter half axis."""

    def draw(self, uniform: Callable[[int], Tensor]) -> Tensor:
        """Coefficients (..., 3)."""
        numbers = uniform(OUTLINE_DIM)
        aspect = 0.5 + 0.5 * numbers[..., 0]
        turn = math.pi * numbers[..., 1]
        return torch.stack([turn.cos(), turn.sin(), aspect], dim=-1)

    def distance(
        self,
        rows: Tensor,
        columns: Tensor,
        length: Tensor,
        outline: Tensor,
        scale: Tensor,
    ) -> Tensor:
        """The norm that is 1 on the turned ellipse."""
        cosine, sine, aspect = outline[:, :, None, None].unbind(dim=1)  # (B, 1, 1) each
        along = cosine * columns + sine * rows
        across = (cosine * rows - sine * columns) / aspect
        return euclidean_length(along, across) / scale


@dataclass(frozen=True)
class Rectangle:
    """An upright or lying rectangle of half diagonal 1 and aspect .5 to 1: half its width and half its height."""

    def draw(self, uniform: Callable[[int], Tensor]) -> Tensor:
        """Coefficients (..., 2)."""
        numbers = uniform(OUTLINE_DIM)
        diagonal = torch.atan(0.5 + 0.5 * numbers[..., 0])
        lying = torch.stack([diagonal.cos(), diagonal.sin()], dim=-1)
        lies = numbers[..., 1:2] < 0.5
        return torch.where(lies, lying, lying.flip(-1))

    def distance(
        self,
        rows: Tensor,
        columns: Tensor,
        length: Tensor,
        outline: Tensor,
        scale: Tensor,
    ) -> Tensor:
        """The norm that is 1 on the rectangle."""
        width, height = outline[:, :, None, None].unbind(dim=1)
        return torch.maximum(rows.abs() / height, columns.abs() / width) / scale


@dataclass(frozen=True)
class Blob:
    """A smooth closed curve of low harmonics, .8 + sum w_k sin(k a + phase_k) / 2, between .6 and 1.

    In c = cos(a) and s = sin(a) it is P(c) + s Q(c) with polynomials P (6 coefficients) and Q (5).
    """

    def draw(self, uniform: Callable[[int], Tensor]) -> Tensor:
        """Coefficients (..., 11) of P and of Q, the constants first, one after the other."""
        phase = 2 * math.pi * uniform(OUTLINE_DIM)[..., 2:6]
        halves = small_tensor([weight / 2 for _, weight in HARMONICS], phase)
        even = _combine(COSINES, halves * phase.sin())
        odd = _combine(SINES, halves * phase.cos())
        even[0] = even[0] + 0.8
        return torch.stack([*even, *odd], dim=-1)

    def distance(
        self,
        rows: Tensor,
        columns: Tensor,
        length: Tensor,
        outline: Tensor,
        scale: Tensor,
    ) -> Tensor:
        """The offset's length over that of the curve in its direction."""
        inverse = 1 / length.clamp(min=1e-6)
        cosine = columns * inverse
        sine = rows * inverse
        coefficients = outline[:, :, None, None]
        even = _polynomial(coefficients[:, :6], cosine)
        odd = _polynomial(coefficients[:, 6:], cosine)
        curve = odd.mul_(sine).add_(even)
        return length / curve.mul_(scale)


OUTLINES: dict[Shape, Outline] = {"blob": Blob(), "ellipse": Ellipse(), "rectangle": Rectangle()}


def lesion_alpha(
    outline: Outline,
    softness: float,
    offset: tuple[Tensor, Tensor],
    radius: Tensor,
    coefficients: Tensor,
) -> tuple[Tensor, Tensor]:
    """Opacity of one lesion per image, and its mask.

    Args:
        outline: The family of outlines.
        softness: Share of the radius over which the lesion fades in.
        offset: Pixel positions relative to the centre: rows (B, S, 1) and columns (B, 1, S).
        radius: Radius of the circle around the lesion, (B,).
        coefficients: What `outline.draw` gave, (B, D).

    Returns:
        Opacity (B, 1, S, S) in [0, 1], 0 outside, and the mask (B, 1, S, S) bool, true where the lesion lies. The
        centre pixel is always in it: an absent lesion's offset has to lie far away.
    """
    distance = relative_distance(outline, offset, radius, coefficients)[:, None]  # (B, 1, S, S)
    inside = distance < 1
    if softness == 0:
        return inside.to(distance.dtype), inside
    # the smooth step 3 r^2 - 2 r^3 of a ramp that is 0 outside
    ramp = distance.sub_(1).mul_(-1 / softness).clamp_(0, 1)
    return (-2 * ramp).add_(3).mul_(ramp).mul_(ramp), inside


def relative_distance(
    outline: Outline,
    offset: tuple[Tensor, Tensor],
    radius: Tensor,
    coefficients: Tensor,
) -> Tensor:
    """Distance of each pixel from the centre over that of the outline in its direction: (B, S, S)."""
    rows, columns = offset
    scale = radius.clamp(min=1e-9)[:, None, None]
    length = euclidean_length(rows, columns)
    distance = outline.distance(rows, columns, length, coefficients, scale)
    core = scale.clamp(max=1.5)  # a lesion of few pixels is a disc: thinner outlines fall apart
    return torch.minimum(distance, length / core)


def euclidean_length(rows: Tensor, columns: Tensor) -> Tensor:
    """Euclidean length of vectors, without the guard against overflow that makes `torch.hypot` slow."""
    return (rows * rows + columns * columns).sqrt_()


def _combine(polynomials: Sequence[Sequence[int]], weights: Tensor) -> list[Tensor]:
    """The coefficients (...) of a weighted sum of polynomials, the constant first; weights (..., N)."""
    terms = weights.unbind(dim=-1)
    combined = []
    for column in zip_longest(*polynomials, fillvalue=0):  # one power of the variable after the other
        total = torch.zeros_like(terms[0])
        for coefficient, term in zip(column, terms, strict=True):
            if coefficient != 0:
                total = total + coefficient * term
        combined.append(total)
    return combined


def _polynomial(coefficients: Tensor, x: Tensor) -> Tensor:
    """The polynomial with these coefficients (B, N, 1, 1), the constant first, at x (B, S, S), by Horner's rule."""
    *lower, second, first = coefficients.unbind(dim=1)
    value = (first * x).add_(second)  # addcmul is slow with two broadcast operands
    for coefficient in reversed(lower):
        value = torch.addcmul(coefficient, value, x)
    return value
