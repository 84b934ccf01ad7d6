"""What the modules of this folder need to be imported here."""

import importlib
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

# As in tests/simulation: these belong to no installed package, and keep their folder once imported.
sys.path.append(str(ROOT))
importlib.import_module("tests.nth.enumeration")
sys.path.remove(str(ROOT))
