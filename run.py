"""Make (or reuse) a virtual environment in this checkout and run a job in it.

    python3 run.py quickstart        # the main job: pre-train, fit, score, draw
    python3 run.py test              # the whole test suite

Further arguments go to the job: `python3 run.py quickstart --seed 1`, `python3 run.py test -k padim`.
Needs Python 3.10 or newer and nothing else.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
JOBS = {"quickstart": ["examples/reproduction/quickstart.py"], "test": ["-m", "pytest"]}


def main() -> int:
    """Set up the environment, then run the job named on the command line."""
    if sys.version_info < (3, 10):  # noqa: UP036 - this is the message that an old Python should give
        sys.exit(f"msacl needs Python 3.10 or newer, but this is {sys.version.split()[0]}: run it with a newer python3")
    if len(sys.argv) < 2 or sys.argv[1] not in JOBS:
        sys.exit(f"expected one of {', '.join(JOBS)}; got {' '.join(sys.argv[1:]) or 'nothing'}\n\n{__doc__}")
    set_up()
    return subprocess.call([str(PYTHON), *JOBS[sys.argv[1]], *sys.argv[2:]], cwd=ROOT)


def set_up() -> None:
    """Install the project with all its extras, unless this pyproject.toml is installed already."""
    stamp = VENV / "installed-pyproject.toml"
    wanted = (ROOT / "pyproject.toml").read_bytes()
    if stamp.is_file() and stamp.read_bytes() == wanted:
        return
    print("Setting up .venv (PyTorch is large: this takes a few minutes the first time) ...", flush=True)
    if not PYTHON.is_file():
        make_venv()
    subprocess.run([str(PYTHON), "-m", "pip", "install", "-q", "-e", ".[examples,test,dev]"], cwd=ROOT, check=True)
    stamp.write_bytes(wanted)


def make_venv() -> None:
    """Create the virtual environment; say what to do where the system's Python cannot."""
    if subprocess.call([sys.executable, "-m", "venv", str(VENV)]) != 0:
        sys.exit("Python could not make a virtual environment; on Debian or Ubuntu: sudo apt install python3-venv")


if __name__ == "__main__":
    sys.exit(main())
