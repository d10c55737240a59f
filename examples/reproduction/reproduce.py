"""The paper's comparison on your data: encoders {random, ImageNet, CCD, MSACL, ablations} x detectors {PaDiM, IGD}.

    python examples/reproduction/reproduce.py --data DIR [DIR ...] --rows start ccd msacl --seeds 3 --epochs 5 --out OUT
    python examples/reproduction/reproduce.py --table OUT/results.csv          # the tables, from the CSV alone

One CSV line per run; runs that have a line are skipped, so a stopped command goes on when repeated. Training length is
fixed and the last state is taken: no choice ever sees a test image. To choose settings (`--set lr=0.003`) use
`--test-set drawn` or `--test-set medmix`: they replace the test set by held-out training images with synthetic lesions.
"""

import argparse
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import torch
from baselines import trivial_scores
from config import Config
from data import Batches, Dataset, labelled_batches, read_folder
from encoders import make_backbone
from figures import save_heat_maps, save_tsne
from pretrain import pretrain
from reproduce_options import ROWS, START_ROWS, check_folders, parse_args, read_settings
from results import KEY, STATISTICS, append_csv, print_tables, read_csv
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.optim.swa_utils import update_bn
from validation import held_out

from detectors import IGD, PaDiM, evaluate


def run_all(args: argparse.Namespace) -> None:
    """Run every combination that the CSV does not hold yet."""
    check_folders(args.data)
    done = {tuple(line[k] for k in KEY) for line in read_csv(args.out / "results.csv")}
    base = Config(args.size, args.arch, args.init, epochs=args.epochs, batch_size=args.batch_size, device=args.device)
    base = replace(base, **read_settings(args.set))
    for folder in args.data:
        data = read_folder(folder, args.size)
        if args.test_set == "real":
            add_trivial_scores(data, folder.name, done, args)
        for seed in range(args.first_seed, args.first_seed + args.seeds):
            shown = data if args.test_set == "real" else held_out(data, args.test_set, seed)
            for row in args.rows:
                keys = [run_key(folder, row, detector, replace(base, seed=seed), args) for detector in args.detectors]
                if any(key not in done for key in keys):
                    run_row(shown, row, replace(base, seed=seed), [key for key in keys if key not in done], args)


def run_key(folder: Path, row: str, detector: str, config: Config, args: argparse.Namespace) -> tuple[str, ...]:
    """What tells a run from every other one, as the CSV spells it."""
    trained = row not in START_ROWS
    igd = [f"igd_{name}={getattr(args, f'igd_{name}')}" for name in ("epochs", "width", "lr", "scales")]
    settings = sorted(args.set) * trained + igd * (detector == "igd")
    values = (folder.name, args.test_set, config.size, config.arch, config.init, row, detector, config.seed)
    training = (config.epochs * trained, config.batch_size * (row != "start"))  # calibration has batches, too
    return tuple(str(value) for value in (*values, *training, " ".join(settings)))


def run_row(data: Dataset, row: str, config: Config, keys: list[tuple[str, ...]], args: argparse.Namespace) -> None:
    """Train one encoder, judge it by each detector, add a line to the CSV for each."""
    start = time.perf_counter()
    backbone, statistics = train_encoder(data, row, config)
    pretraining_seconds = time.perf_counter() - start
    for key in keys:
        start = time.perf_counter()
        name = key[KEY.index("detector")]
        detector = fit_detector(name, backbone, data, config, args)
        line = dict(zip(KEY, key, strict=True)) | statistics | evaluate(detector, labelled_batches(data))
        line |= {"seconds": pretraining_seconds + time.perf_counter() - start, "device": device_name(config.device)}
        append_csv(args.out / "results.csv", line | {"commit": commit()})
        print(", ".join(f"{k} {line[k]}" for k in ("data", "row", "detector", "seed", "image_auroc")), flush=True)
        if config.seed == 0:
            save_heat_maps(detector, data, args.out / f"{figure_name(key)}.png")
            save_heat_maps(detector, data, args.out / f"{figure_name(key)}-maps.png", photographs=False)
    if config.seed == 0:
        save_tsne(backbone, data, args.out / f"{figure_name(keys[0])}-tsne.png", config.device)


def figure_name(key: tuple[str, ...]) -> str:
    """All parts of the key, so that no run overwrites the figures of another."""
    return "-".join(part.replace(" ", "-") for part in key if part)


def train_encoder(data: Dataset, row: str, config: Config) -> tuple[nn.Module, dict[str, float]]:
    """The row's backbone, and the statistics of the last epoch of its pre-training."""
    if row in START_ROWS:
        torch.manual_seed(config.seed)
        backbone = make_backbone(config.arch, config.init)[0].eval().to(config.device)
        if row == "start-calibrated":
            update_bn(Batches(data.train, batch_size=config.batch_size, drop_last=True), backbone, config.device)
        return backbone.eval(), {}
    history: list[dict[str, float]] = []
    backbone = pretrain(data.train, replace(config, **ROWS[row]), history=history)
    return backbone, {name: history[-1][name] for name in STATISTICS}


def fit_detector(
    name: str, backbone: nn.Module, data: Dataset, config: Config, args: argparse.Namespace
) -> PaDiM | IGD:
    """Fit PaDiM, or train IGD, on the healthy images."""
    generator = torch.Generator().manual_seed(config.seed)
    healthy = Batches(data.train, batch_size=32)
    if name == "padim":
        return PaDiM(backbone, generator=generator).to(config.device).fit(healthy).set_threshold(healthy)
    torch.manual_seed(config.seed)  # the decoder's initial weights
    detector = IGD(backbone, image_size=config.size, scales=args.igd_scales, width=args.igd_width).to(config.device)
    shuffled = Batches(data.train, batch_size=16, generator=generator, drop_last=True)
    return detector.fit(shuffled, epochs=args.igd_epochs, lr=args.igd_lr).set_threshold(healthy)


def add_trivial_scores(data: Dataset, name: str, done: set[tuple[str, ...]], args: argparse.Namespace) -> None:
    """What a score without any learning reaches on this test set, as lines of the CSV."""
    for score, values in trivial_scores(data).items():
        key = (name, "real", str(args.size), "", "", "no learning", score, "0", "0", "0", "")
        if key not in done:
            line = dict(zip(KEY, key, strict=True)) | {"image_auroc": float(roc_auc_score(data.labels, values))}
            append_csv(args.out / "results.csv", line | {"device": device_name(args.device), "commit": commit()})


def device_name(device: str) -> str:
    """The GPU's name, or CPU."""
    return torch.cuda.get_device_name() if device.startswith("cuda") else f"CPU, {torch.get_num_threads()} threads"


def commit() -> str:
    """The short hash of the checkout that produced a line."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True).stdout.strip()
    except FileNotFoundError:
        return "unknown"  # no git here


def main() -> None:
    """Command line."""
    args = parse_args(__doc__)
    if args.table is None:
        args.out.mkdir(parents=True, exist_ok=True)
        run_all(args)
    print_tables(args.table or args.out / "results.csv")


if __name__ == "__main__":
    main()
