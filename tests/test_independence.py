"""No package knows another, nor do its tests: each one imports while the other two are hidden."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGES = ("medmix", "msacl_loss", "detectors")
HIDE = """
import sys
for name in {hidden!r}:
    sys.modules[name] = None  # the import system then raises ModuleNotFoundError
import {package}
"""


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_with_the_other_two_hidden(package: str) -> None:
    hidden = tuple(other for other in PACKAGES if other != package)
    code = HIDE.format(hidden=hidden, package=package)
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("package", PACKAGES)
def test_tests_of_a_package_import_no_other(package: str) -> None:
    others = "|".join(other for other in PACKAGES if other != package)
    foreign_import = re.compile(rf"^\s*(from|import) ({others})\b", re.MULTILINE)
    files = Path(__file__).parent.joinpath(package).rglob("*.py")
    strangers = [str(file) for file in files if foreign_import.search(file.read_text())]
    assert not strangers
