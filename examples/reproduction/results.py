"""The CSV of `reproduce.py`, one line per run, and the tables made from it."""

import csv
from pathlib import Path
from statistics import mean, stdev

METRICS = ("image_auroc", "pixel_auroc", "aupro", "iou", "dice")
KEY = ("data", "test_set", "size", "arch", "init", "row", "detector", "seed", "epochs", "batch_size", "settings")
STATISTICS = ("accuracy", "between_min", "between_max", "within")
COLUMNS = (*KEY, *METRICS, *STATISTICS, "seconds", "device", "commit")
SHOWN = {"image_auroc": "image AUROC", "pixel_auroc": "pixel AUROC", "aupro": "AUPRO", "iou": "IoU", "dice": "Dice"}


def read_csv(file: Path) -> list[dict[str, str]]:
    """All lines of a results file; none where there is no file yet."""
    if not file.is_file():
        return []
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


def print_tables(file: Path) -> None:
    """One markdown table per data set: mean and standard deviation over seeds."""
    lines = read_csv(file)
    table_of = ("data", "test_set", "size")
    for data, test_set, size in dict.fromkeys(tuple(line[k] for k in table_of) for line in lines):
        own = [line for line in lines if tuple(line[k] for k in table_of) == (data, test_set, size)]
        metrics = [name for name in METRICS if any(line[name] for line in own)]
        print(f"\n### {data}, {size} px" + ("" if test_set == "real" else f", synthetic test set ({test_set})") + "\n")
        header = ["start", "encoder", "detector", "epochs", "batch", "seeds", *(SHOWN[name] for name in metrics)]
        print_row([*header, "class accuracy", "settings"])
        print_row(["---"] * (len(header) + 2))
        for group in grouped(own):
            print_row(table_row(group, metrics))


def grouped(lines: list[dict[str, str]]) -> list[list[dict[str, str]]]:
    """Lines that differ in their seed alone, together."""
    groups: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for line in lines:
        groups.setdefault(tuple(line[name] for name in KEY if name != "seed"), []).append(line)
    return list(groups.values())


def table_row(group: list[dict[str, str]], metrics: list[str]) -> list[str]:
    """The cells of one row of a table."""
    first = group[0]
    names = [
        f"{first['arch']} {first['init']}".strip(),
        first["row"],
        first["detector"],
        first["epochs"],
        first["batch_size"],
    ]
    cells = [summary([line[name] for line in group]) for name in (*metrics, "accuracy")]
    return [*names, str(len(group)), *cells, first["settings"]]


def print_row(cells: list[str]) -> None:
    """One line of a markdown table."""
    print("| " + " | ".join(cells) + " |")


def summary(values: list[str]) -> str:
    """Mean and standard deviation, or a dash where a run has no such figure."""
    numbers = [float(value) for value in values if value]
    if not numbers:
        return "-"
    return f"{mean(numbers):.3f}" + (f" ± {stdev(numbers):.3f}" if len(numbers) > 1 else "")
