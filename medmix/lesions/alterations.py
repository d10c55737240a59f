"""What makes a lesion look unlike healthy tissue: one class per alteration, with its check, its draw and its apply.

To add one: a class like these, a keyword of `MedMix` and its line in `MedMix.lesion_options`; or give an instance to
`MedMix(alterations=[...])`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, get_args

import torch
from torch import Tensor

from medmix._checks import check_choice, check_jitter, check_probability, check_range
from medmix.lesions.colour import Strengths, apply_colour, colour_matrix
from medmix.lesions.curves import CURVE_DIM, Nonlinear, bend_intensity, curve_coefficients
from medmix.lesions.warps import Deformation, warp

NOISE_POOL = 2**16  # a lesion's noise is a stretch of one pool, which makes replays exact and drawing cheap

Draw = Callable[[int], Tensor]  # count -> uniform numbers (B, K, count) in [0, 1)
Drawn = dict[str, Tensor]  # what describes lesions, by name


class Alteration(Protocol):
    """One change of a lesion's look."""

    def check(self) -> None:
        """Refuse options that cannot be meant.

        Raises:
            TypeError, ValueError: What was expected, what came, how to fix it.
        """

    def draw(
        self,
        uniform: Draw,
        channels: int,
    ) -> Drawn:
        """Draw what describes the change of each lesion, (B, K, ...) each, under names of its own."""

    def apply(
        self,
        patch: Tensor,
        drawn: Drawn,
    ) -> Tensor:
        """Change patches (N, C, S, S) in [0, 1], at least float32, and keep them in [0, 1]; in place if it likes.

        `drawn` holds what was drawn for them, (N, ...) each, and "noise_pool", a row of standard normal numbers, at
        least `NOISE_POOL` + C * S * S.
        """


@dataclass(frozen=True)
class Warp:
    """Fisheye or wave."""

    deformation: Deformation | None

    def check(self) -> None:
        """Refuse unknown warps."""
        check_choice("deformation", self.deformation, (*get_args(Deformation), None))

    def draw(
        self,
        uniform: Draw,
        channels: int,
    ) -> Drawn:
        """Strength, direction or frequency, and phase."""
        return {"warp": uniform(3)}

    def apply(
        self,
        patch: Tensor,
        drawn: Drawn,
    ) -> Tensor:
        """Resample patches on the bent grid."""
        if self.deformation is None:
            return patch
        return warp(patch, self.deformation, drawn["warp"])


@dataclass(frozen=True)
class ColourJitter:
    """Brightness, contrast, saturation and hue as one affine map."""

    strengths: Strengths

    def check(self) -> None:
        """Refuse strengths outside [0, 1]."""
        check_jitter(self.strengths)

    def draw(
        self,
        uniform: Draw,
        channels: int,
    ) -> Drawn:
        """The maps."""
        matrix, pivot = colour_matrix(self.strengths, uniform(4), channels)
        return {"colour": matrix, "pivot": pivot}

    def apply(
        self,
        patch: Tensor,
        drawn: Drawn,
    ) -> Tensor:
        """Map the patches' colours."""
        return apply_colour(patch, drawn["colour"], drawn["pivot"])


@dataclass(frozen=True)
class IntensityCurve:
    """A random monotone Bezier curve."""

    curve: Nonlinear | None
    inversion: float = 0.5

    def check(self) -> None:
        """Refuse unknown curves, and a share of inverted ones that is none."""
        check_probability(self.inversion, "inversion")
        check_choice("nonlinear", self.curve, (*get_args(Nonlinear), None))

    def draw(
        self,
        uniform: Draw,
        channels: int,
    ) -> Drawn:
        """The curves' coefficients."""
        curve = self.curve or "bezier"  # drawn in any case: what a seed gives does not hang on the options
        coefficients = curve_coefficients(curve, uniform(CURVE_DIM[curve]), self.inversion)
        return {"curve": coefficients}

    def apply(
        self,
        patch: Tensor,
        drawn: Drawn,
    ) -> Tensor:
        """Bend the patches' intensities."""
        if self.curve is None:
            return patch
        return bend_intensity(patch, self.curve, drawn["curve"])


@dataclass(frozen=True)
class GaussianNoise:
    """Noise of a random standard deviation, a stretch of one pool per lesion; stretches may overlap."""

    std: tuple[float, float]
    grey: bool = False

    def check(self) -> None:
        """Refuse a range that is none."""
        check_range("noise", self.std)

    def draw(
        self,
        uniform: Draw,
        channels: int,
    ) -> Drawn:
        """The standard deviations, and where the lesions' noise begins in the pool."""
        smallest, largest = self.std
        std = smallest + (largest - smallest) * uniform(1)[..., 0]
        noise_start = (NOISE_POOL * uniform(1)[..., 0]).long()
        return {"std": std, "noise_start": noise_start}

    def apply(
        self,
        patch: Tensor,
        drawn: Drawn,
    ) -> Tensor:
        """Add the noise."""
        if self.std[1] == 0:
            return patch
        number, channels, height, width = patch.shape
        if self.grey:
            channels = 1  # one field for all channels
        stretches = drawn["noise_pool"].unfold(0, channels * height * width, 1)
        noise = stretches.index_select(0, drawn["noise_start"]).view(number, channels, height, width)
        std = drawn["std"][:, None, None, None]
        return patch.addcmul_(std.to(patch.dtype), noise.to(patch.dtype)).clamp_(0, 1)


def alter(
    patch: Tensor,
    alterations: Sequence[Alteration],
    drawn: Drawn,
) -> Tensor:
    """Apply alterations to patches (N, C, S, S) in [0, 1], one after the other; the patches may be written over."""
    work = patch.float() if patch.dtype in (torch.float16, torch.bfloat16) else patch
    for alteration in alterations:
        work = alteration.apply(work, drawn)
    return work.to(patch.dtype)
