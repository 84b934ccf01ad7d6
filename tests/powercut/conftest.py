"""What the power cuts' own modules need to be imported here."""

import importlib
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

# As in tests/crash: the repository is on the path while the first of them is imported.
sys.path.append(str(ROOT))
importlib.import_module("tests.powercut.history")
sys.path.remove(str(ROOT))
