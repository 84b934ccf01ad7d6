"""Branches that no test can take: what the code beside them says of it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.coverage.paths import C_SOURCES, MODULES, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

REASON = re.compile(r"(?:#|/\*) never:\s*(?P<reason>.*?)\s*(?:\*/)?$")


def excuses() -> Iterator[str]:
    """Yield each as "path:line: reason"."""
    for path in (*MODULES, *C_SOURCES):
        for number, line in enumerate((ROOT / path).read_text().splitlines(), 1):
            found = REASON.search(line)
            if found is not None:
                yield f"{path}:{number}: {found['reason']}"
