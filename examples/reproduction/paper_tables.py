"""The paper's Tables 1 and 3 and Fig. 6 with our figures, as markdown: a line per method, two columns per data set."""

from typing import NamedTuple

import numpy as np
from bootstrap import interval, mean_auroc, resampled_weights
from results import Line, settings_of

OWN = "own"  # the detector of a row that brings its score


class Method(NamedTuple):
    """A line of a table: an encoder and what judges it."""

    label: str
    row: str
    detector: str


TABLE_1 = (
    Method("DAE", "dae", OWN),
    Method("OCGAN", "ocgan", OWN),
    Method("f-AnoGAN", "f-anogan", OWN),
    Method("ADGAN", "adgan", OWN),
    Method("MS-SSIM auto-encoder", "ms-ssim-ae", OWN),
    Method("PANDA", "panda", OWN),
    Method("PaDiM", "start", "padim"),
    Method("PaDiM, calibrated", "start-calibrated", "padim"),
    Method("CCD - PaDiM", "ccd", "padim"),
    Method("MSACL - PaDiM", "msacl", "padim"),
    Method("IGD, calibrated", "start-calibrated", "igd"),
    Method("CCD - IGD", "ccd", "igd"),
    Method("MSACL - IGD", "msacl", "igd"),
    # Beyond the paper: bars on the same frozen features.
    Method("nearest neighbours", "start-calibrated", "knn"),
    Method("memory bank of patches", "start-calibrated", "patchcore"),
    Method("KDE", "start-calibrated", "kde"),
    Method("linear OC-SVM", "start-calibrated", "ocsvm"),
)
FIGURE_6 = (
    Method("ImageNet", "start", "padim"),
    Method("ImageNet, calibrated", "start-calibrated", "padim"),
    Method("SimCLR", "simclr", "padim"),
    Method("Rot-Net", "rotnet", "padim"),
    Method("CSI", "csi", "padim"),
    Method("DROC", "droc", "padim"),
    Method("DROC with its KDE", "droc", "kde"),
    Method("DROC with its OC-SVM", "droc", "ocsvm"),
    Method("CCD", "ccd", "padim"),
    Method("MSACL", "msacl", "padim"),
)
ABLATIONS = (
    Method("CCD", "ccd", "padim"),
    Method("CCD with MedMix", "ccd+medmix", "padim"),
    Method("MSACL without kappa", "msacl-no-kappa", "padim"),
    Method("MSACL", "msacl", "padim"),
    Method("MSACL, rotation for MedMix", "msacl-rotation", "padim"),
    Method("MSACL, permutation for MedMix", "msacl-permutation", "padim"),
    Method("MSACL, CutMix for MedMix", "msacl-cutmix", "padim"),
    Method("MSACL, noise for MedMix", "msacl-noise", "padim"),
)

Runs = dict[str, np.ndarray]  # scores (M,) by seed


class SetOfRuns:
    """All finished runs on one data set: their AUROCs on the test images and on resamples of the patients."""

    def __init__(self, scores: list[Line], images: list[Line]) -> None:
        self.labels = np.array([int(line["label"]) for line in images])
        self.weights = resampled_weights(np.array([line["group"] for line in images]))
        self.runs: dict[tuple[str, str, str], Runs] = {}
        latest: dict[tuple[str, str, str], tuple[str, str]] = {}
        for line in scores:
            if " of " in line["epochs"] or line["rule"] == "top tenth":
                continue
            settings = settings_of(line)
            parts = [part for part in settings.split() if not part.startswith("igd_")]  # they are part of the method
            key = (line["row"], line["detector"], " ".join(parts))
            run = (line["epochs"], settings)
            if latest.setdefault(key, run) != run:  # trained differently: the last one in the file counts
                latest[key] = run
                self.runs[key] = {}
            self.runs.setdefault(key, {})[line["seed"]] = np.array(line["scores"].split(), dtype=float)
        self.aurocs = {
            key: mean_auroc(list(runs.values()), self.labels, self.weights) for key, runs in self.runs.items()
        }

    def cells(self, method: Method, settings: str) -> tuple[str, str]:
        """AUROC (mean over seeds, interval, number of seeds) and what MSACL has more: under IGD for IGD, else PaDiM."""
        key = (method.row, method.detector, settings)
        if key not in self.aurocs:
            return "-", "-"
        value, low, high = interval(self.aurocs[key])
        own = f"{value:.3f} [{low:.3f}, {high:.3f}], {len(self.runs[key])}"
        reference = ("msacl", "igd" if method.detector == "igd" else "padim", settings)
        if key == reference or reference not in self.aurocs:
            reference = (*reference[:2], "")  # other settings of MSACL, or a row without training
        if key == reference or reference not in self.aurocs:
            return own, "-"
        value, low, high = interval(self.aurocs[reference] - self.aurocs[key])
        return own, f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"


def print_paper_tables(scores: list[Line], images: list[Line]) -> None:
    """Print the tables for all data sets."""
    sets = {}
    for name, size in dict.fromkeys((line["data"], line["size"]) for line in scores):
        own_scores = [line for line in scores if (line["data"], line["size"]) == (name, size)]
        own_images = [line for line in images if line["data"] == name]
        sets[f"{name}, {size} px"] = SetOfRuns(own_scores, own_images)
    titles = {"Table 1": TABLE_1, "Fig. 6 right": FIGURE_6, "Table 3 and Fig. 6 left (there under IGD)": ABLATIONS}
    for title, methods in titles.items():
        print(f"\n### The paper's {title}\n")
        print("Image AUROC: mean over seeds, 95 % interval over patients, number of seeds.")
        print("MSACL minus it: MSACL under PaDiM, beside IGD under IGD; intervals are paired.\n")
        header = ["method", *(cell for name in sets for cell in (name, "MSACL minus it"))]
        _print_row(header)
        _print_row(["---"] * len(header))
        for method in methods:
            _print_method(method, list(sets.values()), with_settings=methods is ABLATIONS)


def _print_method(method: Method, sets: list[SetOfRuns], with_settings: bool) -> None:
    """Print a line for each of the settings that a method ran with, or for its defaults alone where it has them."""
    keys = [key for one in sets for key in one.runs if key[:2] == (method.row, method.detector)]
    settings_of_runs = list(dict.fromkeys(settings for _, _, settings in keys))
    if "" in settings_of_runs and not with_settings:
        settings_of_runs = [""]
    for settings in settings_of_runs:
        cells = [cell for one in sets for cell in one.cells(method, settings)]
        _print_row([f"{method.label} ({settings})" if settings else method.label, *cells])


def _print_row(cells: list[str]) -> None:
    print("| " + " | ".join(cells) + " |")
