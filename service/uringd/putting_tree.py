"""`uringd put --recursive`: all regular files below a directory.

Small files go many at a time (`Client.put_many`), big ones by an upload each. To run it again is to
go on: what is there and equal is left alone. Of a small file that is known byte by byte, since the
server compares; a big one counts as equal when it has the same size and was published after the
local file was last changed, as rsync would say.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import click

from uringd.client import RETRY_S, Client, PutResult, connect
from uringd.command_line import EXIT_LOCAL, EXIT_REFUSED
from uringd.errors import ConnectionLostError, RefusedError, SourceError
from uringd.source import Source
from uringd.tally import Tally
from uringd.tree import TreeFile, read_small, walk
from uringd.wire import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from uringd.putting import Options
    from uringd.urls import Url

AGAIN = "run it again to go on: what is there already is left alone"


async def put_tree(directory: str, url: Url, options: Options) -> int:
    """Upload a directory and print the summary; the result is the exit code. Raises ClientError."""
    retry_s = RETRY_S if options.retry_s is None else options.retry_s
    prefix = options.name or _own_name(directory)
    with Tally(quiet=options.quiet) as tally:
        try:
            async with connect(url, token=options.token, retry_s=retry_s) as client:
                await _Tree(client, options, tally).send(directory, prefix.rstrip("/"))
        except ConnectionLostError as exc:
            raise ConnectionLostError(f"{exc.text}; {tally}; {AGAIN}") from exc
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"{tally}; {AGAIN}") from None
        except OSError as exc:
            raise SourceError(f"cannot read {directory}: {exc.strerror}") from exc
    for remark in tally.remarks:
        click.echo(f"uringd: {remark}", err=True)
    click.echo(json.dumps(tally.facts()) if options.as_json else str(tally))
    if tally.refused:
        return EXIT_REFUSED
    return EXIT_LOCAL if tally.local else 0


def _own_name(directory: str) -> str:
    """Return the last component of a directory's path, also of `.` or `..`."""
    return os.path.basename(os.path.abspath(directory))


class _Tree:
    """One run of it."""

    def __init__(self, client: Client, options: Options, tally: Tally) -> None:
        self._client = client
        self._options = options
        self._tally = tally
        self._small_bytes_max = client.small_bytes_max
        self._big: list[tuple[str, TreeFile]] = []

    async def send(self, directory: str, prefix: str) -> None:
        files = self._named(directory, prefix)
        if "small-uploads" in self._client.features:
            await self._client.put_many(
                self._contents(files),
                self._done,
                overwrite=self._options.overwrite,
                keep_equal=True,
                durability=self._options.durability,
                lanes=self._options.lanes,
            )
        else:
            text = f"uringd: the server at {self._client.url} takes small files one by one only"
            click.echo(text, err=True)
            self._big += files
        for name, file in self._big:
            try:
                await self._send_big(name, file)
            except SourceError as exc:
                self._tally.unreadable(file.path, str(exc))
            except RefusedError as exc:
                if exc.passing or exc.code is ErrorCode.UNAUTHORIZED:
                    raise
                self._tally.was_refused(name, str(exc))

    # tree.Listener

    def skipped(self, path: str, reason: str) -> None:
        self._tally.skipped_one(path, reason)

    def unreadable(self, path: str, reason: str) -> None:
        self._tally.unreadable(path, reason)

    def _named(self, directory: str, prefix: str) -> Iterator[tuple[str, TreeFile]]:
        for file in walk(directory, self):
            yield f"{prefix}/{file.name}", file

    def _contents(self, files: Iterator[tuple[str, TreeFile]]) -> Iterator[tuple[str, bytes]]:
        """Read the small files, and set the big ones aside."""
        for name, file in files:
            if file.size > self._small_bytes_max:
                self._big.append((name, file))
                continue
            try:
                content = read_small(file.path, self._small_bytes_max)
            except OSError as exc:
                self._tally.unreadable(file.path, exc.strerror or str(exc))
                continue
            if content is None:
                self._big.append((name, file))
            else:
                yield name, content

    def _done(self, result: PutResult) -> None:
        if result.receipt is not None:
            self._tally.was_published(result.receipt.size, unchanged=result.unchanged)
        else:
            self._tally.was_refused(result.name, str(result.error))

    async def _send_big(self, name: str, file: TreeFile) -> None:
        if await self._is_there(name, file):
            self._tally.was_published(file.size, unchanged=True)
            return
        with Source(file.path) as source:
            async with self._client.upload(
                name,
                source.length,
                overwrite=self._options.overwrite,
                durability=self._options.durability,
                lanes=self._options.lanes,
                page_checksums=self._options.page_checksums,
            ) as upload:
                if source.length is None:
                    await upload.send_from(source)
                else:
                    await upload.send_file(source)
                receipt = await upload.commit()
        self._tally.was_published(receipt.size, unchanged=False)

    async def _is_there(self, name: str, file: TreeFile) -> bool:
        try:
            found = (await self._client.stat(name=name)).file
        except RefusedError as exc:
            if exc.code is ErrorCode.NOT_FOUND:
                return False
            raise
        return found.size == file.size and found.modified_ns >= file.modified_ns
