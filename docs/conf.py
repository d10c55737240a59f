"""How the documentation is built: `python3 run.py docs`. Warnings are errors, and every notebook is executed."""

import sys
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

# The checkout is documented, also where another one is installed.
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

from notebooks import finish_notebooks, link_to_colab  # noqa: E402

project = "msacl"
author = "The msacl maintainers"
copyright = "the msacl maintainers. MIT licence. Not a medical device"
version = version_of("msacl")
release = version
language = "en"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build", "jupyter_execute"]

html_theme = "furo"
html_title = "msacl"
html_static_path = ["_static"]
html_css_files = ["msacl.css"]
html_show_sphinx = False

myst_enable_extensions = ["colon_fence", "dollarmath", "deflist", "substitution"]
myst_heading_anchors = 3

nb_execution_mode = "force"  # the pages are tests: never show yesterday's output
nb_execution_timeout = 900  # of a cell; seconds on an idle machine
nb_execution_raise_on_error = True
nb_output_stderr = "remove"  # logs of other libraries; an exception fails the build
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the signature of a tensor function says Tensor six times; the Args say the shapes
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True


def plain_marks(app: object, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Let |z| and (B, C, *size) in docstrings be what they look like, not reStructuredText."""
    for number, line in enumerate(lines):
        if ">>>" not in line:
            parts = line.split("`")  # every second one is code
            parts[::2] = [part.replace("|", "\\|").replace(" *", " \\*") for part in parts[::2]]
            lines[number] = "`".join(parts)


def setup(app: Any) -> None:
    """Sphinx calls this."""
    app.connect("autodoc-process-docstring", plain_marks, priority=100)
    app.connect("source-read", link_to_colab)
    app.connect("build-finished", finish_notebooks)
