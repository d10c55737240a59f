"""The documentation tells the truth: its plain Python runs, and the files, functions and tests that it names exist.

Notebook pages are executed by the build (`python3 run.py docs`), all others here: the blocks of a page share a
namespace, as a reader's session does. Commands in shell blocks name scripts, jobs and options that exist; those that
fit a detector and score a folder are run as they stand.
"""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import ResNet18_Weights, resnet18

ROOT = Path(__file__).resolve().parent.parent
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "CONTRIBUTING.md"]
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in PAGES if path.is_file()}


TEXTS |= {name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "examples/README.md")}


def commands_of(text: str) -> list[list[str]]:
    """Words of each command in the shell blocks, without comments; lines that end in a backslash go on."""
    blocks = re.findall(r"^```bash\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    commands = [shlex.split(line, comments=True) for line in lines]
    return [command for command in commands if command]


def python_of(text: str) -> str:
    return "\n".join(re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE))


@pytest.mark.parametrize("page", [name for name, text in TEXTS.items() if python_of(text) and name != "README.md"])
def test_the_blocks_of_a_page_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "kernelspec" not in TEXTS[page], "a notebook page writes {code-cell}, which the build executes"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="monai|transformers|timm|onnx")
        exec(compile(python_of(TEXTS[page]), page, "exec"), {"__name__": "__main__"})


def test_there_are_blocks_to_run() -> None:
    assert sum(bool(python_of(text)) for text in TEXTS.values()) >= 8
    assert sum(len(commands_of(text)) for text in TEXTS.values()) >= 15


FOLDER_PAGES = ("README.md", "docs/get-started.md", "docs/tutorials/padim-folder.md")


@pytest.mark.slow
def test_the_commands_for_a_folder_run_as_they_stand(tmp_path: Path) -> None:
    of_pages = [[c for c in commands_of(TEXTS[page]) if c[0] == "python"] for page in FOLDER_PAGES]
    commands = of_pages[0]
    assert len(commands) == 2
    assert of_pages == [commands] * len(FOLDER_PAGES)
    random = np.random.default_rng(0)
    for folder in ("healthy", "new"):
        (tmp_path / folder).mkdir()
        for i in range(12):
            Image.fromarray(random.integers(256, size=(48, 48, 3), dtype=np.uint8)).save(tmp_path / folder / f"{i}.png")
    # Without a network: what torchvision would download lies in its cache, with other values.
    cached = tmp_path / "hub/checkpoints" / Path(ResNet18_Weights.DEFAULT.url).name
    cached.parent.mkdir(parents=True)
    torch.save(resnet18().state_dict(), cached)

    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TORCH_HOME": str(tmp_path)}
    for command in commands:
        line = [sys.executable, str(ROOT / command[1]), *command[2:]]
        result = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
    assert {path.name for path in (tmp_path / "results").iterdir()} == {"overlays", "report.html", "scores.csv"}


def test_named_commands_and_their_options_exist() -> None:
    unknown = []
    for page, text in TEXTS.items():
        for command in commands_of(text):
            unknown += [f"{page}: {' '.join(command)}: {word}" for word in unknown_words(command)]
    assert not unknown


def unknown_words(command: list[str]) -> list[str]:
    """The words of a command on this checkout that nothing answers to."""
    if command[:2] == ["python3", "run.py"]:
        jobs = re.findall(r'^    "(\w+)": \[', (ROOT / "run.py").read_text(encoding="utf-8"), flags=re.MULTILINE)
        return [] if command[2] in jobs else [command[2]]
    scripts = [word for word in command if word.endswith(".py")]
    if not scripts:
        return []
    if not (ROOT / scripts[0]).is_file():
        return scripts
    options = [word for word in command[command.index(scripts[0]) :] if word.startswith("--")]
    # argparse has options as they are written; tyro makes them of the fields of dataclasses.
    sources = [ROOT / scripts[0]]
    if "reproduction" in scripts[0]:
        sources = sorted((ROOT / "examples/reproduction").glob("*.py"))
    texts = "\n".join(source.read_text(encoding="utf-8") for source in sources)
    fields = [option.removeprefix("--").replace("-", "_") for option in options]
    return [
        option
        for option, field in zip(options, fields, strict=True)
        if f'"{option}"' not in texts and not re.search(rf"^    {field}: ", texts, flags=re.MULTILINE)
    ]


def test_a_notebook_begins_with_its_installation() -> None:
    spec = importlib.util.spec_from_file_location("notebooks", ROOT / "docs/notebooks.py")
    notebooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(notebooks)
    cells = [{"cell_type": "markdown", "source": ["# Title\n", "*{nb-download}`a.ipynb`: so.*\n", "Text\n"]}]
    address = "https://github.com/owner/name.git"
    finished = notebooks.with_install_cell({"cells": cells, "nbformat": 4}, "anomalib", address)
    first, second = finished["cells"]
    assert first["source"].endswith(f'%pip install -q "msacl[examples] @ git+{address}" anomalib')
    assert second["source"] == "# Title\nText\n"
    assert "\n# %pip" in notebooks.install_command("igd", None)
    colab = "https://colab.research.google.com/github/owner/name/blob/notebooks/igd.ipynb"
    assert notebooks.colab_address("igd", address) == colab
    assert notebooks.colab_address("igd", "https://example.org/x") is None
    tutorials = {path.stem for path in (ROOT / "docs/tutorials").glob("*.md")}
    assert set(notebooks.ALSO) <= tutorials
    without = [name for name in tutorials if f"{{nb-download}}`{name}.ipynb`" not in TEXTS[f"docs/tutorials/{name}.md"]]
    assert not without


@pytest.mark.parametrize("page", ["docs/equations.md", "docs/architecture.md"])
def test_named_files_and_what_they_hold_exist(page: str) -> None:
    """`path.py`, and `path.py::name` for something defined in it."""
    named = re.findall(
        r"`((?:medmix|msacl_loss|detectors|tests|examples|benchmarks)/[\w/.-]+)(?:::(\w+))?`", TEXTS[page]
    )
    assert named
    missing = [path for path, _ in named if not (ROOT / path).exists()]
    assert not missing
    undefined = [
        f"{path}::{name}"
        for path, name in named
        if name and not re.search(rf"^\s*(?:def|class) {name}\b|^{name}\b", (ROOT / path).read_text(), re.MULTILINE)
    ]
    assert not undefined


def test_every_equation_has_a_row() -> None:
    numbers = re.findall(r"^\| \((\d+)\) \|", TEXTS["docs/equations.md"], flags=re.MULTILINE)
    assert numbers == [str(n) for n in range(1, 13)]
