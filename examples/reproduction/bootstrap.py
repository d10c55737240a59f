"""AUROCs of resampled patients: their intervals, and those of paired differences."""

import numpy as np

RESAMPLES = 2000


def resampled_weights(groups: np.ndarray, seed: int = 0) -> np.ndarray:
    """How often each of M images counts, in the sample itself and in resamples of its groups (patients): (1 + R, M)."""
    names, index = np.unique(groups, return_inverse=True)
    drawn = np.random.default_rng(seed).integers(len(names), size=(RESAMPLES, len(names)))
    counts = np.stack([np.bincount(row, minlength=len(names)) for row in drawn])
    return np.concatenate([np.ones((1, len(groups))), counts[:, index]])


def mean_auroc(runs: list[np.ndarray], labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted AUROC, averaged over runs: scores (M,) and weights (1 + R, M) -> (1 + R,).

    A resample repeats an image as often as its group was drawn, so an AUROC is a weighted share of the pairs (normal,
    abnormal) in the right order.
    """
    abnormal = labels == 1
    heavy = weights[:, abnormal]
    light = weights[:, ~abnormal]
    pairs = heavy.sum(1) * light.sum(1)
    values = []
    for scores in runs:
        above = scores[abnormal][:, None] > scores[~abnormal][None]
        equal = scores[abnormal][:, None] == scores[~abnormal][None]
        right = ((heavy @ (above + 0.5 * equal)) * light).sum(1)
        values.append(right / np.where(pairs > 0, pairs, np.nan))
    return np.mean(values, axis=0)


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """The sample's value and the 95 % interval of the resamples': (1 + R,), the sample first."""
    low, high = np.nanpercentile(values[1:], [2.5, 97.5])
    return float(values[0]), float(low), float(high)


def paired_difference(
    ours: list[np.ndarray], theirs: list[np.ndarray], labels: np.ndarray, groups: np.ndarray, seed: int = 0
) -> tuple[float, float, float]:
    """Mean AUROC of some runs minus that of others, with its 95 % interval over resampled groups (patients)."""
    weights = resampled_weights(groups, seed)
    return interval(mean_auroc(ours, labels, weights) - mean_auroc(theirs, labels, weights))
