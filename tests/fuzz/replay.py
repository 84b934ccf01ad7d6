"""Judge single inputs, without atheris: python -I tests/fuzz/replay.py TARGET FILE..."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))  # python -I leaves it out: it is where tests/ is

from tests.fuzz.targets import TARGETS


def main(name: str, *paths: str) -> None:
    """Raise what the first bad input raises."""
    for path in paths:
        TARGETS[name].check(Path(path).read_bytes())
        print(f"{path}: nothing is wrong with it")


if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] not in TARGETS:
        sys.exit(f"{__doc__}\ntargets: {' '.join(TARGETS)}")
    main(*sys.argv[1:])
