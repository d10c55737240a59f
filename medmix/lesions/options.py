"""How the lesions of a MedMix are drawn and made."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import get_args

from torch import Tensor

from medmix._checks import check_choice, check_size, check_softness
from medmix.lesions.alterations import Alteration, Drawn
from medmix.lesions.blending import Blending
from medmix.lesions.outlines import Outline
from medmix.lesions.windows import SizeBand, size_bands

BUILT_IN = 4  # alterations that every MedMix has


@dataclass(frozen=True)
class LesionOptions:
    """How lesions are drawn and made; see `medmix.MedMix`.

    Attributes:
        num_lesions: Possible numbers of lesions.
        size: Smallest and largest diameter as a fraction of the shorter image side.
        outline: The family of outlines.
        blending: How patches meet their surroundings.
        softness: Share of the radius over which a feathered lesion fades in.
        alterations: In the order in which they are applied: warp, colour, curve, noise and any further ones.
        p: Probability that an image is augmented at all.
        same_on_batch: Whether all images get the same lesions.
    """

    num_lesions: tuple[int, ...]
    size: tuple[float, float]
    outline: Outline
    blending: Blending
    softness: float
    alterations: tuple[Alteration, ...]
    p: float
    same_on_batch: bool

    def check(self) -> None:
        """Refuse options that cannot be meant.

        Raises:
            TypeError, ValueError: If an option has the wrong type or is out of range.
        """
        check_size(self.size)
        check_choice("blending", self.blending, get_args(Blending))
        check_softness(self.softness)
        for alteration in self.alterations:
            alteration.check()

    @property
    def slots(self) -> int:
        """Lesions K that are drawn for every image, at least one."""
        return max(1, *self.num_lesions)

    def bands(self, batch_shape: Sequence[int]) -> list[SizeBand]:
        """How a batch (B, C, H, W) that is sorted by lesion size is worked on."""
        batch, _, height, width = batch_shape
        return size_bands(self.size, batch, not self.same_on_batch, (height, width))

    def draw_look(
        self,
        uniform: Callable[[int], Tensor],
        channels: int,
    ) -> Drawn:
        """Draw the outline and the built-in alterations, in the order in which they were always drawn."""
        warp, colour, curve, noise = self.alterations[:BUILT_IN]
        drawn = colour.draw(uniform, channels)
        drawn["outline"] = self.outline.draw(uniform)
        drawn |= warp.draw(uniform, channels)
        drawn |= noise.draw(uniform, channels)
        drawn |= curve.draw(uniform, channels)
        return drawn

    def draw_further(
        self,
        uniform: Callable[[int], Tensor],
        channels: int,
    ) -> Drawn:
        """Draw the further alterations, which come last: they change nothing that was drawn before."""
        drawn: Drawn = {}
        for alteration in self.alterations[BUILT_IN:]:
            drawn |= alteration.draw(uniform, channels)
        return drawn
