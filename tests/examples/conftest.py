"""Let the tests import the example scripts' modules."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples/reproduction"))
