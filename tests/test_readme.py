"""The README tells the truth: its Python runs, and its commands are the ones that exist and that CI uses."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("code", blocks("python"))
def test_python_block_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By itself, in an empty folder; warnings are errors in all tests."""
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})


def test_readme_has_python_blocks() -> None:
    assert blocks("python")


def test_the_setup_commands() -> None:
    commands = re.findall(r"^python3 run\.py .*$", "\n".join(blocks("bash")), flags=re.MULTILINE)
    assert [command.split("#")[0].strip() for command in commands] == [
        "python3 run.py quickstart",
        "python3 run.py test",
        "python3 run.py docs",
    ]


@pytest.mark.parametrize("job", ["test", "check", "docs"])
def test_ci_uses_the_readme_commands(job: str) -> None:
    assert f"\npython3 run.py {job}\n" in (ROOT / ".ci/run").read_text()


def test_readme_fits_on_a_few_screens() -> None:
    assert README.count("\n") <= 150


def test_run_py_names_the_quickstart_script() -> None:
    script = (ROOT / "run.py").read_text()
    assert '"quickstart": [["examples/quickstart.py"]]' in script
    assert (ROOT / "examples/quickstart.py").is_file()


def test_files_named_in_the_readme_exist() -> None:
    named = re.findall(r"(?:examples|benchmarks|docs)/[\w/.-]+\.(?:py|png|webp|md|csv)", README)
    assert not [name for name in named if not (ROOT / name).is_file()]
