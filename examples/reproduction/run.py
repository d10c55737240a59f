"""The paper's comparison on your data: pre-trained encoders, judged by detectors.

    python examples/reproduction/run.py --data DIR [DIR ...] --rows start-calibrated ccd msacl --seeds 3
    python examples/reproduction/run.py --table benchmarks/results/effect.csv      # tables and intervals, from the CSV

One CSV line per run; runs that have a line are skipped, so a stopped command goes on when repeated. Encoders are kept:
another detector trains none anew. The length of a training is fixed and its last state is taken: no choice ever sees a
test image. README.md beside this file lists the rows.
"""

import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import torch
import tyro
from baselines import trivial_scores
from data import Dataset, read_folder
from detecting import DetectorName, IGDSetting, Judgement, detectors_of, judge, judge_detector
from files import check_folder
from networks.encoders import calibrated, load_backbone, make_backbone, save_backbone
from paper_tables import OWN
from results import COLUMNS, KEY, append_csv, append_judgement, key_of, read_csv, remember_images
from rivals.own_rows import GENERATIVE, OWN_ROWS, RivalSetting, fit_rival, rival_epochs, write_curve
from rows import ROWS, START_ROWS, Recipe, changes, recipe_for
from sklearn.metrics import roc_auc_score
from tables import print_tables
from torch import nn
from training import Pretraining, Setting, pretrain

Flat = tyro.conf.OmitArgPrefixes

EPOCHS = ("epochs", "rival_epochs")  # they have a column of their own


@dataclass
class Options:
    """The command line."""

    data: tuple[Path, ...] = ()
    """Folders with train/normal, test/normal, test/abnormal and, optionally, test/masks and manifest.csv."""
    rows: tuple[str, ...] = ("start", "start-calibrated", "ccd", "msacl")
    """Rows of the comparison; "all" for each."""
    detectors: tuple[DetectorName, ...] = ()
    """What judges an encoder; by default padim and knn, and for some rows more (README.md says which)."""
    seeds: int = 1
    """Number of seeds."""
    first_seed: int = 0
    """First seed."""
    size: int = 64
    """Side of the images in pixels."""
    evaluate_at: tuple[int, ...] = ()
    """Epochs after which a training is judged, too; those lines say of how many epochs (for curves)."""
    out: Path = Path("runs/reproduction")
    """Folder of results.csv and the encoders."""
    table: Path | None = None
    """Only print the tables of this CSV."""
    setting: Annotated[Setting, Flat] = field(default_factory=Setting)
    recipe: Annotated[Recipe, Flat] = field(default_factory=Recipe)
    igd: Annotated[IGDSetting, Flat] = field(default_factory=IGDSetting)
    rival: Annotated[RivalSetting, Flat] = field(default_factory=RivalSetting)


class Comparison:
    """Runs what the CSV does not hold yet."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.results = options.out / "results.csv"
        self.num_images = 0  # healthy images of the data set at hand: they decide how long None epochs are
        self.done = {key_of(line) for line in read_csv(self.results)}

    def run(self) -> None:
        """Run every data set, seed and row."""
        options = self.options
        for folder in options.data:
            data = read_folder(folder, options.size)
            self.num_images = len(data.train)
            remember_images(self.results, folder.name, data)
            self.add_trivial_scores(folder.name, data)
            for seed in range(options.first_seed, options.first_seed + options.seeds):
                setting = replace(options.setting, seed=seed)
                for row in options.rows:
                    run_row = self.run_rival if row in OWN_ROWS else self.run_row
                    run_row(folder.name, data, row, setting)

    def run_row(self, name: str, data: Dataset, row: str, setting: Setting) -> None:
        """Train one encoder, unless its file is there, and judge it by each detector."""
        detectors = detectors_of(row, self.options.detectors)
        missing = [d for d in detectors if self.key(name, row, d, setting) not in self.done]
        if not missing:
            return
        began = time.perf_counter()
        backbone, accuracy = self.encoder(name, data, row, setting)
        seconds = time.perf_counter() - began
        for detector in missing:
            key = self.key(name, row, detector, setting)
            self.judge(key, detector, backbone, data, setting, {"accuracy": accuracy, "seconds": seconds})

    def run_rival(self, name: str, data: Dataset, row: str, setting: Setting) -> None:
        """Train a rival that is a row of its own, and judge it by its own score; its losses go to OUT/curves."""
        key = self.key(name, row, OWN, setting)
        if key in self.done:
            return
        began = time.perf_counter()
        detector = fit_rival(row, data.train, setting, self.options.rival)
        seconds = time.perf_counter() - began
        write_curve(detector.history, self.file("curves", name, row, setting, ".csv"))
        self.write(key, judge_detector(detector, data), setting, {"seconds": seconds})

    def encoder(self, name: str, data: Dataset, row: str, setting: Setting) -> tuple[nn.Module, float | str]:
        """The row's backbone, and its accuracy of term (8) in the last epoch."""
        if row in START_ROWS:
            torch.manual_seed(setting.seed)
            start = make_backbone(setting.architecture, setting.init).to(setting.device)
            return (calibrated(start, data.train) if row == "start-calibrated" else start), ""
        recipe = recipe_for(row, self.options.recipe, self.num_images)
        file = self.file("encoders", name, row, setting, ".pt")
        if file.is_file():
            return load_backbone(file).to(setting.device), _accuracy_beside(file)

        def on_epoch(run: Pretraining, row_of_epoch: dict[str, float]) -> None:
            torch.save(row_of_epoch["accuracy"], file.with_suffix(".accuracy"))
            if run.epoch in self.options.evaluate_at and run.epoch < recipe.epochs:
                self.judge_midway(name, data, row, setting, run, row_of_epoch["accuracy"])

        checkpoint = file.with_suffix(".checkpoint")
        backbone = pretrain(data.train, recipe, setting, checkpoint, checkpoint.is_file(), on_epoch)
        save_backbone(backbone, setting.architecture, file)
        checkpoint.unlink()
        return backbone, _accuracy_beside(file)

    def judge_midway(
        self, name: str, data: Dataset, row: str, setting: Setting, run: Pretraining, accuracy: float
    ) -> None:
        """Judge the encoder as it is after some epochs."""
        for detector in detectors_of(row, self.options.detectors):
            key = self.key(name, row, detector, setting, epochs=f"{run.epoch} of {run.recipe.epochs}")
            if key not in self.done:
                self.judge(key, detector, run.finished_backbone(), data, setting, {"accuracy": accuracy})

    def judge(
        self,
        key: tuple[str, ...],
        detector: DetectorName,
        backbone: nn.Module,
        data: Dataset,
        setting: Setting,
        known: dict[str, object],
    ) -> None:
        """Judge an encoder by one detector, and write its lines."""
        judgement = judge(detector, backbone, data, setting, self.options.igd)
        self.write(key, judgement, setting, known)

    def write(self, key: tuple[str, ...], judgement: Judgement, setting: Setting, known: dict[str, object]) -> None:
        """Write the lines of a run, and print what it reached."""
        line = append_judgement(self.results, key, judgement, known | {"device": _device_name(setting.device)})
        self.done.add(key)
        shown = [f"{name} {line[name]}" for name in ("data", "row", "epochs", "detector", "seed")]
        print(", ".join(shown), f"image AUROC {judgement.metrics['image_auroc']:.3f}", flush=True)

    def key(self, name: str, row: str, detector: str, setting: Setting, epochs: str | None = None) -> tuple[str, ...]:
        """What tells a run from every other one, as the CSV spells it."""
        settings: dict[str, object] = {}
        start = setting.start
        if row in OWN_ROWS:
            epochs = str(rival_epochs(row, self.options.rival, self.num_images))
            settings |= changes(self.options.rival)
            start = "" if row in GENERATIVE else start
        elif row not in START_ROWS:
            recipe = recipe_for(row, self.options.recipe, self.num_images)
            epochs = epochs or str(recipe.epochs)
            settings |= changes(self.options.recipe)
            if recipe.rates != (1, 1):
                settings["rates"] = recipe.rates
        if detector == "igd":
            settings |= vars(self.options.igd)
        text = " ".join(f"{k}={v}".replace(" ", "") for k, v in settings.items() if k not in EPOCHS)
        return (name, str(self.options.size), start, row, epochs or "0", text, detector, str(setting.seed))

    def file(self, folder: str, name: str, row: str, setting: Setting, suffix: str) -> Path:
        """Where an encoder or a curve is kept."""
        parts = [part for part in self.key(name, row, "", setting) if part]
        file_name = "-".join(parts).replace(" ", "-").replace("(", "").replace(")", "")
        return self.options.out / folder / f"{file_name}{suffix}"

    def add_trivial_scores(self, name: str, data: Dataset) -> None:
        """What a score without any learning reaches on this test set, as lines of the CSV."""
        for score, values in trivial_scores(data).items():
            key = (name, str(self.options.size), "", "no learning", "0", "", score, "0")
            if key not in self.done:
                auroc = float(roc_auc_score(data.labels, values))
                append_csv(self.results, COLUMNS, [dict(zip(KEY, key, strict=True)) | {"image_auroc": auroc}])


def _accuracy_beside(encoder: Path) -> float | str:
    """Accuracy of term (8) in an encoder's last epoch, which has a file of its own; "" without one."""
    file = encoder.with_suffix(".accuracy")
    return torch.load(file, weights_only=True) if file.is_file() else ""


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name() if device.startswith("cuda") else f"CPU, {torch.get_num_threads()} threads"


def _check(options: Options) -> None:
    """Stop before anything runs if it cannot end well."""
    missing = [str(folder) for folder in options.data if not folder.is_dir()]
    if missing or not options.data:
        raise ValueError(f"--data expects one or more folders; not found: {', '.join(missing) or 'none was given'}")
    names = {folder.resolve().name for folder in options.data}
    if len(names) < len(options.data):
        raise ValueError("--data expects folders of different names, which tell the sets apart in the CSV: rename one")
    if options.seeds < 1:
        raise ValueError("expected --seeds of at least 1")
    for row in options.rows:
        if row not in (*START_ROWS, *OWN_ROWS):
            recipe_for(row, options.recipe, num_images=1)
    check_folder(options.out / "encoders")


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    options = tyro.cli(Options, description=__doc__, args=arguments)
    if options.rows == ("all",):
        options.rows = (*START_ROWS, *ROWS, *OWN_ROWS)
    try:
        if options.table is None:
            _check(options)
            Comparison(options).run()
        elif not options.table.is_file():
            raise ValueError(f"--table expects a CSV file; there is none at {options.table}")
        print_tables(options.table or options.out / "results.csv")
    except (ValueError, RuntimeError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped: the same command goes on where this one was")


if __name__ == "__main__":
    main()
