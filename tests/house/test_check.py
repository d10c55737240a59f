"""The house check finds what it looks for: a small house with each fault, and one without."""

import subprocess
import sys
from pathlib import Path

import pytest

CHECK = Path(__file__).with_name("check.py")


def build(root: Path, files: dict[str, str]) -> Path:
    """Write a house of three packages with these extra files."""
    for package in ("medmix", "msacl_loss", "detectors"):
        (root / package).mkdir()
        (root / package / "__init__.py").write_text('"""A package."""\n')
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def check(root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(CHECK), str(root)], capture_output=True, text=True)


def test_a_house_in_order_passes(tmp_path: Path) -> None:
    result = check(build(tmp_path, {"medmix/a.py": "import medmix.b\n", "medmix/b.py": "x = 1\n"}))
    assert result.returncode == 0, result.stdout
    assert result.stdout.endswith("the house is in order\n")


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({"medmix/a.py": "x = 1\n" * 251}, "medmix/a.py: 251 lines"),
        ({"medmix/a.py": "def f():\n" + "    x = 1\n" * 60}, "f has 61 lines"),
        ({"medmix/a.py": "x = f(g(h(1, 2, 3), i(4, 5)), j[k], l + m * n)\n" * 9}, "syntax nodes per code line"),
        ({f"medmix/a{i}.py": "x = 1\n" for i in range(10)}, "11 files on the top floor"),
        ({"medmix/a.py": "import medmix.b\n", "medmix/b.py": "from medmix import a\n"}, "medmix.a -> medmix.b"),
        (
            {
                "detectors/x/a.py": "from detectors.x.b import f\n",
                "detectors/x/b.py": "def f():\n    from detectors.x.c import g\n",
                "detectors/x/c.py": "from detectors.x.a import h\n",
            },
            "detectors.x.a -> detectors.x.b -> detectors.x.c -> detectors.x.a",
        ),
    ],
    ids=["long file", "long function", "dense lines", "too many files", "circle of two", "circle within functions"],
)
def test_each_fault_is_named(tmp_path: Path, files: dict[str, str], complaint: str) -> None:
    result = check(build(tmp_path, files))
    assert result.returncode == 1
    assert complaint in result.stdout


def test_docstrings_and_comments_count_as_no_code(tmp_path: Path) -> None:
    dense = "x = f(g(1), h(2))\n" * 5
    padded = '"""' + "words\n" * 50 + '"""\n' + "# words\n" * 50 + dense
    result = check(build(tmp_path, {"medmix/a.py": padded}))
    assert "syntax nodes per code line, at most" in result.stdout
