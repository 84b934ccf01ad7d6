"""File systems on disks of our own: a FUSE file, a loop device on it, made and mounted.

A file is as good as a disk to a file system: REQ_PREFLUSH of the block layer becomes an fsync of
the loop device's file, and so a request that fuse_disk.py sees. Nothing reaches it later than the
kernel sent it, for the file is open without a page cache of its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SERVER = Path(__file__).with_name("fuse_disk.py")
TIMEOUT_S = 60
"""A command that takes longer hangs."""
BUSY_S = 0.01
"""Between two tries to unmount."""

MKFS = {
    # Everything at once: what ext4 puts off for later would be written between what is looked at.
    "ext4": [
        "-q",
        "-F",
        "-N",
        "4096",
        "-J",
        "size=8",
        "-E",
        "lazy_itable_init=0,lazy_journal_init=0,nodiscard",
    ],
    "xfs": ["-q", "-f", "-K", "-d", "agcount=2"],
    "btrfs": ["-q", "-f", "-K"],
}
"""Few inodes, a short journal, two allocation groups: all of it is read again at every mount."""
OPTIONS = {"ext4": "", "xfs": "nouuid", "btrfs": ""}
SIZE_MIB = 1024
"""Room for several uploads that reserve ahead. Of an image only what is written takes room."""

libc = ctypes.CDLL(None, use_errno=True)


class LackingError(Exception):
    """This machine cannot have such a disk; the text says why."""


def run(*command: object) -> str:
    """Run a command; the result is what it said. Raises AssertionError when it fails."""
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, check=False, timeout=TIMEOUT_S
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def mount(device: str, point: Path, kind: str) -> None:
    """Mount by mount(2): mount(8) is a process and takes as long again. Raises OSError."""
    data = OPTIONS[kind].encode()
    if libc.mount(device.encode(), bytes(point), kind.encode(), 0, data):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(point))


def umount(point: Path) -> None:
    """Unmount by umount2(2). Raises OSError.

    Who used it last may have gone and not have let go yet: a loop device is detached, and a killed
    process's files are closed, by the kernel in its own time.
    """
    ends = time.monotonic() + TIMEOUT_S
    while libc.umount2(bytes(point), 0):
        number = ctypes.get_errno()
        if number != errno.EBUSY or time.monotonic() >= ends:
            raise OSError(number, os.strerror(number), str(point))
        time.sleep(BUSY_S)


def check_can_have(kind: str) -> None:
    """Raise LackingError where a file system on a FUSE disk cannot be had."""
    if os.geteuid() != 0:
        raise LackingError("mounting a file system needs root")
    if shutil.which(f"mkfs.{kind}") is None:
        raise LackingError(f"mkfs.{kind} is not installed")
    if not os.path.exists("/dev/fuse"):
        raise LackingError("there is no /dev/fuse")


@dataclass(frozen=True)
class FuseDisk:
    """A disk that fuse_disk.py serves, and the loop device on it."""

    directory: Path
    device: str

    @property
    def file(self) -> Path:
        """The disk as a file."""
        return self.directory / "disk"

    @property
    def held(self) -> int:
        """How many writes the disk holds."""
        return (self.directory / "control").stat().st_size

    def control(self, command: bytes) -> None:
        """Tell the disk to do something."""
        with (self.directory / "control").open("wb", buffering=0) as file:
            file.write(command)


@contextlib.contextmanager
def fuse_disk(
    directory: Path, kind: str, image: Path, *more: Path, direct: bool = False
) -> Iterator[FuseDisk]:
    """Serve a disk from `directory`, and attach a loop device. Raises LackingError.

    With `direct` the loop device has many requests at once on their way, as a disk does: otherwise
    one that is held would hold all others.
    """
    directory.mkdir(exist_ok=True)
    with contextlib.ExitStack() as stack:
        server = subprocess.Popen(
            [sys.executable, SERVER, directory, kind, image, *more], stdout=subprocess.PIPE
        )
        stack.callback(server.wait, TIMEOUT_S)
        stack.callback(server.terminate)  # it has ended by itself, unless something went wrong
        assert server.stdout is not None
        stack.callback(server.stdout.close)
        if server.stdout.readline() != b"mounted\n":
            raise LackingError("FUSE cannot be mounted here")
        stack.callback(umount, directory)
        options = ["--direct-io=on"] if direct else []
        try:
            device = run("losetup", *options, "--find", "--show", directory / "disk")
        except (AssertionError, OSError) as exc:
            raise LackingError(f"there are no loop devices here: {exc}") from exc
        stack.callback(run, "losetup", "--detach", device)
        yield FuseDisk(directory, device)


@contextlib.contextmanager
def file_system(disk: FuseDisk, kind: str, point: Path) -> Iterator[None]:
    """Make a file system on a disk and mount it. Raises LackingError."""
    run(f"mkfs.{kind}", *MKFS[kind], disk.device)
    point.mkdir(exist_ok=True)
    try:
        mount(disk.device, point, kind)
    except OSError as exc:
        raise LackingError(f"the kernel does not mount {kind}: {exc.strerror}") from exc
    try:
        yield
    finally:
        umount(point)


def make_image(path: Path) -> Path:
    """Make an empty image of SIZE_MIB, without blocks."""
    path.touch()
    os.truncate(path, SIZE_MIB << 20)
    return path
