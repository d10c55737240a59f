"""Search each row's learning rate on one budget and without a test image of the set.

    python examples/reproduction/search.py --data mri_lgg_flair --donors kvasir_seg_patch --out rates.csv
    python examples/reproduction/search.py --table rates.csv

Each row is trained for a few steps with each factor on the recipe's rates, and PaDiM on it is judged as `choose.py`
does: held-out healthy images without and with pasted lesions, cut from the test images of another set. One CSV line per
training; those that have a line are skipped. The factor with the best image AUROC on a set becomes the row's in
`rows.py`, unless 1 is as good to .005: for all layers on a grey set, for the late ones on a set with colours.
"""

import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean
from typing import Annotated

import tyro
from choose import judging_set
from data import Dataset
from detecting import IGDSetting, judge
from networks.encoders import calibrated, make_backbone
from results import append_csv, read_csv
from rows import Recipe, recipe_for
from training import Setting, pretrain

Flat = tyro.conf.OmitArgPrefixes
METRICS = ("image_auroc", "image_auroc_top", "pixel_auroc")
KEY = ("data", "donors", "size", "start", "row", "factor", "steps", "seed")
COLUMNS = (*KEY, "epochs", *METRICS, "accuracy", "seconds")
START = "start-calibrated"
RESOLUTION = 0.005  # image AUROC; the judge tells settings apart by hundredths


@dataclass
class Options:
    """The command line."""

    data: Path | None = None
    """Data set whose healthy training images are used."""
    donors: Path | None = None
    """Another data set with masks, whose lesions are pasted."""
    rows: tuple[str, ...] = ("simclr", "rotnet", "csi", "droc", "ccd", "msacl")
    """Rows of the comparison."""
    factors: tuple[float, ...] = (0.3, 1.0, 3.0)
    """Factors on the learning rates of the recipe."""
    steps: int = 48
    """Steps of each training, in whole epochs."""
    size: int = 64
    """Side of the images in pixels."""
    out: Path = Path("rates.csv")
    """CSV file that gets a line per training."""
    table: Path | None = None
    """Only print the table of this CSV."""
    setting: Annotated[Setting, Flat] = field(default_factory=Setting)


def search(options: Options) -> None:
    """Train and judge what the CSV does not hold yet."""
    if options.data is None or options.donors is None:
        raise ValueError("expected --data and --donors, two data sets; or --table, a CSV file of an earlier search")
    data = judging_set(options.data, options.donors, options.size)
    setting = options.setting
    names = (options.data.resolve().name, options.donors.resolve().name)
    done = {tuple(line[column] for column in KEY) for line in read_csv(options.out)}
    runs = [(START, 0.0), *((row, factor) for row in options.rows for factor in options.factors)]
    for row, factor in runs:
        key = (*names, str(options.size), setting.start, row, f"{factor:.4f}", str(options.steps), str(setting.seed))
        if key not in done:
            figures = train_and_judge(data, row, factor, options)
            append_csv(options.out, COLUMNS, [dict(zip(KEY, key, strict=True)) | figures])


def train_and_judge(data: Dataset, row: str, factor: float, options: Options) -> dict[str, object]:
    """Train a row with a factor on its rates, and judge it; the start needs no training."""
    setting = options.setting
    began = time.perf_counter()
    last: dict[str, float] = {}
    epochs = 0
    if row == START:
        backbone = calibrated(make_backbone(setting.architecture, setting.init), data.train)
    else:
        recipe = recipe_for(row, Recipe(), len(data.train), options.steps)
        scaled = replace(recipe, rates=(factor, factor))
        epochs = recipe.epochs
        backbone = pretrain(data.train, scaled, setting, on_epoch=lambda _, statistics: last.update(statistics))
    seconds = time.perf_counter() - began
    metrics = judge("padim", backbone, data, setting, IGDSetting()).metrics
    return {"epochs": epochs, "accuracy": last.get("accuracy", ""), "seconds": seconds} | metrics


def print_table(file: Path) -> None:
    """Print image AUROC (of the maximum; of the top tenth) by row, set and factor, and the best factors."""
    lines = read_csv(file)
    sets = list(dict.fromkeys(line["data"] for line in lines))
    factors = sorted({float(line["factor"]) for line in lines} - {0.0})
    header = ["row", *(f"{name}, {column}" for name in sets for column in (*(f"x {f:g}" for f in factors), "best"))]
    print("| " + " | ".join(header) + " |")
    print("|" + " --- |" * len(header))
    for row in dict.fromkeys(line["row"] for line in lines):
        own = [line for line in lines if line["row"] == row]
        cells = []
        for name in sets:
            of_set = [line for line in own if line["data"] == name]
            cells += [_cell([x for x in of_set if float(x["factor"]) in (0.0, factor)]) for factor in factors]
            cells.append("-" if row == START or not of_set else f"{best_factor(of_set):g}")
        print("| " + " | ".join([row, *cells]) + " |")


def best_factor(lines: list[dict[str, str]]) -> float:
    """The factor with the best mean image AUROC of a row's lines on a set, among those tried with the most seeds.

    1, the recipe's own rate, where it is as good.
    """
    by_factor: dict[float, list[float]] = {}
    for line in lines:
        by_factor.setdefault(float(line["factor"]), []).append(float(line["image_auroc"]))
    most = max(len(values) for values in by_factor.values())
    means = {factor: mean(values) for factor, values in by_factor.items() if len(values) == most}
    best = max(means, key=lambda factor: means[factor])
    usual = means.get(1.0)
    return 1.0 if usual is not None and means[best] - usual < RESOLUTION else best


def _cell(lines: list[dict[str, str]]) -> str:
    if not lines:
        return "-"
    figures = [mean(float(line[metric]) for line in lines) for metric in METRICS[:2]]
    return f"{figures[0]:.3f} ({figures[1]:.3f})"


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    options = tyro.cli(Options, description=__doc__, args=arguments)
    try:
        if options.table is None:
            search(options)
        print_table(options.table or options.out)
    except (ValueError, RuntimeError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
