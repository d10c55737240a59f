"""Let the tests of the loss share `loss_cases`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
