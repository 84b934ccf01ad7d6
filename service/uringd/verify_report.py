"""`uringd verify`: which files to read, and what is said of them."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import click
import trio

from uringd.groups import main_reason
from uringd.progress import Progress
from uringd.receipts import Receipts
from uringd.root import DIRECTORY_FLAGS, RootError
from uringd.verifying import Finding, Outcome, Verifier
from uringio import open_ring

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from uringd.verifying import Subject


class Report:
    """Says what was found, a line for each file, and keeps count. Lines go to stdout."""

    def __init__(self, *, everything: bool, as_json: bool, quiet: bool) -> None:
        self._everything = everything
        self._as_json = as_json
        self._quiet = quiet
        self._outcomes: Counter[Outcome] = Counter()
        self._bytes = 0
        self._buffered = 0
        self._started = time.monotonic()
        self.failed = False
        self.backend = ""

    def add(self, finding: Finding) -> None:
        """Say what was found under one name."""
        fine = finding.outcome is Outcome.OK or (
            # Who removes a file says so by removing it: there is no other way.
            finding.outcome is Outcome.MISSING and self._everything
        )
        self.failed |= not fine
        self._outcomes[finding.outcome] += 1
        if finding.found_crc32c is not None:
            self._bytes += finding.found_size or 0
        self._buffered += finding.direct is False
        if fine and self._quiet:
            return
        name = os.fsencode(finding.name).decode(errors="replace")
        if self._as_json:
            facts = dataclasses.asdict(finding) | {"name": name}
            for key in ("crc32c", "found_crc32c"):
                facts[key] = None if facts[key] is None else f"{facts[key]:08x}"
            click.echo(json.dumps(facts))
            return
        reasons = [finding.reason] if finding.reason else []
        if finding.direct is False:
            reasons.append("read through the page cache")
        said = "; ".join(reasons)
        click.echo(f"{finding.outcome:<10} {name}{': ' if said else ''}{said}")

    def end(self) -> None:
        """Say how many files there were, and how fast they were read."""
        if self._quiet:
            return
        seconds = time.monotonic() - self._started
        counts = {outcome.value: self._outcomes[outcome] for outcome in Outcome}
        files, mib = self._outcomes.total(), self._bytes / 2**20
        if self._as_json:
            facts: dict[str, Any] = {"files": files, **counts, "buffered": self._buffered}
            facts |= {"bytes": self._bytes, "seconds": round(seconds, 3), "backend": self.backend}
            click.echo(json.dumps({"summary": facts}))
            return
        counted = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
        how = f", {self._buffered} of them through the page cache" if self._buffered else ""
        how += "" if self.backend == "io_uring" else f", by {self.backend}"
        click.echo(
            f"{files} file{'' if files == 1 else 's'}: {counted or 'none has a receipt'}; "
            f"{mib:.1f} MiB in {seconds:.1f} s, {mib / seconds:.0f} MiB/s{how}"
        )


def run(root: Path, names: Sequence[str], *, as_json: bool, quiet: bool) -> bool:
    """Verify published files of ROOT, all without `names`; whether every one is as it should be.

    Raises RootError, CatalogError, UringioError, OSError, KeyboardInterrupt: what stopped it.
    """
    report = Report(everything=not names, as_json=as_json, quiet=quiet)
    try:
        root_fd = os.open(root, DIRECTORY_FLAGS)
    except OSError as exc:
        raise RootError(f"cannot read {root}: {exc.strerror}") from exc
    try:
        trio.run(
            _verify,
            root_fd,
            Receipts(root),
            names,
            report,
            quiet,
            # Ctrl-C ends a wait, and not a step of a ring that is being taken down.
            restrict_keyboard_interrupt_to_checkpoints=True,
        )
    except BaseExceptionGroup as group:
        raise main_reason(group) from group
    finally:
        os.close(root_fd)
    report.end()
    return not report.failed


async def _verify(
    root_fd: int,
    receipts: Receipts,
    names: Sequence[str],
    report: Report,
    quiet: bool,  # noqa: FBT001  # trio.run takes no keywords
) -> None:
    def look_up() -> tuple[Iterator[list[Subject]], int]:
        if names:
            page = [(name, receipts.find(name)) for name in dict.fromkeys(names)]
            return iter([page]), sum(records[0].size for _, records in page if records)
        pages = receipts.newest()
        _, size = receipts.total()
        return ([(record.name, (record,)) for record in page] for page in pages), size

    pages, size = await trio.to_thread.run_sync(look_up)
    async with open_ring() as ring:
        report.backend = ring.features.backend
        with Progress("verify", size, quiet=quiet) as progress:
            verifier = Verifier(ring, root_fd, receipts, progress.advance)
            await verifier.verify_many(pages, report.add)
