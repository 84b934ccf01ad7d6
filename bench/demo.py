"""Upload real data to a uringd of our own, compare it, show what it gained: `make demo`.

Everything happens in one temporary directory, which is removed at the end, however that comes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

sys.path.append(str(Path(__file__).parents[1]))  # python -I leaves it out: it is where bench/ is

import click
import trio
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from bench.harness.archive import TREES, Selection, select_files, start_tar
from bench.harness.daemon import Daemon, put_command, read_receipt
from bench.harness.environment import describe
from bench.harness.files import PIECE_BYTES, file_sha256, repeat_until, same_bytes
from bench.harness.library import copy_through_slots
from bench.harness.measurement import CannotRunError
from bench.harness.plain import copy_plain
from bench.harness.units import MIB, size_text

if TYPE_CHECKING:
    from collections.abc import Iterator

FREE_BYTES_MIN = 5 << 30
"""The large file, its published copy, and room for the file system to breathe."""
LARGE_BYTES_MIN = 1 << 30
IN_MEMORY = {"tmpfs", "ramfs"}
INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    `seconds` is from CREATE to the receipt, or from open to close. What does not wait for a source
    other than the page cache is `comparable`.
    """

    what: str
    size: int
    seconds: float
    durable: str
    comparable: bool = True


@dataclass(slots=True)
class Demo:
    """The demo's uploads, to `daemon`, whose root is `root`; scratch files go to `directory`."""

    directory: Path
    root: Path
    daemon: Daemon

    def upload_archive(self, selection: Selection) -> tuple[Path, Row]:
        """Stream tar into `uringd put -`, hashing what passes; compare what was published."""
        name = "usr-lib.tar"
        say(f"\n1. a tar of {', '.join(selection.trees)}, streamed through stdin")
        sent = hashlib.sha256()
        command = self._put("-", "unix", name)
        with (
            running(start_tar(selection, self.directory / "listing")) as tar,
            running(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            ) as put,
        ):
            assert tar.stdout is not None
            assert put.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # put says why on stderr, and its exit code
                while piece := tar.stdout.read(PIECE_BYTES):
                    sent.update(piece)
                    put.stdin.write(piece)
            tar.stdout.close()
            receipt = finish(put, name)
            if tar.wait() > 1:  # 1: a file changed while it was read
                raise CannotRunError(f"tar failed with exit code {tar.returncode}")
        published = self.root / name
        if file_sha256(published) != sent.hexdigest():
            raise CannotRunError(f"{name} as published differs from what tar wrote")
        say(f"published == sent, SHA-256 {sent.hexdigest()}")
        show_receipt(receipt)
        what = "put, tar through stdin"
        return published, Row(
            what, receipt["size"], receipt["seconds"], "published", comparable=False
        )

    def upload_file(self, source: Path, transport: Literal["tcp", "unix"]) -> Row:
        """Upload a regular file, compare byte for byte, remove what was published."""
        name = f"large-{transport}.bin"
        command = self._put(source, transport, name)
        os.sync()  # what was written before is not to be paid for now
        with running(subprocess.Popen(command, stdout=subprocess.PIPE)) as put:
            receipt = finish(put, name)
        published = self.root / name
        if not same_bytes(source, published):
            raise CannotRunError(f"{name} as published differs from its source")
        published.unlink()
        say(f"published == sent, {receipt['size']} bytes compared one by one")
        show_receipt(receipt)
        what = "put, TCP" if transport == "tcp" else "put, Unix socket"
        return Row(what, receipt["size"], receipt["seconds"], "published")

    def write_plain(self, source: Path) -> Row:
        """Copy the same bytes by os.write with one fsync at the end."""
        target = self.directory / "plain.bin"
        os.sync()
        began = time.perf_counter()
        copy_plain(source, target, PIECE_BYTES)
        seconds = time.perf_counter() - began
        size = target.stat().st_size
        target.unlink()
        return Row("os.write + fsync", size, seconds, "file fsynced")

    def write_here(self, source: Path) -> Row:
        """Copy the same bytes by the library, in this process: no server and no socket between."""
        target = self.directory / "library.bin"
        os.sync()
        seconds = trio.run(copy_through_slots, source, target)
        size = target.stat().st_size
        if not same_bytes(source, target):
            raise CannotRunError("what the library wrote differs from its source")
        target.unlink()
        return Row("uringio, no network", size, seconds, "published")

    def _put(
        self, source: Path | Literal["-"], transport: Literal["tcp", "unix"], name: str
    ) -> list[str]:
        quiet = [] if sys.stderr.isatty() else ["--quiet"]
        return [*put_command(source, self.daemon.urls[transport], name), *quiet]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--dir",
    "directory",
    type=click.Path(exists=True, file_okay=False, writable=True, path_type=Path),
    default=Path("/var/tmp"),  # noqa: S108  # the temporary directory that is on a disk
    show_default=True,
    envvar="URINGD_DEMO_DIR",
    show_envvar=True,
    help="A directory on a real disk, with 5 GiB free.",
)
def main(directory: Path) -> None:
    """Start a uringd, upload real data to it, compare what it published, and stop it.

    A tar of this machine's own files goes in through stdin, then a file of 1 GiB or more over a
    Unix socket and over TCP, beside the same bytes by plain os.write and fsync and by the library
    without a network. Takes about a minute and leaves nothing behind.
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # clean up, also where a shell had us ignore it
        signal.signal(number, signal.default_int_handler)
    try:
        with tempfile.TemporaryDirectory(prefix="uringd-demo-", dir=directory) as scratch:
            rows = run(Path(scratch))
    except KeyboardInterrupt:
        click.echo("uringd demo: interrupted; everything was removed", err=True)
        sys.exit(INTERRUPTED)
    except (CannotRunError, OSError) as exc:
        raise click.ClickException(str(exc)) from exc
    say("uringd ended with exit code 0; everything was removed\n")
    show_table(rows)


def run(scratch: Path) -> list[Row]:
    """Do all of it in `scratch`."""
    check_place(scratch)
    root = scratch / "root"
    with Daemon(root, ["unix", "tcp"]) as daemon:
        say(f"uringd listens on {daemon.urls['unix']} and {daemon.urls['tcp']}")
        demo = Demo(scratch, root, daemon)
        archive, first = demo.upload_archive(select_files(TREES))
        large = archive.rename(scratch / "large.bin")
        repeat_until(large, LARGE_BYTES_MIN)
        say(f"\n2. a regular file of {size_text(large.stat().st_size)}, over a Unix socket")
        over_unix = demo.upload_file(large, "unix")
        say("\n3. the same file over TCP")
        over_tcp = demo.upload_file(large, "tcp")
        say("\n4. the same bytes by os.write + fsync")
        plain = demo.write_plain(large)
        say("\n5. the same bytes by uringio, in this process")
        here = demo.write_here(large)
        if code := daemon.stop():
            raise CannotRunError(f"uringd left exit code {code} after SIGTERM instead of 0")
    return [plain, here, over_unix, over_tcp, first]


def check_place(scratch: Path) -> None:
    """Say where it happens; refuse a place that is too small."""
    free = shutil.disk_usage(scratch).free
    if free < FREE_BYTES_MIN:
        raise CannotRunError(
            f"{scratch.parent} has {size_text(free)} free and the demo needs "
            f"{size_text(FREE_BYTES_MIN)}: name a directory on another disk by URINGD_DEMO_DIR"
        )
    said = describe(scratch)
    say(f"working in {scratch.parent}: {said['file_system']} on {said['device']}, {said['kernel']}")
    if said["file_system"] in IN_MEMORY:
        say("this is memory, not a disk: the rates below say nothing (URINGD_DEMO_DIR names one)")


@contextlib.contextmanager
def running(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Make sure that a process has ended when we leave."""
    try:
        yield process
    finally:
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        if process.poll() is None:
            process.terminate()
        process.wait()


def finish(put: subprocess.Popen[bytes], name: str) -> dict[str, Any]:
    """Wait for an upload: its receipt. It has said itself on stderr what went wrong."""
    if put.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            put.stdin.close()
    assert put.stdout is not None
    said = put.stdout.read().decode()
    if code := put.wait():
        raise CannotRunError(f"the upload of {name} failed with exit code {code}")
    return read_receipt(said)


def show_receipt(receipt: dict[str, Any]) -> None:
    """Print a receipt as uringd sent it."""
    say(f"receipt: {json.dumps(receipt)}")


def show_table(rows: list[Row]) -> None:
    """Print the table; the first row is what the others are compared with."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in ("", "MiB", "seconds", "MiB/s", "x os.write", "durable"):
        table.add_column(column, justify="left" if column in {"", "durable"} else "right")
    plain = rows[0].size / rows[0].seconds
    for row in rows:
        rate = row.size / row.seconds
        table.add_row(
            row.what,
            f"{row.size / MIB:.0f}",
            f"{row.seconds:.2f}",
            f"{rate / MIB:.0f}",
            f"{rate / plain:.2f}" if row.comparable else "-",
            row.durable,
        )
    Console().print(table)
    say(
        "Method: one run each, 1 MiB pieces, the source in the page cache; uploads from CREATE\n"
        "to the receipt, os.write from open to close. All are durable then (published: fsynced,\n"
        "renamed, directory fsynced). tar through stdin goes as fast as tar reads small files.\n"
        "How fast os.write is depends on the state of memory too: `make bench` measures properly."
    )


def say(text: str) -> None:
    """Print a line now: the progress bars of uploads come between."""
    click.echo(text)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
