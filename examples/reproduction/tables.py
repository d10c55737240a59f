"""Tables and confidence intervals from the files of `run.py`, as markdown."""

from pathlib import Path
from statistics import mean, stdev

import numpy as np
from bootstrap import paired_difference
from paper_tables import print_paper_tables
from results import METRICS, Line, images_file, read_csv, scores_file, settings_of

SHOWN = {
    "image_auroc": "image AUROC",
    "image_auroc_top": "its top tenth",
    "pixel_auroc": "pixel AUROC",
    "aupro": "AUPRO",
    "dice": "Dice",
}
RIVALS_OF_MSACL = ("start-calibrated", "ccd")

Runs = dict[str, np.ndarray]  # scores (M,) by seed


def print_tables(results: Path) -> None:
    """Print for each data set its runs and MSACL's differences to the start and to CCD; then the paper's tables."""
    lines = read_csv(results)
    scores = read_csv(scores_file(results))
    images = read_csv(images_file(results))
    for name, size in dict.fromkeys((line["data"], line["size"]) for line in lines):
        print(f"\n### {name}, {size} px\n")
        own = [line for line in lines if (line["data"], line["size"]) == (name, size)]
        print_runs(own)
        own_scores = [line for line in scores if (line["data"], line["size"]) == (name, size)]
        own_images = [line for line in images if line["data"] == name]
        print_differences(own_scores, own_images)
    print_paper_tables(scores, images)


def print_runs(lines: list[Line]) -> None:
    """Print mean and standard deviation over seeds."""
    metrics = [name for name in METRICS if any(line[name] for line in lines)]
    header = ["encoder", "epochs", "settings", "detector", "seeds", *(SHOWN[m] for m in metrics), "class accuracy"]
    _print_row(header)
    _print_row(["---"] * len(header))
    groups: dict[tuple[str, ...], list[Line]] = {}
    for line in lines:
        groups.setdefault(_run_of(line), []).append(line)
    for (row, epochs, settings, detector), group in groups.items():
        cells = [summary([line[name] for line in group]) for name in (*metrics, "accuracy")]
        _print_row([row, epochs, settings, detector, str(len(group)), *cells])


def print_differences(scores: list[Line], images: list[Line]) -> None:
    """Print AUROC differences with 95 % intervals: all seeds of both rows, paired by test image and by group."""
    labels = np.array([int(line["label"]) for line in images])
    groups = np.array([line["group"] for line in images])
    runs: dict[tuple[str, ...], Runs] = {}
    for line in scores:
        runs.setdefault((*_run_of(line), line["rule"]), {})[line["seed"]] = np.array(
            line["scores"].split(), dtype=float
        )
    printed = False
    for run, own in runs.items():
        row, epochs, settings, detector, rule = run
        if not row.startswith("msacl"):
            continue
        for rival in RIVALS_OF_MSACL:
            others = _rival_runs(runs, rival, epochs, settings, detector, rule)
            if others is None:
                continue
            if not printed:
                normal = int((labels == 0).sum())
                print(f"\n{len(set(groups))} groups, {normal} normal and {len(labels) - normal} abnormal images.\n")
                header = ["encoder", "epochs", "settings", "detector", "rule", "minus", "seeds", "image AUROC", "95 %"]
                _print_row(header)
                _print_row(["---"] * len(header))
                printed = True
            difference, low, high = paired_difference(list(own.values()), list(others.values()), labels, groups)
            seeds = f"{len(own)}, {len(others)}"
            cells = [f"{difference:+.3f}", f"[{low:+.3f}, {high:+.3f}]"]
            _print_row([row, epochs, settings, detector, rule, rival, seeds, *cells])


def _run_of(line: Line) -> tuple[str, str, str, str]:
    """What runs of several seeds have in common: row, epochs, settings and detector."""
    return line["row"], line["epochs"], settings_of(line), line["detector"]


def _rival_runs(
    runs: dict[tuple[str, ...], Runs], rival: str, epochs: str, settings: str, detector: str, rule: str
) -> Runs | None:
    """The runs of a rival that a run is compared with: as long, with the same settings; the start has neither."""
    if rival == "start-calibrated":
        kept = [part for part in settings.split() if part.startswith(("igd_", "start="))]
        return runs.get((rival, "0", " ".join(kept), detector, rule))
    return runs.get((rival, epochs, settings, detector, rule))


def summary(values: list[str]) -> str:
    """Mean and standard deviation, or a dash where a run has no such figure."""
    numbers = [float(value) for value in values if value]
    if not numbers:
        return "-"
    return f"{mean(numbers):.3f}" + (f" ± {stdev(numbers):.3f}" if len(numbers) > 1 else "")


def _print_row(cells: list[str]) -> None:
    print("| " + " | ".join(cells) + " |")
