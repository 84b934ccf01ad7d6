"""Uploads that have to end well: published and identical, or aborted and gone."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from tests.crash.ledger import BrokenPromiseError, Known, Ledger
from tests.crash.processes import Outcome, run
from uringd.wire import ErrorCode

if TYPE_CHECKING:
    from pathlib import Path

    from tests.crash.relay import Relay
    from tests.crash.tally import Tally

OCTAVES = 3
"""The largest is 8 times the smallest, evenly over the logarithm: more small ones than large."""

COMMANDS_MAX = 100
"""For one upload: one that needs more gets nowhere."""
WAIT_S = 0.2
"""Before a command that was refused for now, or found nobody, is run again."""

KILLED = -9
REFUSED = 3
LOST = 4

FOR_NOW = {ErrorCode.BUSY, ErrorCode.SHUTTING_DOWN, ErrorCode.TIMEOUT}
"""Refusals after which the same is asked again."""


@dataclass
class Surroundings:
    """What all uploads of a run share."""

    directory: Path
    root: Path
    relay: Relay
    ledger: Ledger
    tally: Tally
    size_min_bytes: int
    # Random bytes of which every source is a piece, so that a run needs little memory and time.
    blob: bytes = field(init=False, repr=False)
    running: set[trio.Process] = field(default_factory=set)  # the `put`s, to be killed
    unfinished: set[str] = field(default_factory=set)  # names

    def __post_init__(self) -> None:
        self.blob = random.Random(self.tally.seed).randbytes(2 * self.size_min_bytes << OCTAVES)


class Upload:
    """One upload, begun and gone on with until it is over."""

    def __init__(self, around: Surroundings, number: int) -> None:
        self._around = around
        self._random = random.Random(f"{around.tally.seed}/{number}")
        self.name = f"upload-{number:05d}"
        # Odd sizes, so that there is a tail.
        self._size = int(around.size_min_bytes * 2 ** (OCTAVES * self._random.random())) | 1
        begin = self._random.randrange(len(around.blob) - self._size)
        self._content = memoryview(around.blob)[begin : begin + self._size]
        self._lanes = self._random.choice([1, 4])
        self._from_stdin = self._lanes == 1 and self._random.random() < 0.2
        self._durability = self._random.choices(["published", "durable", "written"], [6, 2, 2])[0]
        self._source = around.directory / f"{self.name}.source"
        self._target = around.root / self.name

    async def bring_to_an_end(self) -> None:
        """Run commands until it is published or aborted. Raises BrokenPromiseError."""
        await trio.to_thread.run_sync(self._source.write_bytes, self._content)
        published = await self._go_on()
        await self._check(published=published)
        self._source.unlink()
        self._count(published=published)

    async def _go_on(self) -> bool:
        """Run `put` until there is a receipt, or `abort` in its place; True when published."""
        for _ in range(COMMANDS_MAX):
            known = self._known()
            outcome = await self._put(known)
            known = self._known()
            if outcome.code == 0:
                if known is None or not known.receipt:
                    raise self._broken("put was content, and no Receipt went past")
                return True
            if outcome.code == KILLED:
                gives_up = self._from_stdin or self._random.random() < 0.2
                if known is not None and gives_up:
                    return not await self._abort(known)
            elif outcome.code == LOST:
                await trio.sleep(WAIT_S)
            elif outcome.code == REFUSED and (last := self._last()) is not None:
                await self._refused(last, outcome)
            else:
                raise self._broken(f"put ended with {outcome.code}: {outcome.said}")
        raise self._broken(f"{COMMANDS_MAX} commands did not bring it to an end")

    def _known(self) -> Known | None:
        """The upload that can be gone on with: the last one of this name, unless there is none."""
        last = self._last()
        return last if last is not None and last.refusal is not ErrorCode.NOT_FOUND else None

    def _last(self) -> Known | None:
        """The last upload of this name that anybody heard of."""
        known = self._around.ledger.of_name(self.name)
        return known[-1] if known else None

    async def _refused(self, known: Known, outcome: Outcome) -> None:
        """Take a refusal: for now, or because CREATE never got as far as the server."""
        if known.refusal is ErrorCode.NOT_FOUND and not known.created:
            return  # the next command creates it
        if known.refusal not in FOR_NOW:
            code = known.refusal.name if known.refusal else "no frame of ours"
            raise self._broken(f"put was refused ({code}): {outcome.said}")
        await trio.sleep(WAIT_S)

    async def _put(self, known: Known | None) -> Outcome:
        arguments = ["put", "-" if self._from_stdin else str(self._source)]
        arguments += ["--name", self.name, "--quiet", "--durability", self._durability]
        arguments += ["--lanes", str(self._lanes)]
        if known is not None:
            arguments += ["--resume", known.upload_id]
        return await self._command(arguments, killable=True)

    async def _abort(self, known: Known) -> bool:
        """Run `abort` until it is answered; False when the upload was published before."""
        for _ in range(COMMANDS_MAX):
            outcome = await self._command(["abort", known.upload_id])
            if outcome.code == 0:
                return True
            if outcome.code == REFUSED and known.refusal is ErrorCode.NOT_FOUND:
                return not self._target.exists()
            if outcome.code not in {LOST, REFUSED}:
                raise self._broken(f"abort ended with {outcome.code}: {outcome.said}")
            await trio.sleep(WAIT_S)
        raise self._broken(f"{COMMANDS_MAX} times abort was not answered: {outcome.said}")

    async def _command(self, arguments: list[str], *, killable: bool = False) -> Outcome:
        around = self._around
        around.tally.commands += 1
        url = f"tcp://127.0.0.1:{around.relay.port}"
        # put takes FILE URL, abort takes URL ID.
        at = 2 if arguments[0] == "put" else 1
        command = [*arguments[:at], url, *arguments[at:]]
        log = around.directory / f"{self.name}.log"
        running = around.running if killable else None
        if not self._from_stdin:
            return await run(command, log, running=running)
        with self._source.open("rb") as stdin:
            return await run(command, log, stdin=stdin, running=running)

    async def _check(self, *, published: bool) -> None:
        """Hold what is there against what was said, and remove it."""
        receipts = [known for known in self._around.ledger.of_name(self.name) if known.receipt]
        if receipts and not self._target.exists():
            raise self._broken("it has a Receipt, and no file")
        if published:
            if await trio.to_thread.run_sync(self._target.read_bytes) != self._content:
                raise self._broken("the published file differs from its source")
        elif self._target.exists():
            raise self._broken("abort was answered, and there is a file")
        self._target.unlink(missing_ok=True)

    def _count(self, *, published: bool) -> None:
        tally = self._around.tally
        tally.uploads["published" if published else "aborted"] += 1
        tally.lanes[self._lanes] += 1
        all_known = self._around.ledger.of_name(self.name)
        tally.resumes += sum(known.resumes for known in all_known)
        if published:
            tally.published_bytes += self._size
            tally.ratios.append(sum(known.sent_bytes for known in all_known) / self._size)

    def _broken(self, text: str) -> BrokenPromiseError:
        return BrokenPromiseError(
            f"{self.name} ({self._size:,} bytes, {self._lanes} lanes): {text}"
        )
