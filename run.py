"""Make (or reuse) a virtual environment in this checkout and run a job in it.

    python3 run.py quickstart        # the main job: pre-train, fit, score, draw
    python3 run.py test              # the tests, without the slow ones; with them: python3 run.py test -m ""
    python3 run.py check             # lint, types, the contract between the packages, house rules
    python3 run.py docs              # build the documentation, which executes its tutorials: docs/_build/html
    python3 run.py mutants           # change the code in small ways: does a test notice? some 15 minutes
    python3 run.py bench             # all benchmarks, or those named: python3 run.py bench loss

Further arguments go to the job: `python3 run.py quickstart --seed 1`, `python3 run.py test -k padim`.
Needs Python 3.11 or newer and nothing else.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BIN / ("python.exe" if os.name == "nt" else "python")
# One command line or several, each for `python`; what follows the job's name goes to the last.
JOBS = {
    "quickstart": [["examples/quickstart.py"]],
    "test": [["-m", "pytest", "-n", "auto", "--dist", "worksteal"]],
    "check": [
        ["-m", "ruff", "check", "."],
        ["-m", "ruff", "format", "--check", "."],
        ["-m", "mypy"],
        ["-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"],
        ["tests/house/check.py"],
    ],
    "docs": [
        ["-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "docs", "docs/_build/html"],
        ["tests/house/links.py", "docs/_build/html"],
    ],
    "mutants": [["tests/mutants/run_mutants.py"]],
    "bench": [],  # one command per benchmark
}


def main() -> int:
    """Set up the environment, then run the job named on the command line."""
    if sys.version_info < (3, 11):  # noqa: UP036 - this is the message that an old Python should give
        sys.exit(f"msacl needs Python 3.11 or newer, but this is {sys.version.split()[0]}: run it with a newer python3")
    if len(sys.argv) < 2 or sys.argv[1] not in JOBS:
        sys.exit(f"expected one of {', '.join(JOBS)}; got {' '.join(sys.argv[1:]) or 'nothing'}\n\n{__doc__}")
    job = sys.argv[1]
    arguments = sys.argv[2:]
    set_up()
    if job == "bench":
        return run(benchmarks(arguments), [])
    return run(JOBS[job], arguments)


def run(commands: list[list[str]], arguments: list[str]) -> int:
    """Run every command, also after one that failed; returns the first failure, or 0."""
    failure = 0
    for command in commands:
        extra = arguments if command is commands[-1] else []
        code = subprocess.call([str(PYTHON), *command, *extra], cwd=ROOT)
        failure = failure or code
    return failure


def benchmarks(names: list[str]) -> list[list[str]]:
    """The commands of the named benchmarks, or of all."""
    known = sorted(path.stem.removeprefix("bench_") for path in ROOT.glob("benchmarks/bench_*.py"))
    unknown = [name for name in names if name not in known]
    if unknown:
        sys.exit(f"expected benchmarks among {', '.join(known)}; got {', '.join(unknown)}")
    return [[f"benchmarks/bench_{name}.py"] for name in names or known]


def set_up() -> None:
    """Install the project with all its extras, unless this pyproject.toml is installed already."""
    stamp = VENV / "installed-pyproject.toml"
    wanted = (ROOT / "pyproject.toml").read_bytes()
    if stamp.is_file() and stamp.read_bytes() == wanted:
        return
    print("Setting up .venv (PyTorch is large: this takes a few minutes the first time) ...", flush=True)
    if not PYTHON.is_file():
        make_venv()
    extras = ".[examples,dicom,test,docs,dev]"
    subprocess.run([str(PYTHON), "-m", "pip", "install", "-q", "-e", extras], cwd=ROOT, check=True)
    stamp.write_bytes(wanted)


def make_venv() -> None:
    """Create the virtual environment; say what to do where the system's Python cannot."""
    if subprocess.call([sys.executable, "-m", "venv", str(VENV)]) != 0:
        sys.exit("Python could not make a virtual environment; on Debian or Ubuntu: sudo apt install python3-venv")


if __name__ == "__main__":
    sys.exit(main())
