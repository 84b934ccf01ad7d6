"""Which branches of the C helpers no test has taken, by gcov.

The helpers are included in a source that cffi generates; `#line` marks tell gcov where they are.
Of its lines those count that belong to one of our functions.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

OURS = "uringio_"
NEVER = "/* never:"


def untaken(built: Path, sources: dict[str, Path]) -> list[str]:
    """List what was never run or taken, as "path:line: what"; `built` has the .gcda files."""
    measured = [file for data in sorted(built.rglob("*.gcda")) for file in _measured(data)]
    found = []
    for name, path in sources.items():
        lines = [line for file in measured if file["file"].endswith(name) for line in file["lines"]]
        found += untaken_in(name, path.read_text().splitlines(), lines)
    return found


def _measured(data: Path) -> list[dict[str, Any]]:
    command = ["gcov", "--json-format", "--branch-probabilities", "--stdout", data.name]
    done = subprocess.run(command, cwd=data.parent, check=True, capture_output=True, text=True)
    return list(json.loads(done.stdout)["files"])


def untaken_in(name: str, source: list[str], lines: list[dict[str, Any]]) -> list[str]:
    """List what was never taken of one source, by the lines that gcov tells of it."""
    ours = [line for line in lines if str(line.get("function_name", "")).startswith(OURS)]
    if not ours:
        return [f"{name}: nothing of it was measured"]
    found = []
    for line in ours:
        number = line["line_number"]
        if number > len(source) or _is_excused(source, number):
            continue
        branches = [branch["count"] for branch in line["branches"]]
        if not line["count"]:
            found.append(f"{name}:{number}: never run")
        elif 0 in branches:
            missing = [str(i) for i, count in enumerate(branches) if not count]
            which = f"branch {', '.join(missing)} of {len(branches)}"
            found.append(f"{name}:{number}: {which} never taken: {source[number - 1].strip()}")
    return found


def _is_excused(source: list[str], number: int) -> bool:
    """Whether the line, or the comment right above it, says why no test gets there."""
    return any(NEVER in line for line in source[max(0, number - 2) : number])
