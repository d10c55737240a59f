"""The documentation tells the truth: its plain Python runs, and the files, functions and tests that it names exist.

Notebook pages are executed by the build (`python3 run.py docs`), all others here: the blocks of a page share a
namespace, as a reader's session does.
"""

import re
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "CONTRIBUTING.md"]
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in PAGES if path.is_file()}


def python_of(text: str) -> str:
    return "\n".join(re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE))


@pytest.mark.parametrize("page", [name for name, text in TEXTS.items() if python_of(text)])
def test_the_blocks_of_a_page_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "kernelspec" not in TEXTS[page], "a notebook page writes {code-cell}, which the build executes"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="monai|transformers|timm|onnx")
        exec(compile(python_of(TEXTS[page]), page, "exec"), {"__name__": "__main__"})


def test_there_are_blocks_to_run() -> None:
    assert sum(bool(python_of(text)) for text in TEXTS.values()) >= 8


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
