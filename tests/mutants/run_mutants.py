"""Mutation testing: change the code in small ways, one at a time, and see whether a test notices.

    python3 run.py mutants                           # all modules of SCOPE; some 15 minutes of one core
    python3 run.py mutants msacl_loss/terms.py       # some of them
    python3 run.py mutants --survivors               # only the mutants that survivors.csv names, after new tests

Writes those that no test noticed into survivors.csv beside this file, where a person adds the explanation, and the
figures into figures.csv. Exits with 1 where less than 90 % are noticed, or an explanation is missing.

No tool of PyPI does this here: mutmut (3.8) leaves decorated functions alone, such as our custom operators and PaDiM's
`update` and `merge`; cosmic-ray (8.7) starts Python, and so PyTorch, anew for every mutant.

PyTorch takes seconds to start, so each package's tests are imported once; then each mutant is a fork of that process,
in which the code of the changed function is replaced and those quick tests run that reach the changed line, the fastest
first, until one fails.
"""

import argparse
import csv
import os
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
SURVIVORS = HERE / "survivors.csv"
FIGURES = HERE / "figures.csv"
LEAST = 0.9
COLUMNS = ("module", "line", "before", "after", "explanation")

# Each package's modules to change, and where its tests lie; slow ones are left out.
SCOPE = {
    "msacl_loss": (
        "msacl_loss/*.py msacl_loss/similarity/*.py",
        "tests/msacl_loss tests/test_loss_in_a_loop.py tests/bad_input msacl_loss",
    ),
    "medmix": (
        "medmix/lesions/placement.py medmix/lesions/colour.py medmix/lesions/curves.py medmix/lesions/alterations.py "
        "medmix/lesions/drawing.py",
        "tests/medmix medmix",
    ),
    "detectors": (
        "detectors/padim/gaussian.py detectors/padim/tree.py detectors/padim/whitening.py detectors/padim/moments.py "
        "detectors/evaluation/metrics.py",
        "tests/detectors/padim tests/detectors/evaluation detectors/padim detectors/evaluation",
    ),
}
Row = dict[str, str]


def main() -> int:
    """Run the mutants of the modules on the command line; write survivors and figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("modules", nargs="*", help="of SCOPE; all by default")
    parser.add_argument("--survivors", action="store_true", help="only those that survivors.csv names")
    parser.add_argument("--jobs", default="1", help="mutants at a time")
    options = parser.parse_args()

    known = read(SURVIVORS)
    results: list[Row] = []
    for package in SCOPE:
        wanted = [module for module in modules_of(package) if not options.modules or module in options.modules]
        if wanted:
            only = [row for row in known if row["module"] in wanted] if options.survivors else None
            results += run_package(package, wanted, only, options.jobs)

    survivors = [row for row in results if row["verdict"] == "survived"]
    explained = {identity(row): row["explanation"] for row in known}
    for row in survivors:
        row["explanation"] = explained.get(identity(row), "")
    # What was not tried again stays in the table.
    done = {row["module"] for row in results}
    is_part = bool(options.modules) or options.survivors
    kept = [row for row in known if is_part and row["module"] not in done]
    table = sorted(kept + survivors, key=lambda row: (row["module"], int(row["line"])))
    write(SURVIVORS, COLUMNS, table)
    lines = figures(results, [] if options.survivors else done, table)
    write(FIGURES, ("package", "mutants", "killed", "survived", "share"), lines)
    for line in lines:
        print("{package:12} {mutants:>5} mutants, {killed:>5} killed, {survived:>4} survived: {share} %".format(**line))
    missing = [row for row in survivors if not row["explanation"]]
    for row in missing:
        print("{module}:{line}: not explained: {before} -> {after}".format(**row))
    return 1 if missing or any(float(line["share"]) < 100 * LEAST for line in lines) else 0


def modules_of(package: str) -> list[str]:
    """Paths, relative to the repository, of the modules to change."""
    found = [path for pattern in SCOPE[package][0].split() for path in sorted(ROOT.glob(pattern))]
    return [path.relative_to(ROOT).as_posix() for path in found]


def run_package(package: str, modules: list[str], only: list[Row] | None, jobs: str) -> list[Row]:
    """Let pytest collect the package's tests and the plugin try the mutants; returns a row for each."""
    results = HERE / f"results-{package}.csv"
    results.unlink(missing_ok=True)
    wanted = HERE / f"wanted-{package}.csv"
    wanted.unlink(missing_ok=True)
    if only is not None:
        write(wanted, COLUMNS, only)
    plugin = [
        "-p",
        "mutant_plugin",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "-s",
        "-m",
        "not slow",
        "-k",
        "not test_cell or loss or centre",
    ]
    command = [sys.executable, "-m", "pytest", *plugin, *SCOPE[package][1].split()]
    settings = {"MUTANT_MODULES": " ".join(modules), "MUTANT_RESULTS": str(results), "MUTANT_JOBS": jobs}
    if only is not None:
        settings["MUTANT_ONLY"] = str(wanted)
    paths = os.pathsep.join([str(HERE), str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | settings | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    rows = read(results)
    for file in (results, wanted):
        file.unlink(missing_ok=True)
    return rows


def identity(row: Row) -> tuple[str, ...]:
    """What a mutant is known by when lines have moved."""
    return row["module"], row["before"], row["after"]


def figures(results: list[Row], done: Collection[str], survivors: list[Row]) -> list[Row]:
    """Counts by package, and of all; of packages that were not tried whole the number of mutants stays as it was."""
    counts = {row["package"]: int(row["mutants"]) for row in read(FIGURES)}
    for package in SCOPE:
        if done and done >= set(modules_of(package)) - {f"{package}/__init__.py", f"{package}/similarity/__init__.py"}:
            counts[package] = sum(package_of(row) == package for row in results)
    counts["all"] = sum(counts.get(package, 0) for package in SCOPE)
    lines = []
    for package in [*SCOPE, "all"]:
        if counts.get(package):
            count = counts[package]
            survived = sum(package in (package_of(row), "all") for row in survivors)
            share = f"{100 * (count - survived) / count:.1f}"
            numbers = {"mutants": str(count), "killed": str(count - survived), "survived": str(survived)}
            lines.append({"package": package, **numbers, "share": share})
    return lines


def package_of(row: Row) -> str:
    """The package of a mutant."""
    return row["module"].split("/")[0]


def read(file: Path) -> list[Row]:
    """The rows of a table; none where there is no file."""
    if not file.is_file():
        return []
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def write(file: Path, columns: tuple[str, ...], rows: list[Row]) -> None:
    """Write a table."""
    with file.open("w", newline="", encoding="utf-8") as lines:
        table = csv.DictWriter(lines, columns, extrasaction="ignore", lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


if __name__ == "__main__":
    sys.exit(main())
