"""Paired intervals equal a loop over resampled patients."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from tables import RESAMPLES, paired_difference, summary


def test_interval_equals_a_loop_over_resampled_patients() -> None:
    random = np.random.default_rng(1)
    labels = np.repeat([0, 1], 20)
    groups = np.array([f"p{i % 13}" for i in range(40)])
    ours = [labels + random.normal(size=40) for _ in range(2)]
    theirs = [np.round(labels + 2 * random.normal(size=40))]  # with ties
    difference, low, high = paired_difference(ours, theirs, labels, groups)

    def mean_auroc(runs: list[np.ndarray], rows: np.ndarray) -> float:
        return float(np.mean([roc_auc_score(labels[rows], scores[rows]) for scores in runs]))

    assert difference == pytest.approx(mean_auroc(ours, np.arange(40)) - mean_auroc(theirs, np.arange(40)))
    names = np.unique(groups)
    drawn = np.random.default_rng(0).integers(len(names), size=(RESAMPLES, len(names)))
    looped = []
    for chosen in drawn[:300]:
        rows = np.concatenate([np.flatnonzero(groups == names[i]) for i in chosen])
        looped.append(mean_auroc(ours, rows) - mean_auroc(theirs, rows))
    expected = np.percentile(looped, [2.5, 97.5])
    assert [low, high] == pytest.approx(expected, abs=0.03)
    assert low < difference < high


def test_summary() -> None:
    assert summary(["0.5", "0.7"]) == "0.600 ± 0.141"
    assert summary(["0.5"]) == "0.500"
    assert summary([""]) == "-"
