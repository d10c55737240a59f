"""No package knows another: each one imports while the other two are hidden."""

import subprocess
import sys

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
