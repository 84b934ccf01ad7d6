"""What a mutant is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mutant:
    """`old` becomes `new` in the file `path`; one of `tests` must fail then."""

    name: str
    path: str
    old: str
    new: str
    tests: tuple[str, ...]
