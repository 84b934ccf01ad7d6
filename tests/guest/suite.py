"""Run the core of the tests in a guest, on a kernel that is not this machine's.

    make guest-tests [KERNEL=6.1] [FS=ext4]

The ring and its flags, the fallback, short writes, publish, the whole writer and file, and uploads
through the daemon, on a file system of the guest's own disk. Exit code 1 if one fails; what the
kernel gives is printed first.
"""

from __future__ import annotations

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
    "tests/uringio/ring",
    "tests/uringio/trio/test_chain.py",
    "tests/uringio/trio/test_file.py",
    "tests/uringio/trio/test_growth.py",
    "tests/uringio/trio/test_many.py",
    "tests/uringio/trio/test_modes.py",
    "tests/uringio/trio/test_opening.py",
    "tests/uringio/trio/test_publish.py",
    "tests/uringio/trio/test_reactor.py",
    "tests/uringio/trio/test_rings.py",
    "tests/uringio/trio/test_short_writes.py",
    "tests/uringio/trio/test_writer.py",
    "tests/uringd/test_chunks.py",
    "tests/uringd/test_lanes.py",
    "tests/uringd/test_resume.py",
    "tests/uringd/test_uploads.py",
    "tests/uringd/small",
)
SUITE_S = 3600.0
PORT = 7433


async def run(series: str, file_system: str, chosen: tuple[str, ...], scratch: Path) -> str:
    """Run tests in a guest; the result is what pytest said. Raises GuestError."""
    kernel, initramfs = image(series)
    disk = scratch / "disk.img"
    with disk.open("wb") as empty:
        empty.truncate(2 * DISK_BYTES)
    made = [*MAKE[file_system], str(disk)]
    await trio.run_process(made, capture_stdout=True, capture_stderr=True)
    async with running(Guest(kernel, initramfs, disk, PORT)) as machine:
        await machine.run(f"mount -t {file_system} /dev/vda /data && mkdir -p /data/tmp")
        click.echo(await machine.run("python3 -m uringd doctor /data || true"))
        options = "-q -p no:cacheprovider -p no:xdist --basetemp=/data/tmp/tests -rs"
        tests = " ".join(chosen or CORE)
        await machine.run(f"cd /{IN_GUEST} && export TMPDIR=/data/tmp")
        said = await machine.run(
            f"python3 -P -m pytest {options} {tests} >/tmp/said 2>&1; tail -c 60000 /tmp/said",
            SUITE_S,
        )
    return said


@click.command(help=(__doc__ or "").partition("\n\n")[0])
@click.option("--kernel", "series", default="6.1", show_default=True, help="A series of Debian's.")
@click.option("--fs", type=click.Choice(list(MAKE)), default="ext4", show_default=True)
@click.option("--directory", default="/var/tmp", show_default=True, type=Path, help="For the disk.")
@click.argument("tests", nargs=-1)
def main(series: str, fs: str, directory: Path, tests: tuple[str, ...]) -> None:
    if os.geteuid():
        raise click.UsageError("a disk is made and debootstrap used: run this as root")
    scratch = Path(tempfile.mkdtemp(prefix="uringd-guest-", dir=directory))
    try:
        said = trio.run(run, series, fs, tests, scratch)
    except (CannotBuildError, GuestError, subprocess.CalledProcessError) as exc:
        raise click.ClickException(str(exc)) from exc
    finally:
        shutil.rmtree(scratch)
    click.echo(said)
    last = said.strip().splitlines()[-1] if said.strip() else ""
    sys.exit(0 if re.search(r"\d+ passed", last) and "failed" not in last else 1)


if __name__ == "__main__":
    main()
