"""The range of images deeper than 8 bits: 12-bit X-rays in 16-bit files must not come out black."""

import math
import warnings
from dataclasses import dataclass

from torch import Tensor

Range = tuple[float, float]

_UNUSED = 0.25  # of a range: from here on, something is likely wrong


@dataclass
class HeldValues:
    """The values that a folder's deep images hold, gathered file by file.

    Attributes:
        lowest: Smallest value of all.
        highest: Largest value of all.
        whole: Whether all are whole numbers.
        files: How many deep images there were.
    """

    lowest: float = float("inf")
    highest: float = float("-inf")
    whole: bool = True
    files: int = 0

    def add(self, pixels: Tensor) -> None:
        """Take in one deep image (C, H, W)."""
        whole = pixels == pixels.round()
        self.lowest = min(self.lowest, float(pixels.min()))
        self.highest = max(self.highest, float(pixels.max()))
        self.whole = self.whole and bool(whole.all())
        self.files += 1

    def natural_range(self) -> Range | None:
        """Return the range that these values fill; None without a deep image.

        Whole numbers from 0 on fill the fewest bits that hold them (4095 for 12-bit X-rays), fractions up to 1 the
        range (0, 1). All others, such as Hounsfield units, run from the lowest to the highest value.
        """
        if self.files == 0:
            return None
        if self.lowest >= 0 and self.highest <= 1 and not self.whole:
            return 0.0, 1.0
        if self.lowest >= 0 and self.whole:
            bits = max(8, int(self.highest).bit_length())
            return 0.0, 2.0**bits - 1
        if self.lowest == self.highest:  # empty images: a range of one value cannot be divided by
            return self.lowest, self.lowest + 1
        return self.lowest, self.highest

    def warn_unless_filled(self, value_range: Range) -> None:
        """Warn where a quarter of a range is unused."""
        low, high = value_range
        used = (self.highest - self.lowest) / (high - low)
        filled = f"deep_range=({self.lowest:g}, {self.highest:g}) uses all of the range"
        advice = filled if used > 0 else "are they empty?"
        if used <= 1 - _UNUSED:
            warnings.warn(
                f"the images deeper than 8 bits hold {self.lowest:g} to {self.highest:g}, which is {used:.0%} of "
                f"{low:g} to {high:g}: they will look dark or flat; {advice}",
                stacklevel=4,
            )

    def warn_if_cut(self, value_range: Range) -> None:
        """Warn where values lie outside a range that was learnt from other images."""
        low, high = value_range
        if self.lowest < low or self.highest > high:
            warnings.warn(
                f"the images deeper than 8 bits hold {self.lowest:g} to {self.highest:g}, but the detector was fitted "
                f"on {low:g} to {high:g}: what is outside is cut off",
                stacklevel=4,
            )


def check_range(value_range: object) -> Range | None:
    """Refuse what is not (lowest, highest) or None."""
    if value_range is None:
        return None
    if not isinstance(value_range, (tuple, list)) or len(value_range) != 2:
        raise ValueError(f"expected (lowest, highest) or None as deep_range, got {value_range!r}")
    low = float(value_range[0])
    high = float(value_range[1])
    if not -math.inf < low < high < math.inf:
        raise ValueError(f"expected finite lowest < highest in deep_range, got {value_range!r}")
    return low, high


def to_unit(pixels: Tensor, deep_range: Range) -> Tensor:
    """Scale stored values (C, H, W) to floats in [0, 1]: uint8 by 255, deeper ones by their range."""
    if not pixels.is_floating_point():
        return pixels.float() / 255
    low, high = deep_range
    values = (pixels - low) / (high - low)
    return values.clamp(0, 1)
