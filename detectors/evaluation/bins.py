"""Count scores in fine bins of bounded number, whatever their range: curves over all pixels at constant memory."""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Keys = npt.NDArray[np.int64]
SIGN = np.int64(2**31)
SMALLEST = int(np.float32(2.0**-40).view(np.int32))  # scores nearer to 0 count as 0: saves bins


def keys_of(values: npt.NDArray[np.float32]) -> Keys:
    """Whole numbers in the order of the float32 values: their bit patterns, negated for negative values."""
    floats = np.ascontiguousarray(values, dtype=np.float32)
    bits = floats.view(np.int32).astype(np.int64)
    without_sign = bits & (SIGN - 1)
    size: Keys = np.maximum(without_sign - SMALLEST, 0)
    signed: Keys = np.where(bits >= 0, size, -size)
    return signed


def value_of(key: int) -> float:
    """The float32 value whose bit pattern a key holds."""
    if key == 0:
        return 0.0
    bits = np.int32(abs(key) + SMALLEST)
    size = float(bits.view(np.float32))
    return size if key > 0 else -size


class ScoreBins:
    """Sums by score of normal pixels, of pixels of lesions and of these pixels' weights.

    A bin is 2^shift neighbouring float32 numbers wide: the relative width is constant. Bins are added where scores fall
    outside, and joined two by two where they would become too many.

    Args:
        most: Largest number of bins; a power of 2.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.shift = 0
        self.first = 0  # key of the first bin, in units of bins
        self.sums: Array = np.zeros((3, 0))

    def cover(self, low: int, high: int) -> None:
        """Hold the keys from low to high, too."""
        rows, bins = self.sums.shape
        if bins:
            end = self.first + bins
            old_low = self.first << self.shift
            old_high = (end << self.shift) - 1
            low = min(low, old_low)
            high = max(high, old_high)
        shift = self.shift
        while (high >> shift) - (low >> shift) >= self.most:
            shift += 1
        first = low >> shift
        last = high >> shift
        count = last - first + 1
        if (first, shift, count) == (self.first, self.shift, bins):
            return
        # Room for what the next batches may bring: growing copies, while zeros that nobody writes cost nothing.
        room = min(count // 4, (self.most - count) // 2)
        first -= room
        grown = np.zeros((rows, count + 2 * room))
        used = self.used()
        joined = shift - self.shift  # 2^joined old bins fall into a new one
        target = ((used + self.first) >> joined) - first
        for row, sums in zip(grown, self.sums, strict=True):
            np.add.at(row, target, sums[used])
        self.first = first
        self.shift = shift
        self.sums = grown

    def index(self, keys: Keys) -> Keys:
        """The bin of each key."""
        return (keys >> self.shift) - self.first

    def add(self, keys: Keys, lesion: npt.NDArray[np.bool_], weights: Array) -> None:
        """Add pixels (N,): normal ones to the first row, those of lesions to the second, and to the third by weight."""
        self.cover(int(keys.min()), int(keys.max()))
        index = self.index(keys)
        normal, lesions, weight = self.sums
        np.add.at(normal, index[~lesion], 1.0)
        in_lesion = index[lesion]
        np.add.at(lesions, in_lesion, 1.0)
        np.add.at(weight, in_lesion, weights[lesion])

    def used(self) -> Keys:
        """Numbers of the bins that hold pixels."""
        pixels = self.sums[0] + self.sums[1]
        return np.flatnonzero(pixels)

    def lower_edges(self, numbers: Keys) -> Keys:
        """The smallest key of each of these bins."""
        return (numbers + self.first) << self.shift


class OverlapCurves:
    """Sums, over images, of Dice and IoU as functions of the threshold, exact on at most `most` thresholds.

    New thresholds are multiples of old ones or lie outside them, so that what was summed stays exact.
    """

    def __init__(self, most: int = 2**14) -> None:
        self.most = most
        self.images = 0
        self.shift = 0
        self.first = 0
        self.everything = np.zeros(2)  # sums at thresholds below all scores, where every pixel is found
        self.sums: Array = np.zeros((2, 0))  # at the lower edge of each bin, in units of 2^shift keys

    def cover(self, low: int, high: int) -> None:
        """Hold thresholds from low to high, too; below the old ones everything is found, above them nothing."""
        count = self.sums.shape[1]
        if count:
            last = self.first + count - 2
            old_low = self.first << self.shift
            old_high = last << self.shift
            low = min(low, old_low)
            high = max(high, old_high)
        shift = self.shift
        while (high >> shift) - (low >> shift) + 2 > self.most:
            shift += 1
        first = low >> shift
        end = (high >> shift) + 2
        if (first, shift, end - first) == (self.first, self.shift, count):
            return
        edges = np.arange(first, end) << shift  # keys
        grown = np.zeros((2, len(edges)))
        if count:
            before = self.edges()
            for row, sums, whole in zip(grown, self.sums, self.everything, strict=True):
                row[:] = np.interp(edges, before, sums, left=whole, right=0.0)
        self.sums = grown
        self.first = first
        self.shift = shift

    def add(self, keys: Keys, mask: npt.NDArray[np.bool_]) -> None:
        """Take in one image with a lesion: keys and mask, both flat."""
        self.cover(int(keys.min()), int(keys.max()))
        index = (keys >> self.shift) - self.first
        bins = self.sums.shape[1]
        # Counts at or above the lower edge of each bin.
        pixels_in_bin = np.bincount(index, minlength=bins)
        lesion_in_bin = np.bincount(index[mask], minlength=bins)
        found = sums_from_above(pixels_in_bin)
        hits = sums_from_above(lesion_in_bin)
        total = int(mask.sum())
        both = found + total
        self.sums[0] += 2 * hits / both  # Dice
        self.sums[1] += hits / (both - hits)  # IoU
        pixels = len(keys)
        self.everything[0] += 2 * total / (pixels + total)
        self.everything[1] += total / pixels
        self.images += 1

    def edges(self) -> Keys:
        """The thresholds as keys: what is at least as high counts as found."""
        _, bins = self.sums.shape
        numbers = np.arange(bins) + self.first
        return numbers << self.shift


def sums_from_above(counts: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """For each bin, the sum of its count and of all higher bins'."""
    highest_first = counts[::-1]
    return highest_first.cumsum()[::-1]
