"""Choose anew what tests/fuzz/corpus keeps: python -I tests/fuzz/keep.py [TARGET]...

Of the corpus, the seeds and all that fuzzing left in tests/fuzz/findings, the smallest inputs that
together do whatever any of them does: each step from one line of the codec to the next, and each
sentence of an error. It needs no atheris, and gives the same files for the same inputs.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.append(str(Path(__file__).parents[2]))  # python -I leaves it out: it is where tests/ is

import uringd
from tests.fuzz.targets import TARGETS

if TYPE_CHECKING:
    from types import FrameType

    from tests.fuzz.targets.target import Target

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
FINDINGS = HERE / "findings"
UNDER_TEST = str(Path(uringd.__file__).parent) + "/"
DIGITS = re.compile(r"0x[0-9a-f]+|[\d,]+|'.*'|\".*\"")


class Watch:
    """What the codec did while an input was judged."""

    def __init__(self) -> None:
        self.seen: set[tuple[object, ...]] = set()

    def judge(self, target: Target, data: bytes) -> set[tuple[object, ...]]:
        self.seen = set()
        sys.settrace(self._called)
        try:
            target.check(data)
        finally:
            sys.settrace(None)
        return self.seen

    def _called(self, frame: FrameType, _event: str, _argument: Any) -> Any:
        path = frame.f_code.co_filename
        if not path.startswith(UNDER_TEST):
            return None
        last = 0

        def step(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal last
            if event == "line":
                self.seen.add((path, last, frame.f_lineno))
                last = frame.f_lineno
            elif event == "exception" and argument[1] is not None:
                self.seen.add((path, DIGITS.sub("", str(argument[1]))))
            return step

        return step


def candidates(name: str) -> list[bytes]:
    """Return all inputs there are, the smallest first."""
    folders = [CORPUS / name, FINDINGS / name / "corpus"]
    files = [path for folder in folders if folder.is_dir() for path in folder.iterdir()]
    found = {path.read_bytes() for path in files} | set(TARGETS[name].seeds().values())
    return sorted(found, key=lambda data: (len(data), data))


def choose(name: str) -> list[bytes]:
    """Return the inputs to keep."""
    watch, target = Watch(), TARGETS[name]
    known: set[tuple[object, ...]] = set()
    kept: list[bytes] = []
    for data in candidates(name):
        if not (seen := watch.judge(target, data)) <= known:
            known |= seen
            kept.append(data)
    # Backwards once more: what the larger ones do as well need not be kept for itself.
    known = set()
    needed: list[bytes] = []
    for data in reversed(kept):
        if not (seen := watch.judge(target, data)) <= known:
            known |= seen
            needed.append(data)
    return needed


def main(names: list[str]) -> None:
    """Write the corpora of the targets named, of all where none is."""
    for name in names or TARGETS:
        kept = choose(name)
        by_data = {data: seed for seed, data in TARGETS[name].seeds().items()}
        shutil.rmtree(CORPUS / name, ignore_errors=True)
        (CORPUS / name).mkdir(parents=True)
        for data in kept:
            title = by_data.get(data, hashlib.sha256(data).hexdigest()[:16])
            (CORPUS / name / title).write_bytes(data)
        print(f"{name:10} {len(kept):4} files, {sum(map(len, kept)):6,} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
