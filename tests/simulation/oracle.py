"""What was promised, and whether it was kept.

It hears what clients were told, and looks at what a disk has: it knows nothing of how the daemon
works. What it holds, by PROTOCOL.md ("Ordering and durability"):

- durable: whatever was acknowledged as durable is among the ranges of every later RESUME, with the
  checksum of the client's bytes, through kills and power cuts, until the upload ends.
- published: the file is whole under its name from the Receipt on, until a later COMMIT of the same
  name. At the level DURABLE power loss may take the name back, at WRITTEN the bytes too.
- No file is ever seen under a name that is not, byte for byte, what somebody committed under it.
- What was aborted is gone; what was created is found again, unless power was lost before any of it
  was durable, or it broke.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from uringd.wire import Durability, crc32c

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from uringd.v1 import uringd_pb2 as pb

PRIVATE = ".uringd"


@dataclass
class Story:
    """One upload, as its client knows it. Moments are counted by the oracle."""

    upload_id: str
    name: str
    content: bytes
    overwrite: bool
    level: Durability
    created: bool = False
    cuts: int = 0  # power cuts before it was asked for and found
    durable: list[tuple[int, int]] = field(default_factory=list)
    committed_at: float = math.inf
    published_at: float = math.inf
    receipt: pb.Receipt | None = None
    weak: bool = False  # the level of its receipt does not survive what has happened since
    torn: bool = False  # the same, and the bytes neither
    aborting: bool = False  # ABORT was sent
    aborted: bool = False

    @property
    def certain(self) -> bool:
        """Whether it has to be there."""
        return self.receipt is not None and not self.weak


class Oracle:
    """Holds what is seen against what was said; `broken` is told what does not agree."""

    def __init__(self, broken: Callable[[str], None]) -> None:
        self._broken = broken
        self._now = 0
        self.cuts = 0
        self.stories: dict[str, Story] = {}
        self.ended: dict[str, str] = {}

    def begin(self, story: Story) -> None:
        """Hear of an upload, before CREATE is sent."""
        self.stories[story.upload_id] = story

    def durable(self, story: Story, position: int) -> None:
        """Hear that everything below a position is durable."""
        if position > len(story.content):
            self._broken(f"{story.upload_id}: {position} bytes durable, it has fewer")
        if position:
            self._add(story, 0, position)

    def resumed(self, story: Story, reply: pb.ResumeReply) -> list[tuple[int, int]]:
        """Hear a RESUME's answer; the result is its ranges as offset and end."""
        ranges = [(part.offset, part.offset + part.length) for part in reply.durable]
        for part in reply.durable:
            ours = story.content[part.offset : part.offset + part.length]
            if len(ours) != part.length or crc32c(ours) != part.crc32c:
                self._broken(f"{story.upload_id}: RESUME tells of other bytes at {part.offset}")
        if reply.name != story.name:
            self._broken(f"{story.upload_id}: RESUME calls it {reply.name}, not {story.name}")
        for start, end in story.durable:
            if not any(a <= start and end <= b for a, b in ranges):
                self._broken(
                    f"{story.upload_id}: {start} to {end} was acknowledged as durable, and RESUME "
                    f"has {ranges}"
                )
        for start, end in ranges:
            self._add(story, start, end)
        return ranges

    def found(self, story: Story, cuts: int) -> None:
        """Hear that it is there: it was asked for after so many power cuts."""
        story.created, story.cuts = True, cuts

    def not_found(self, story: Story) -> None:
        """Hear that there is no such upload."""
        # A commit at WRITTEN was at work, its own or one over it: power loss may take all the name.
        torn = any(other.torn for other in self.of_name(story.name))
        if story.receipt is not None and not (story.weak and torn):
            self._broken(f"{story.upload_id} was published, and is not found")
        if not story.created or story.aborting or torn:
            return
        if self.ended.get(story.upload_id) in {"failed", "aborted"}:
            return
        if story.durable or self.cuts == story.cuts:
            self._broken(f"{story.upload_id} is not found, and has {story.durable} durable")

    def committing(self, story: Story) -> None:
        """Hear that COMMIT is about to be sent."""
        self._now += 1
        story.committed_at = min(story.committed_at, self._now)

    def committed(self, story: Story, receipt: pb.Receipt) -> None:
        """Hear a Receipt."""
        self._now += 1
        told = receipt.upload_id, receipt.name, receipt.size, receipt.crc32c
        ours = story.upload_id, story.name, len(story.content), crc32c(story.content)
        if told != ours:
            self._broken(f"the receipt says {told}, and it is {ours}")
        if receipt.durability < story.level:
            self._broken(f"the receipt says {receipt.durability}, {story.level} was asked for")
        if story.aborted:
            self._broken(f"{story.upload_id} was aborted, and has a receipt")
        if story.receipt is None and not story.overwrite:
            for other in self.of_name(story.name):
                if other.certain and other.published_at < story.committed_at:
                    self._broken(f"{story.upload_id} has replaced {other.upload_id} unasked")
        if story.receipt is None:
            story.published_at = self._now
        story.receipt = receipt
        if receipt.durability == int(Durability.PUBLISHED):
            story.weak = story.torn = False

    def aborted(self, story: Story) -> None:
        """Hear that an upload was thrown away."""
        if story.receipt is not None:
            self._broken(f"{story.upload_id} has a receipt, and was aborted")
        story.aborted = True

    def lost_power(self) -> None:
        """Hear of a power cut."""
        self.cuts += 1
        for story in self.stories.values():
            level = story.level if story.receipt is None else story.receipt.durability
            if level < Durability.PUBLISHED:
                story.weak = True
                story.torn = story.torn or level < Durability.DURABLE

    def of_name(self, name: str) -> list[Story]:
        """Those of a name that may have come to have it: COMMIT was sent, and not taken back.

        A commit that failed behind its rename leaves the whole file, whatever is aborted then.
        """
        return [
            story
            for story in self.stories.values()
            if story.name == name
            and story.committed_at < math.inf
            and not (story.aborted and self.ended.get(story.upload_id) != "failed")
        ]

    def look(self, root: Path) -> None:
        """Hold what is below a root against what was committed."""
        seen = {
            str(path.relative_to(root)): path.read_bytes()
            for path in sorted(root.rglob("*"))
            if path.is_file() and path.relative_to(root).parts[0] != PRIVATE
        }
        names = {story.name for story in self.stories.values()}
        for name in sorted(names | set(seen)):
            self._judge(name, seen.get(name))

    def _judge(self, name: str, content: bytes | None) -> None:
        stories = self.of_name(name)
        certain = [story for story in stories if story.certain]
        possible = [
            story
            for story in stories
            if not any(other.committed_at > story.published_at for other in certain)
        ]
        if content is None:
            if certain:
                self._broken(f"{name} was published by {certain[-1].upload_id}, and is not there")
        elif not any(story.torn or story.content == content for story in possible):
            known = [s.upload_id for s in self.stories.values() if s.content == content]
            what = f"is that of {known[0]}" if known else f"of {len(content)} bytes is nobody's"
            self._broken(f"the file under {name} {what}; possible: {_ids(possible)}")

    def _add(self, story: Story, start: int, end: int) -> None:
        """Keep ranges merged: what is durable in two acknowledgements is durable together."""
        merged: list[tuple[int, int]] = []
        for a, b in sorted([*story.durable, (start, end)]):
            if merged and a <= merged[-1][1]:
                merged[-1] = merged[-1][0], max(b, merged[-1][1])
            else:
                merged.append((a, b))
        story.durable = merged


def _ids(stories: list[Story]) -> str:
    return ", ".join(story.upload_id for story in stories) or "none"
