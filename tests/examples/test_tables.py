"""Paired intervals equal a loop over resampled patients."""

import numpy as np
import pytest
from bootstrap import RESAMPLES, paired_difference
from paper_tables import ABLATIONS, FIGURE_6, TABLE_1, print_paper_tables
from results import USUAL_START, settings_of
from rivals.own_rows import OWN_ROWS
from rows import ROWS, START_ROWS
from sklearn.metrics import roc_auc_score
from tables import summary


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


def test_tables_name_every_rival_and_only_rows_that_exist() -> None:
    methods = [*TABLE_1, *FIGURE_6, *ABLATIONS]
    assert {method.row for method in methods} <= {*START_ROWS, *ROWS, *OWN_ROWS}
    assert set(OWN_ROWS) | {"simclr", "rotnet", "csi", "droc", "ccd", "msacl"} <= {method.row for method in methods}


def test_papers_tables_average_seeds_and_pair_images(capsys: pytest.CaptureFixture[str]) -> None:
    images = [{"data": "a", "file": str(i), "label": str(i % 2), "group": f"p{i // 2}"} for i in range(12)]
    right = " ".join(str(i % 2) for i in range(12))
    wrong = " ".join(str(-(i % 2)) for i in range(12))
    runs = [
        ("msacl", "2 of 4", "", "padim", "0", "maximum", wrong),  # midway: no run of the table
        ("msacl", "4", "", "padim", "0", "maximum", right),
        ("msacl", "4", "", "padim", "0", "top tenth", wrong),
        ("msacl", "4", "", "padim", "1", "maximum", right),
        ("dae", "9", "", "own", "0", "score", right),
        ("dae", "9", "", "own", "1", "score", wrong),
        ("simclr", "4", "rates=(0.3,0.3)", "padim", "0", "maximum", wrong),
        ("msacl", "4", "lesion_max=0.3", "padim", "0", "maximum", wrong),
        ("ccd+medmix", "4", "", "padim", "0", "maximum", wrong),
        ("msacl", "4", "igd_epochs=1", "igd", "0", "score", wrong),
        ("ccd", "4", "rates=(0.3,0.3) igd_epochs=1", "igd", "0", "score", right),
    ]
    names = ("row", "epochs", "settings", "detector", "seed", "rule", "scores")
    scores = [{"data": "a", "size": "64", "start": USUAL_START} | dict(zip(names, run, strict=True)) for run in runs]
    print_paper_tables(scores, images)
    table, rest = capsys.readouterr().out.split("Fig. 6 right")
    figure, ablations = rest.split("Table 3 and Fig. 6 left")
    assert "| method | a, 64 px | MSACL minus it |" in table
    assert "| DAE | 0.500 [0.500, 0.500], 2 | +0.500 [+0.500, +0.500] |" in table
    assert "| CCD - IGD | 1.000 [1.000, 1.000], 1 | -1.000 [-1.000, -1.000] |" in table
    assert "| MSACL - PaDiM | 1.000 [1.000, 1.000], 2 | - |" in table
    assert "| SimCLR | 0.000 [0.000, 0.000], 1 | +1.000 [+1.000, +1.000] |" in figure
    assert "| CCD with MedMix | 0.000 [0.000, 0.000], 1 | +1.000 [+1.000, +1.000] |" in ablations
    assert "| MSACL (lesion_max=0.3) | 0.000 [0.000, 0.000], 1 | +1.000 [+1.000, +1.000] |" in ablations
    assert "lesion_max" not in table + figure


def test_settings_leave_out_a_rows_own_rate_and_name_an_unusual_start() -> None:
    line = {"row": "ccd", "start": USUAL_START, "settings": "rates=(0.3,0.3) igd_epochs=1"}
    assert settings_of(line) == "igd_epochs=1"
    assert settings_of(line | {"settings": "rates=(1.0,3.0)"}) == "rates=(1.0,3.0)"
    assert settings_of(line | {"start": "resnet18 random"}) == "igd_epochs=1 start=resnet18-random"
    assert settings_of(line | {"settings": ""}) == "rates=(1.0,1.0)"
    assert settings_of(line | {"row": "msacl", "settings": ""}) == ""
    assert settings_of({"row": "dae", "start": "", "settings": ""}) == ""
