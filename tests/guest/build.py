"""Build what a guest boots: a kernel of Debian's, and a userland with this project in memory.

    make guest-image [KERNEL=6.1]

Everything comes from packages: the kernel from `linux-image-*-cloud-amd64` of the series that was
asked for, the userland by debootstrap, the Python packages by pip. They end in one initramfs, so
that the guest has no disk but the one that is tested, and nothing of it survives in the guest.
What is Debian's is downloaded once; `rm -r build/guest` begins anew.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "build" / "guest"

SUITE = "bookworm"
PYTHON = (3, 11)
"""The suite's Python: packages with C code are installed by this one, for that one."""

PACKAGES = "python3,kmod,iproute2,e2fsprogs,xfsprogs,btrfs-progs,strace"
NOT_NEEDED = ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man")
NOT_IN_GUEST = ("bin", "mypy*", "*__mypyc.*")
"""Of the Python packages: linters and type checkers, which are most of their size."""

MODULES = ("virtio_pci", "virtio_blk", "virtio_net", "xfs", "btrfs", "loop", "fuse")
"""What the cloud kernels have as modules; ext4 is in all of them."""

IN_GUEST = "opt/uringd"
"""Below the guest's root: the installed packages, and beside them the tests."""

INIT = f"""#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin PYTHONPATH=/{IN_GUEST}/site HOME=/root
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /data
mount -t devpts pts /dev/pts
mount -t tmpfs -o size=70% tmp /tmp
for module in {" ".join(MODULES)}; do modprobe -q $module; done
ip link set lo up
for card in /sys/class/net/e*; do
    ip link set ${{card##*/}} up
    ip addr add 10.0.2.15/24 dev ${{card##*/}}
done
stty -F /dev/ttyS0 -echo
echo guest-ready
while read -r line; do
    eval "$line"
    echo "guest-ended $?"
done </dev/ttyS0
"""
"""The guest's first process: it says that it is there, and runs what it is told, line by line."""


class CannotBuildError(Exception):
    """There is no image: the sentence says why, and what mends it."""


def image(series: str) -> tuple[Path, Path]:
    """Return kernel and initramfs of a series such as "6.1". Raises CannotBuildError."""
    found = [*IMAGES.glob(f"{series}/kernel/boot/vmlinuz-*"), IMAGES / series / "initramfs.zst"]
    if len(found) != 2 or not found[1].exists():
        raise CannotBuildError(f"there is no guest {series}: make guest-image KERNEL={series}")
    return found[0], found[1]


def build(series: str) -> None:
    """Build both anew, with the project as it is now; what is Debian's is used again."""
    target = IMAGES / series / "initramfs.zst"
    _pack(_kernel(series), _userland(), target)


def _run(*command: object, cwd: Path | None = None) -> str:
    try:
        done = subprocess.run(
            list(map(str, command)), capture_output=True, text=True, check=True, cwd=cwd
        )
    except FileNotFoundError as exc:
        raise CannotBuildError(f"{command[0]} is not installed: make guest-image does it") from exc
    except subprocess.CalledProcessError as exc:
        last = (exc.stderr or exc.stdout).strip().splitlines()[-1:]
        raise CannotBuildError(f"{command[0]} failed: {''.join(last)}") from exc
    return done.stdout


def _kernel(series: str) -> Path:
    """Unpack the newest kernel of a series."""
    unpacked = IMAGES / series / "kernel"
    if unpacked.exists():
        return unpacked
    pattern = rf"^linux-image-{re.escape(series)}\.[0-9].*-cloud-amd64$"
    names = [line.split()[0] for line in _run("apt-cache", "search", pattern).splitlines()]
    if not names:
        raise CannotBuildError(f"Debian has no cloud kernel {series} here: apt-get update, or less")
    newest = max(names, key=lambda name: [int(n) for n in re.findall(r"\d+", name)])
    downloads = IMAGES / series / "download"
    downloads.mkdir(parents=True, exist_ok=True)
    _run("apt-get", "download", newest, cwd=downloads)
    partial = unpacked.with_suffix(".partial")
    _run("dpkg-deb", "-x", next(downloads.glob("*.deb")), partial)
    shutil.rmtree(downloads)
    partial.rename(unpacked)
    return unpacked


def _userland() -> Path:
    """Install the suite's Python, and this project's packages and tests beside it."""
    base = IMAGES / "userland"
    if not base.exists():
        if sys.version_info[:2] != PYTHON:
            wanted = ".".join(map(str, PYTHON))
            raise CannotBuildError(f"{SUITE} has Python {wanted}: build with that one")
        partial = base.with_suffix(".partial")
        if partial.exists():
            shutil.rmtree(partial)
        partial.parent.mkdir(parents=True, exist_ok=True)
        _run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, partial)
        for name in NOT_NEEDED:
            shutil.rmtree(partial / name, ignore_errors=True)
        partial.rename(base)
    project = base / IN_GUEST
    shutil.rmtree(project, ignore_errors=True)
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--target", project / "site")
    _run(*pip, f"{ROOT}[dev]")
    for pattern in NOT_IN_GUEST:
        _run("rm", "-rf", *(project / "site").glob(pattern))
    ignored = shutil.ignore_patterns("__pycache__", "findings")
    shutil.copytree(ROOT / "tests", project / "tests", ignore=ignored)
    shutil.copytree(ROOT / "protos", project / "protos", ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", project)
    return base


def _pack(kernel: Path, userland: Path, target: Path) -> None:
    """Put kernel modules, userland and init into one archive that the kernel unpacks."""
    modules = userland / "usr/lib/modules"
    shutil.rmtree(modules, ignore_errors=True)
    release = next(kernel.glob("lib/modules/*"))
    shutil.copytree(release, modules / release.name, symlinks=True)
    _run("chroot", userland, "/sbin/depmod", release.name)
    init = userland / "init"
    init.write_text(INIT)
    init.chmod(0o755)
    partial = target.with_suffix(".partial")
    pack = "find . -xdev | cpio --quiet -o -H newc | zstd -q -3 -T0"
    with partial.open("wb") as archive:
        subprocess.run(
            ["bash", "-o", "pipefail", "-c", pack], cwd=userland, stdout=archive, check=True
        )
    partial.rename(target)


@click.command(help=(__doc__ or "").partition("\n\n")[0])
@click.option("--kernel", "series", default="6.1", show_default=True, help="A series of Debian's.")
def main(series: str) -> None:
    if os.geteuid():
        raise click.UsageError("debootstrap makes device files: run this as root")
    try:
        build(series)
        kernel, initramfs = image(series)
    except CannotBuildError as exc:
        raise click.ClickException(str(exc)) from exc
    click.echo(f"{kernel.name}, and {initramfs.stat().st_size >> 20} MiB of userland")


if __name__ == "__main__":
    main()
