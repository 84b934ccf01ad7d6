"""What is made of gcov's report: lines never run, branches never taken, what is excused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.coverage.c_branches import untaken, untaken_in

SOURCE = ["int f(int x)", "{", "    if (x)", "        return 1;", "    return 0;", "}"]


def line(number: int, count: int, *branches: int, function: str = "uringio_f") -> dict[str, Any]:
    taken = [{"count": branch} for branch in branches]
    return {"line_number": number, "count": count, "branches": taken, "function_name": function}


def test_a_branch_that_was_never_taken_is_told_with_its_line() -> None:
    lines = [line(3, 7, 7, 0), line(4, 7), line(5, 0)]
    assert untaken_in("a.c", SOURCE, lines) == [
        "a.c:3: branch 1 of 2 never taken: if (x)",
        "a.c:5: never run",
    ]


def test_what_says_why_it_is_never_taken_is_excused() -> None:
    lines = [line(3, 7, 7, 0), line(5, 0)]
    excused = [
        *SOURCE[:4],
        "    return 0; /* never: x is at least 1, as its caller sees to */",
        "}",
    ]
    assert untaken_in("a.c", excused, lines) == ["a.c:3: branch 1 of 2 never taken: if (x)"]


def test_functions_of_others_and_lines_behind_the_end_do_not_count() -> None:
    lines = [line(3, 1, 1, 1), line(4, 0, function="_cffi_f"), line(99, 0)]
    assert untaken_in("a.c", SOURCE, lines) == []


def test_a_source_of_which_nothing_was_measured_is_no_success(tmp_path: Path) -> None:
    source = tmp_path / "a.c"
    source.write_text("\n".join(SOURCE))
    assert untaken(tmp_path, {"a.c": source}) == ["a.c: nothing of it was measured"]
