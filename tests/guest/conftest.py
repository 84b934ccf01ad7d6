"""What the guest's own modules need to be imported here."""

import importlib
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

# As in tests/crash: the repository is on the path while the first of them is imported.
sys.path.append(str(ROOT))
importlib.import_module("tests.guest.oracle")
sys.path.remove(str(ROOT))
