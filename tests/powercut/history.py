"""What was asked and acknowledged when, and what may be found after a power cut at a moment.

A moment is a position in the log of the disk. One that is read after an acknowledgement came lies
behind all that the acknowledgement rests on, so what is demanded is never too much. Nothing here
looks at a disk.
"""

from __future__ import annotations

from dataclasses import dataclass, field

LOST = "what was acknowledged as {} is lost"
TORN = "it holds {} bytes that are no version of it"


@dataclass
class Version:
    """One content that a name was to have. `begun` is before, `acknowledged` after its commit.

    `keeps_name`: at level "durable" its name comes back too, for a server that finds its bytes
    names them again (PROTOCOL.md, "Ordering and durability"). The library and PUT make no such
    promise. `upload_id` is of an upload whose Receipt is recorded before it is sent.
    """

    content: bytes
    level: str  # written, durable, published
    begun: int
    keeps_name: bool = False
    acknowledged: int | None = None
    upload_id: str = ""

    def is_promised(self, moment: int) -> bool:
        """Whether a cut at a moment must leave this content, or a newer one, under the name."""
        if self.acknowledged is None or self.acknowledged > moment:
            return False
        return self.level == "published" or (self.level == "durable" and self.keeps_name)


@dataclass
class Partial:
    """An upload that fills. `durable` are positions acknowledged as such, each with its moment.

    `ends` is the moment at which its commit or abort was sent. `gives_up`: that was an abort, or a
    commit at level "written", which promises nothing of its own and ends what SYNC has promised.
    """

    name: str
    content: bytes
    durable: list[tuple[int, int]] = field(default_factory=list)  # moment, position
    ends: int | None = None
    gives_up: bool = False

    def acknowledge(self, moment: int, position: int) -> None:
        """Note what the server said is durable."""
        if position:
            self.durable.append((moment, position))

    def promised(self, moment: int) -> int:
        """How many bytes a cut at a moment must leave; 0 once it is given up."""
        if self.gives_up and self.ends is not None and self.ends <= moment:
            return 0
        return max((position for at, position in self.durable if at <= moment), default=0)

    def may_be_over(self, moment: int) -> bool:
        """Whether a cut at a moment can have come after its commit or abort."""
        return self.ends is not None and self.ends <= moment


@dataclass
class History:
    """All of one recording: versions by path below the disk's root, uploads by id."""

    files: dict[str, list[Version]] = field(default_factory=dict)
    uploads: dict[str, Partial] = field(default_factory=dict)

    def begin(self, path: str, version: Version) -> Version:
        """Note that a name is to have a content: after those before it have ended."""
        self.files.setdefault(path, []).append(version)
        return version


def judge(versions: list[Version], found: bytes | None, moment: int) -> str:
    """Say what is wrong with a name after a cut at a moment, or nothing.

    Right is the newest version that was promised, or a newer one; before any was promised, also no
    file at all. A name with versions of level "written" has no others, and may have any content.
    """
    at = max((n for n, each in enumerate(versions) if each.is_promised(moment)), default=-1)
    if found is None:
        return LOST.format(versions[at].level) if at >= 0 else ""
    if any(each.content == found for each in versions[max(at, 0) :]):
        return ""
    if any(each.content == found for each in versions[:at]):
        return LOST.format(versions[at].level) + ": an older version has its name"
    if all(each.level == "written" for each in versions):
        return ""
    return TORN.format(len(found))
