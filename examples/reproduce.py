"""The paper's comparison on your data: encoders {random, ImageNet, CCD, MSACL, ablations} x detectors {PaDiM, IGD}.

    python examples/reproduce.py --data DIR [DIR ...] --rows random ccd msacl --seeds 3 --epochs 5 --out OUT
    python examples/reproduce.py --table OUT/results.csv          # the tables, from the CSV alone

One CSV line per run; runs that have a line are skipped, so a stopped command goes on when repeated. Training length is
fixed and the last state is taken: no choice ever sees a test image. To choose settings use `--test-set drawn` or
`--test-set medmix`: they replace the test set by held-out training images with synthetic lesions.
"""

import argparse
import csv
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

import torch
from baselines import trivial_scores
from data import Batches, Dataset, draw_lesions, labelled_batches, read_folder
from encoders import ARCHITECTURES, INITS, make_backbone
from figures import save_heat_maps, save_tsne
from pretrain import Config, pretrain
from sklearn.metrics import roc_auc_score
from torch import nn

from detectors import IGD, PaDiM, evaluate
from medmix import MedMix

CCD = {"method": "ccd", "strong": "permutation"}
ROWS: dict[str, dict] = {
    "start": {},  # the start encoder itself, as it is: random or ImageNet
    "ccd": CCD,  # Table 3, first row
    "ccd+medmix": CCD | {"strong": "medmix"},
    "msacl-no-kappa": {"alpha": 1.0},  # MedMix + MSACL loss, without eq. (7)
    "msacl": {},
    "msacl-rotation": {"strong": "rotation"},  # Fig. 6, left
    "msacl-permutation": {"strong": "permutation"},
    "msacl-cutmix": {"strong": "cutmix"},
    "msacl-noise": {"strong": "noise"},
}
METRICS = ("image_auroc", "pixel_auroc", "aupro", "iou", "dice")
KEY = ("data", "test_set", "size", "arch", "init", "row", "detector", "seed", "epochs", "batch_size")
STATISTICS = ("accuracy", "between_min", "between_max", "within")
COLUMNS = (*KEY, *METRICS, *STATISTICS, "seconds", "device", "commit")


def run_all(args: argparse.Namespace) -> None:
    """Run every combination that the CSV does not hold yet."""
    file = args.out / "results.csv"
    done = {tuple(line[k] for k in KEY) for line in read_csv(file)} if file.is_file() else set()
    for folder in args.data:
        data = read_folder(folder, args.size)
        for seed in range(args.seeds):
            shown = data if args.test_set == "real" else held_out(data, args.test_set, seed)
            for row in args.rows:
                config = Config(
                    args.size, args.arch, args.init, epochs=args.epochs, batch_size=args.batch_size, seed=seed,
                    device=args.device,
                )  # fmt: skip
                keys = [run_key(folder, args.test_set, row, detector, config) for detector in args.detectors]
                if any(key not in done for key in keys):
                    run_row(shown, row, config, [key for key in keys if key not in done], args)


def run_key(folder: Path, test_set: str, row: str, detector: str, config: Config) -> tuple[str, ...]:
    """What tells a run from every other one, as the CSV spells it."""
    epochs = 0 if row == "start" else config.epochs
    values = (folder.name, test_set, config.size, config.arch, config.init, row, detector, config.seed, epochs)
    return tuple(str(value) for value in (*values, config.batch_size))


def run_row(data: Dataset, row: str, config: Config, keys: list[tuple[str, ...]], args: argparse.Namespace) -> None:
    """Train one encoder, judge it by each detector, add a line to the CSV for each."""
    start = time.perf_counter()
    backbone, statistics = train_encoder(data, row, config)
    pretraining_seconds = time.perf_counter() - start
    for key in keys:
        start = time.perf_counter()
        name = key[KEY.index("detector")]
        detector = fit_detector(name, backbone, data, config, args.igd_epochs)
        line = dict(zip(KEY, key, strict=True)) | statistics | evaluate(detector, labelled_batches(data))
        line |= {"seconds": pretraining_seconds + time.perf_counter() - start, "device": device_name(config.device)}
        append_csv(args.out / "results.csv", line | {"commit": commit()})
        print(", ".join(f"{k} {line[k]}" for k in ("data", "row", "detector", "seed", "image_auroc")), flush=True)
        if config.seed == 0:
            save_heat_maps(detector, data, args.out / f"{key[0]}-{row}-{name}.png")
    if config.seed == 0:
        save_tsne(backbone, data, args.out / f"{keys[0][0]}-{row}-tsne.png", config.device)


def train_encoder(data: Dataset, row: str, config: Config) -> tuple[nn.Module, dict[str, float]]:
    """The row's backbone, and the statistics of the last epoch of its pre-training."""
    if row == "start":
        torch.manual_seed(config.seed)
        return make_backbone(config.arch, config.init)[0].eval().to(config.device), {}
    history: list[dict[str, float]] = []
    backbone = pretrain(data.train, replace(config, **ROWS[row]), history=history)
    return backbone, {name: history[-1][name] for name in STATISTICS}


def fit_detector(name: str, backbone: nn.Module, data: Dataset, config: Config, igd_epochs: int) -> nn.Module:
    """Fit PaDiM, or train IGD, on the healthy images."""
    generator = torch.Generator().manual_seed(config.seed)
    healthy = Batches(data.train, batch_size=32)
    if name == "padim":
        return PaDiM(backbone, generator=generator).to(config.device).fit(healthy).set_threshold(healthy)
    detector = IGD(backbone, image_size=config.size, scales="global").to(config.device)
    shuffled = Batches(data.train, batch_size=16, generator=generator)
    return detector.fit(shuffled, epochs=igd_epochs).set_threshold(healthy)


def held_out(data: Dataset, kind: str, seed: int) -> Dataset:
    """A validation set without any test image: each fifth training image, normal and with synthetic lesions."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.arange(len(data.train)) % 5 == 0
    normal = data.train[chosen]
    if kind == "drawn":
        sick, masks = draw_lesions(normal, generator)
    else:
        mixed = MedMix(num_lesions=(1, 2, 3))(normal.float() / 255, generator=generator)
        sick, masks = (mixed.images * 255).round().to(torch.uint8), mixed.masks
    labels = torch.arange(2).repeat_interleave(len(normal))
    return Dataset(
        data.train[~chosen], torch.cat([normal, sick]), labels, torch.cat([torch.zeros_like(masks), masks])
    )  # fmt: skip


def print_tables(file: Path) -> None:
    """Markdown tables from the CSV: mean and standard deviation over seeds."""
    lines = read_csv(file)
    print("| data | start | encoder | detector | epochs | seeds | " + " | ".join((*METRICS, "class accuracy")) + " |")
    print("|" + "---|" * (7 + len(METRICS)))
    group_by = [name for name in KEY if name != "seed"]
    for group in dict.fromkeys(tuple(line[k] for k in group_by) for line in lines):
        own = [line for line in lines if tuple(line[k] for k in group_by) == group]
        first = own[0]
        cells = [summary([line[name] for line in own]) for name in (*METRICS, "accuracy")]
        names = [first["data"], f"{first['arch']} {first['init']}", first["row"], first["detector"], first["epochs"]]
        print("| " + " | ".join([*names, str(len(own)), *cells]) + " |")


def summary(values: list[str]) -> str:
    """Mean and standard deviation, or a dash where a run has no such figure."""
    numbers = [float(value) for value in values if value]
    if not numbers:
        return "-"
    return f"{mean(numbers):.3f}" + (f" ± {stdev(numbers):.3f}" if len(numbers) > 1 else "")


def print_trivial(data: Dataset, name: str) -> None:
    """What a score without any learning reaches on this test set."""
    for score, values in trivial_scores(data).items():
        print(f"{name}: {score} {roc_auc_score(data.labels, values):.3f}")


def read_csv(file: Path) -> list[dict[str, str]]:
    """All lines of a results file."""
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def append_csv(file: Path, line: dict) -> None:
    """Add one line, with the header first where the file is new."""
    new = not file.exists()
    with file.open("a", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, extrasaction="ignore")
        if new:
            writer.writeheader()
        writer.writerow({k: f"{v:.4f}" if isinstance(v, float) else v for k, v in line.items()})


def device_name(device: str) -> str:
    """The GPU's name, or CPU."""
    return torch.cuda.get_device_name() if device.startswith("cuda") else f"CPU, {torch.get_num_threads()} threads"


def commit() -> str:
    """The short hash of the checkout that produced a line."""
    root = Path(__file__).parent
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True)
    return done.stdout.strip()


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, help="only print the tables of this CSV")
    parser.add_argument("--data", type=Path, nargs="+", default=[])
    parser.add_argument("--out", type=Path, default=Path("runs/reproduce"))
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=["start", "ccd", "msacl"])
    parser.add_argument("--detectors", nargs="+", choices=("padim", "igd"), default=["padim"])
    parser.add_argument("--test-set", choices=("real", "drawn", "medmix"), default="real")
    parser.add_argument("--arch", choices=ARCHITECTURES, default="resnet18")
    parser.add_argument("--init", choices=INITS, default="random")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--igd-epochs", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    if args.device == "auto":
        args.device = "cuda" if torch.cuda.is_available() else "cpu"
    return args


def main() -> None:
    """Command line."""
    args = parse_args()
    if args.table is not None:
        print_tables(args.table)
        return
    args.out.mkdir(parents=True, exist_ok=True)
    for folder in args.data:
        print_trivial(read_folder(folder, args.size), folder.name)
    run_all(args)
    print_tables(args.out / "results.csv")


if __name__ == "__main__":
    main()
