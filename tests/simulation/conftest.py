"""What the simulation's own modules need to be imported here."""

import importlib
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

# These modules belong to no installed package. They keep their folder once one of them is imported,
# so the repository needs to be on the path for that moment only.
sys.path.append(str(ROOT))
importlib.import_module("tests.simulation.campaign")
sys.path.remove(str(ROOT))
