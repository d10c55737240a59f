"""The files that `run.py` fills: one line per run, and the scores of its test images."""

import csv
from collections.abc import Mapping
from pathlib import Path

from data import Dataset
from detecting import Judgement
from rows import ROWS
from training import Setting

METRICS = ("image_auroc", "image_auroc_top", "pixel_auroc", "aupro", "dice")
# What tells a run from every other one.
KEY = ("data", "size", "start", "row", "epochs", "settings", "detector", "seed")
COLUMNS = (*KEY, *METRICS, "accuracy", "seconds", "device")
SCORE_COLUMNS = (*KEY, "rule", "scores")
USUAL_START = Setting().start
IMAGE_COLUMNS = ("data", "file", "label", "group")

Line = dict[str, str]


def read_csv(file: Path) -> list[Line]:
    """All lines of a CSV file; none where there is no file yet."""
    if not file.is_file():
        return []
    csv.field_size_limit(10_000_000)
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def append_csv(file: Path, columns: tuple[str, ...], lines: list[Mapping[str, object]]) -> None:
    """Add lines, with the header first where the file is new."""
    is_new = not file.exists()
    with file.open("a", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns, extrasaction="ignore", lineterminator="\n")
        if is_new:
            writer.writeheader()
        for line in lines:
            writer.writerow({name: _text(value) for name, value in line.items()})


def append_judgement(
    results: Path, key: tuple[str, ...], judgement: Judgement, known: Mapping[str, object]
) -> dict[str, object]:
    """Write a run's scores and then its line, which says that it is done; returns the line."""
    names = dict(zip(KEY, key, strict=True))
    score_lines = []
    for rule, scores in judgement.scores.items():
        text = " ".join(f"{score:.5g}" for score in scores.tolist())
        score_lines.append(names | {"rule": rule, "scores": text})
    append_csv(scores_file(results), SCORE_COLUMNS, score_lines)
    line = names | known | judgement.metrics
    append_csv(results, COLUMNS, [line])
    return line


def scores_file(results: Path) -> Path:
    """Where the scores of the test images stand: one line per run and rule, numbers in the order of the images."""
    return results.with_name(f"{results.stem}_scores.csv")


def images_file(results: Path) -> Path:
    """Where the test images stand: file, label and group (patient)."""
    return results.with_name(f"{results.stem}_images.csv")


def remember_images(results: Path, name: str, data: Dataset) -> None:
    """Write down the test images of a data set, once."""
    file = images_file(results)
    if any(line["data"] == name for line in read_csv(file)):
        return
    rows = zip(data.test_files, data.labels.tolist(), data.test_groups, strict=True)
    lines = [dict(zip(IMAGE_COLUMNS, (name, *row), strict=True)) for row in rows]
    append_csv(file, IMAGE_COLUMNS, lines)


def key_of(line: Mapping[str, object]) -> tuple[str, ...]:
    """The part of a line that tells its run, as text."""
    return tuple(str(line[name]) for name in KEY)


def _text(value: object) -> object:
    return f"{value:.4f}" if isinstance(value, float) else value


def settings_of(line: Line) -> str:
    """A run's settings as tables show them: without learning rates that are the row's own, with an unusual start."""
    parts = line["settings"].split()
    if line["row"] in ROWS:
        own, usual = (f"rates={rates}".replace(" ", "") for rates in (ROWS[line["row"]].rates, (1.0, 1.0)))
        if not any(part.startswith("rates=") for part in parts):
            parts.append(usual)  # which the CSV leaves out
        parts = [part for part in parts if part != own]
    if line["start"] not in ("", USUAL_START):
        parts.append("start=" + line["start"].replace(" ", "-"))
    return " ".join(parts)
