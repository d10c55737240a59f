"""Let the tables of bad input share their words."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
