"""Count scores in fine bins of bounded number, whatever their range: curves over all pixels at constant memory."""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Keys = npt.NDArray[np.int64]
SIGN = np.int64(2**31)
SMALLEST = int(np.float32(2.0**-40).view(np.int32))  # nearer to 0 there is no difference: saves octaves of empty bins


def keys_of(values: npt.NDArray[np.float32]) -> Keys:
    """Whole numbers in the order of the float32 values: their bits, those of negative ones turned around."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.int32).astype(np.int64)
    size: Keys = np.maximum((bits & (SIGN - 1)) - SMALLEST, 0)
    signed: Keys = np.where(bits >= 0, size, -size)
    return signed


def value_of(key: int) -> float:
    """The float32 value of a key."""
    size = 0.0 if key == 0 else float(np.int32(abs(key) + SMALLEST).view(np.float32))
    return size if key >= 0 else -size


class ScoreBins:
    """Sums by score, in bins that are 2^shift neighbouring float32 numbers wide: their relative width is constant.

    Bins are added where scores fall outside, and joined two by two where they would become too many.

    Args:
        rows: Sums kept for each bin.
        most: Largest number of bins; a power of 2.
    """

    def __init__(self, rows: int, most: int) -> None:
        self.most = most
        self.shift = 0
        self.first = 0  # key of the first bin, in units of bins
        self.sums: Array = np.zeros((rows, 0))

    def cover(self, low: int, high: int) -> None:
        """Hold the keys from low to high, too."""
        if self.sums.shape[1]:
            low = min(low, self.first << self.shift)
            high = max(high, ((self.first + self.sums.shape[1]) << self.shift) - 1)
        shift = self.shift
        while (high >> shift) - (low >> shift) >= self.most:
            shift += 1
        count = (high >> shift) - (low >> shift) + 1
        if (low >> shift, shift, count) == (self.first, self.shift, self.sums.shape[1]):
            return
        grown = np.zeros((len(self.sums), count))
        old = (np.arange(self.sums.shape[1]) + self.first) >> (shift - self.shift)
        for row, sums in zip(grown, self.sums, strict=True):
            row += np.bincount(old - (low >> shift), sums, minlength=count)
        self.first = low >> shift
        self.shift = shift
        self.sums = grown

    def index(self, keys: Keys) -> Keys:
        """The bin of each key."""
        return (keys >> self.shift) - self.first

    def add(self, keys: Keys, *weights: Array) -> None:
        """Add, for each row, the weights (N,) at the keys (N,)."""
        self.cover(int(keys.min()), int(keys.max()))
        index = self.index(keys)
        first = int(index.min())
        for row, weight in zip(self.sums, weights, strict=True):
            counts = np.bincount(index - first, weight)
            row[first : first + len(counts)] += counts

    def lower_edges(self) -> Keys:
        """The smallest key of each bin."""
        return (np.arange(self.sums.shape[1]) + self.first) << self.shift


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
            low = min(low, self.first << self.shift)
            high = max(high, (self.first + count - 2) << self.shift)
        shift = self.shift
        while (high >> shift) - (low >> shift) + 2 > self.most:
            shift += 1
        first = low >> shift
        if (first, shift, (high >> shift) + 2 - first) == (self.first, self.shift, count):
            return
        edges = np.arange(first, (high >> shift) + 2) << shift  # keys
        before = self.edges()
        if count:
            self.sums = np.stack([
                np.interp(edges, before, sums, left=whole, right=0.0)
                for sums, whole in zip(self.sums, self.everything, strict=True)
            ])  # fmt: skip
        else:
            self.sums = np.zeros((2, len(edges)))
        self.first = first
        self.shift = shift

    def add(self, keys: Keys, mask: npt.NDArray[np.bool_]) -> None:
        """Take in one image with a lesion: keys and mask, both flat."""
        self.cover(int(keys.min()), int(keys.max()))
        index = (keys >> self.shift) - self.first
        bins = self.sums.shape[1]
        # Counts at or above the lower edge of each bin.
        found = np.bincount(index, minlength=bins)[::-1].cumsum()[::-1]
        hits = np.bincount(index[mask], minlength=bins)[::-1].cumsum()[::-1]
        total = int(mask.sum())
        dice = 2 * hits / (found + total)
        iou = hits / (found + total - hits)
        self.sums += np.stack([dice, iou])
        self.everything += [2 * total / (len(keys) + total), total / len(keys)]
        self.images += 1

    def edges(self) -> Keys:
        """The thresholds as keys: what is at least as high counts as found."""
        return (np.arange(self.sums.shape[1]) + self.first) << self.shift
