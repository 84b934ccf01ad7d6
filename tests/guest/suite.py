"""Run the core of the tests in a guest, on a kernel that is not this machine's.

    make guest-tests [KERNEL=6.1] [FS=ext4]

The ring and its flags, the fallback, short writes, publish, the whole writer and file, small files,
and uploads through the daemon, on a file system of the guest's own disk. What the kernel gives is
printed first, as a line of JSON. Exit code 1 if a test fails.

What a simulated ring is asked for is left out: it asks no kernel.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))  # python -I leaves it out: it is where tests/ is

import click
import trio

from tests.guest.build import IN_GUEST, CannotBuildError, image
from tests.guest.campaign import DISK_BYTES, MAKE
from tests.guest.machine import Guest, GuestError, running

CORE = (
    "tests/uringio/ring/test_conformance.py",
    "tests/uringio/ring/test_many.py",
    "tests/uringio/ring/test_probe.py",
    "tests/uringio/ring/test_registration.py",
    "tests/uringio/ring/test_short_writes.py",
    "tests/uringio/ring/test_small_files.py",
    "tests/uringio/ring/test_uring.py",
    "tests/uringio/trio/test_chain.py",
    "tests/uringio/trio/test_file.py",
    "tests/uringio/trio/test_modes.py",
    "tests/uringio/trio/test_opening.py",
    "tests/uringio/trio/test_preallocation.py",
    "tests/uringio/trio/test_publish.py",
    "tests/uringio/trio/test_rings.py",
    "tests/uringio/trio/test_short_writes.py",
    "tests/uringio/trio/test_writer.py",
    "tests/uringd/small/test_group.py",
    "tests/uringd/small/test_small_uploads.py",
    "tests/uringd/test_lanes.py",
    "tests/uringd/test_server.py",
    "tests/uringd/test_uploads.py",
)
OPTIONS = (
    "-v --color=no -p no:cacheprovider -p no:xdist --basetemp=/data/tmp/tests -k 'not simulated'"
    " -o tmp_path_retention_policy=failed"  # the disk is small
)
SUITE_S = 3600.0
"""Software emulation takes twenty times as long as the machine itself, and more on a busy one."""
PORT = 7433


async def run(series: str, file_system: str, chosen: tuple[str, ...], scratch: Path) -> int:
    """Run tests in a guest and print what they say; the result is pytest's. Raises GuestError."""
    disk = scratch / "disk.img"
    with disk.open("wb") as empty:
        empty.truncate(2 * DISK_BYTES)
    made = [*MAKE[file_system], str(disk)]
    await trio.run_process(made, capture_stdout=True, capture_stderr=True)
    async with running(Guest(*image(series), disk, PORT)) as machine:
        mount = f"mount -t {file_system} /dev/vda /data && mkdir -p /data/tmp"
        await machine.run(f"{mount} && cd /{IN_GUEST} && export TMPDIR=/data/tmp")
        said = await machine.run("python3 -P tests/guest/gets.py /data")
        click.echo(json.dumps({"file_system": file_system} | json.loads(said)))
        tests = " ".join(chosen or CORE)
        said = await machine.run(
            f"python3 -P -m pytest {OPTIONS} {tests} 2>&1; echo pytest-ended $?", SUITE_S, _tell
        )
    [code] = re.findall(r"pytest-ended (\d+)", said)
    return int(code)


def _tell(piece: str) -> None:
    click.echo(piece.replace("\r", ""), nl=False)


@click.command(help=(__doc__ or "").partition("\n\n")[0])
@click.option("--kernel", "series", default="6.1", show_default=True, help="A series of Debian's.")
@click.option("--fs", type=click.Choice(list(MAKE)), default="ext4", show_default=True)
@click.option("--directory", default="/var/tmp", show_default=True, type=Path, help="For the disk.")
@click.argument("tests", nargs=-1)
def main(series: str, fs: str, directory: Path, tests: tuple[str, ...]) -> None:
    if os.geteuid():
        raise click.UsageError("debootstrap makes device files: run this as root")
    scratch = Path(tempfile.mkdtemp(prefix="uringd-guest-", dir=directory))
    try:
        code = trio.run(run, series, fs, tests, scratch)
    except (CannotBuildError, GuestError, subprocess.CalledProcessError) as exc:
        raise click.ClickException(str(exc)) from exc
    finally:
        shutil.rmtree(scratch)
    sys.exit(1 if code else 0)


if __name__ == "__main__":
    main()
