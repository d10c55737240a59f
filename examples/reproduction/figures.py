"""Draw what the tables say: heat maps of several encoders side by side, their features, AUROC against epochs.

    python examples/reproduction/figures.py maps --data DIR --encoders OUT/encoders/*-8-0.pt
    python examples/reproduction/figures.py features --data DIR --encoders OUT/encoders/*-8-0.pt
    python examples/reproduction/figures.py curve --table benchmarks/results/effect.csv --data-name mri_lgg_flair

The start from ImageNet, calibrated, always comes first. Maps are drawn without the images, which not every licence lets
one publish.
"""

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import matplotlib
import torch
import tyro
from data import Batches, Dataset, read_folder
from detecting import IGDSetting, fit_detector
from networks.encoders import calibrated, load_backbone, make_backbone
from results import Line, read_csv, settings_of
from sklearn.manifold import TSNE
from torch import Tensor, nn
from training import Setting

matplotlib.use("Agg")  # a file is written, no window is opened
import matplotlib.pyplot as plt
from matplotlib.ticker import MaxNLocator

COLOURS = ("tab:gray", "tab:orange", "tab:blue", "tab:green")


@dataclass
class Options:
    """The command line."""

    figure: tyro.conf.Positional[Literal["maps", "features", "curve"]]
    """What to draw."""
    data: Path | None = None
    """Data set, for maps and features."""
    encoders: tuple[Path, ...] = ()
    """Encoders that `run.py` keeps, for maps and features."""
    table: Path = Path("benchmarks/results/effect.csv")
    """CSV of `run.py`, for the curve."""
    data_name: str = "mri_lgg_flair"
    """Data set whose curve is drawn."""
    size: int = 64
    """Side of the images in pixels."""
    columns: int = 8
    """Images in a row of maps."""
    out: Path = field(default=Path("figure.png"))
    """File to write."""


def draw_maps(data: Dataset, backbones: dict[str, nn.Module], columns: int, file: Path) -> None:
    """Draw the masks and each encoder's PaDiM maps of abnormal test images; an encoder's maps share a colour scale."""
    chosen = _evenly((data.labels == 1).nonzero()[:, 0], columns)
    rows: dict[str, tuple[Tensor, float, float]] = {}
    if data.masks is not None:
        rows["lesion (truth)"] = (data.masks[chosen, 0].float(), 0.0, 1.0)
    for name, backbone in backbones.items():
        detector = fit_detector("padim", backbone, data.train, Setting(), IGDSetting())
        with torch.inference_mode():
            every = torch.cat([detector(batch).anomaly_map[:, 0] for batch in Batches(data.test, batch_size=32)])
        # From the median to the highest value that a normal image reaches, and a little above.
        normal = every[data.labels == 0]
        rows[name] = (every[chosen], float(normal.median()), float(normal.max()))
    figure, axes = plt.subplots(len(rows), columns, figsize=(1.3 * columns, 1.35 * len(rows)), squeeze=False)
    for axis_row, (name, (panels, low, high)) in zip(axes, rows.items(), strict=True):
        for axis, panel in zip(axis_row, panels, strict=True):
            is_mask = name == "lesion (truth)"
            axis.imshow(panel.numpy(), cmap="gray" if is_mask else "inferno", vmin=low, vmax=high)
            axis.set(xticks=[], yticks=[])
        axis_row[0].set_ylabel(name, fontsize=8)
    _save(figure, file)


def draw_features(data: Dataset, backbones: dict[str, nn.Module], file: Path) -> None:
    """Draw the pooled features of the test images in two dimensions (t-SNE), as the paper's Fig. 1 does."""
    figure, axes = plt.subplots(1, len(backbones), figsize=(3.2 * len(backbones), 3.4), squeeze=False)
    for axis, (name, backbone) in zip(axes[0], backbones.items(), strict=True):
        with torch.inference_mode():
            features = torch.cat([backbone(batch) for batch in Batches(data.test, batch_size=64)])
        perplexity = min(30, len(features) / 4)
        points = TSNE(init="pca", random_state=0, perplexity=perplexity).fit_transform(features.numpy())
        for label, kind, colour in ((0, "normal", "tab:blue"), (1, "abnormal", "tab:red")):
            own = points[(data.labels == label).numpy()]
            axis.scatter(own[:, 0], own[:, 1], s=8, color=colour, label=kind)
        axis.set(xticks=[], yticks=[], title=name)
    axes[0, 0].legend(fontsize=8)
    _save(figure, file)


def draw_curve(lines: list[Line], name: str, file: Path) -> None:
    """Draw AUROC (PaDiM, maximum) and class accuracy against epochs, mean over seeds."""
    own = [line for line in lines if (line["data"], line["detector"], settings_of(line)) == (name, "padim", "")]
    started = [float(line["image_auroc"]) for line in own if line["row"] == "start-calibrated"]
    if not started:
        raise ValueError(f"expected lines of {name} with PaDiM in the CSV, found none for the calibrated start")
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2))
    for row, colour in zip(("ccd", "msacl"), COLOURS[1:], strict=False):
        points = _points([line for line in own if line["row"] == row])
        if not points:
            continue
        epochs = sorted(points)
        aurocs = [sum(started) / len(started), *(points[epoch][0] for epoch in epochs)]
        left.plot([0, *epochs], aurocs, "o-", color=colour, label=row)
        right.plot(epochs, [points[epoch][1] for epoch in epochs], "o-", color=colour, label=row)
    left.set(xlabel="epochs", ylabel="image AUROC", title=name)
    right.set(xlabel="epochs", ylabel="accuracy of term (8)", ylim=(0, 1))
    left.legend()
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _save(figure, file)


def _points(lines: list[Line]) -> dict[int, tuple[float, float]]:
    """Mean AUROC and accuracy by epoch, "2 of 8" or "8", of the longest trainings alone."""
    longest = max((int(line["epochs"].split()[-1]) for line in lines), default=0)
    found: dict[int, list[tuple[float, float]]] = {}
    for line in lines:
        parts = line["epochs"].split()
        if int(parts[-1]) == longest:
            epoch = int(parts[0])
            found.setdefault(epoch, []).append((float(line["image_auroc"]), float(line["accuracy"])))
    points = {}
    for epoch, values in found.items():
        aurocs, accuracies = zip(*values, strict=True)
        points[epoch] = (sum(aurocs) / len(values), sum(accuracies) / len(values))
    return points


def _evenly(rows: Tensor, count: int) -> Tensor:
    """`count` of the rows, spread evenly."""
    return rows[torch.linspace(0, len(rows) - 1, count).long()]


def _save(figure: plt.Figure, file: Path) -> None:
    figure.tight_layout(pad=0.5)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)
    plt.close(figure)
    print(f"saved {file}")


def _backbones(data: Dataset, files: tuple[Path, ...]) -> dict[str, nn.Module]:
    """The calibrated start and the encoders, by the row in their file's name."""
    backbones = {"start": calibrated(make_backbone("efficientnet_lite0", "imagenet"), data.train)}
    for file in files:
        row = re.search(r"-(ccd|msacl|simclr|csi|droc|rotnet)", file.stem)
        backbones[row.group(1) if row else file.stem] = load_backbone(file)
    return backbones


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    options = tyro.cli(Options, description=__doc__, args=arguments)
    try:
        if options.figure == "curve":
            draw_curve(read_csv(options.table), options.data_name, options.out)
            return
        if options.data is None:
            raise ValueError("expected --data for maps and features")
        data = read_folder(options.data, options.size)
        backbones = _backbones(data, options.encoders)
        if options.figure == "maps":
            draw_maps(data, backbones, options.columns, options.out)
        else:
            draw_features(data, backbones, options.out)
    except (ValueError, RuntimeError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
