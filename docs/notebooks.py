"""Offer every tutorial as a notebook that installs what it needs, and opens in Colab where the repository is known.

The repository's address stands in one place, the project URL "Repository" of pyproject.toml; a build on GitHub knows
its own (GITHUB_REPOSITORY). `.github/workflows/docs.yml` puts the notebooks on the branch "notebooks", from which Colab
opens them.
"""

import json
import os
import re
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

# What a tutorial imports beside the extra "examples".
ALSO = {
    "anomalib": "anomalib",
    "padim-folder": "onnx onnxscript onnxruntime",
    "pretrain-lightning": "lightning",
}


def repository() -> str | None:
    """Address of the repository, such as https://github.com/OWNER/NAME; None where nobody told."""
    urls = dict(line.split(", ", 1) for line in metadata("msacl").get_all("Project-URL") or [])
    if "Repository" in urls:
        return urls["Repository"]
    if "GITHUB_REPOSITORY" in os.environ:
        return f"https://github.com/{os.environ['GITHUB_REPOSITORY']}"
    return None


def colab_address(name: str, address: str | None) -> str | None:
    """Address at which Colab opens the notebook of a tutorial; None where the repository is not on GitHub."""
    if address is None or not address.startswith("https://github.com/"):
        return None
    owner_and_name = address.removeprefix("https://github.com/").removesuffix(".git").strip("/")
    return f"https://colab.research.google.com/github/{owner_and_name}/blob/notebooks/{name}.ipynb"


def install_command(name: str, address: str | None) -> str:
    """First cell of a notebook."""
    also = f" {ALSO[name]}" if name in ALSO else ""
    if address is None:
        source = "# In Colab or a new environment, with ADDRESS the repository that holds msacl:\n# "
    else:
        source = "# In Colab or a new environment:\n"
    return f'{source}%pip install -q "msacl[examples] @ git+{address or "https://ADDRESS"}"{also}'


def with_install_cell(notebook: dict[str, Any], name: str, address: str | None) -> dict[str, Any]:
    """Put the installation in front of an executed notebook, and take out what only the site understands."""
    code = {
        "cell_type": "code",
        "execution_count": None,
        "id": "install",
        "metadata": {},
        "outputs": [],
        "source": install_command(name, address),
    }
    cells = []
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            text = re.sub(r"^\*(\[Open in Colab\].*)?\{nb-download\}.*\n", "", text, flags=re.MULTILINE)
        cells.append({**cell, "source": text})
    return {**notebook, "cells": [code, *cells]}


def link_to_colab(app: Any, page: str, source: list[str]) -> None:
    """Sphinx's source-read: a tutorial with a notebook links to Colab, where it can be opened there."""
    name = page.rsplit("/", 1)[-1]
    address = colab_address(name, repository())
    if address is not None:
        source[0] = source[0].replace("*{nb-download}", f"*[Open in Colab]({address}) or {{nb-download}}", 1)


def finish_notebooks(app: Any, error: Exception | None) -> None:
    """Sphinx's build-finished: the downloadable notebooks begin with the installation."""
    if error is not None:
        return
    for file in Path(app.outdir, "_downloads").rglob("*.ipynb"):
        notebook = json.loads(file.read_text(encoding="utf-8"))
        if notebook["cells"][0].get("id") != "install":
            finished = with_install_cell(notebook, file.stem, repository())
            file.write_text(json.dumps(finished, indent=1), encoding="utf-8")
