"""What the packages say about themselves is one thing, said in pyproject.toml."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
VERSION = re.search(r'^version = "(.*)"$', PYPROJECT, flags=re.MULTILINE)[1]  # tomllib needs Python 3.11


@pytest.mark.parametrize("name", ["medmix", "msacl_loss", "detectors"])
def test_every_package_tells_its_version(name: str) -> None:
    package = importlib.import_module(name)
    assert package.__version__ == VERSION


@pytest.mark.parametrize("name", ["medmix", "msacl_loss", "detectors"])
def test_every_public_name_exists(name: str) -> None:
    package = importlib.import_module(name)
    assert [public for public in package.__all__ if not hasattr(package, public)] == []


def test_citation_and_changelog_know_the_version() -> None:
    assert f"\nversion: {VERSION}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"This will be {VERSION}" in changelog or f"\n## [{VERSION}]" in changelog
