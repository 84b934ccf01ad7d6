"""What the disk has of the names: as of each directory's last fsync, and what was changed since.

What a file system may do: a name that was given, moved or taken away since the last fsync of its
directory survives a power cut or does not, whatever became of other names, and whatever of the
file's bytes is durable. Two things hold on every journaled file system, and so here: the changes
of one name survive in their order, none without those before it; and a rename is one change, though
it concerns two names and maybe two directories. The fsync of either makes it durable.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Collection

Name = tuple[int, str]
"""A directory's number, and a name in it."""

Change = dict[Name, int | None]
"""Names that changed at once: which file or directory each stands for since, None for none."""


@dataclass(slots=True)
class Names:
    """Which names there are, `durable` and `current`, and the `changes` between, oldest first."""

    durable: dict[Name, int] = field(default_factory=dict)
    current: dict[Name, int] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)

    def change(self, change: Change) -> None:
        """Take note of names that changed at once."""
        _apply(self.current, change)
        self.changes.append(change)

    def sync(self, directory: int) -> None:
        """Make a directory's names durable, and what they depend on."""
        wanted: set[Name] = set()
        made: list[Change] = []
        for change in reversed(self.changes):
            if any(name in wanted or name[0] == directory for name in change):
                wanted.update(change)
                made.append(change)
        self.changes = [change for change in self.changes if all(c is not change for c in made)]
        for change in reversed(made):
            _apply(self.durable, change)

    def sync_all(self) -> None:
        """Make every name durable."""
        self.durable, self.changes = dict(self.current), []

    def settle(self, random: random.Random, kept: Collection[str] = ()) -> None:
        """Decide which changes since the last fsyncs the device has: they are durable then.

        Of `kept` names it has all.
        """
        likelihood = random.choice((0.0, 0.5, 1.0))
        lost: set[Name] = set()
        for change in self.changes:
            survives = random.random() < likelihood or all(name in kept for _, name in change)
            if survives and lost.isdisjoint(change):
                _apply(self.durable, change)
            else:
                lost.update(change)
        self.current, self.changes = dict(self.durable), []

    def numbers(self) -> set[int | None]:
        """Tell what has a name, or may have one again after a power cut."""
        changed = (number for change in self.changes for number in change.values())
        return {*self.current.values(), *self.durable.values(), *changed}

    def copy(self) -> Names:
        """Copy it: a change of one is not seen in the other."""
        return Names(dict(self.durable), dict(self.current), list(self.changes))


def _apply(names: dict[Name, int], change: Change) -> None:
    for name, number in change.items():
        if number is None:
            names.pop(name, None)
        else:
            names[name] = number
