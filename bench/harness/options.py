"""Options that several of the benchmarks' commands have."""

from __future__ import annotations

from pathlib import Path

import click

directory_option = click.option(
    "--dir",
    "directory",
    type=click.Path(exists=True, file_okay=False, writable=True, path_type=Path),
    default=Path("/var/tmp"),  # noqa: S108  # the temporary directory that is on a disk
    show_default=True,
    envvar="URINGIO_BENCH_DIR",
    help="Where to write: a directory on the disk to be measured.",
)

into_option = click.option(
    "--json",
    "into",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    metavar="FILE",
    help="Write every measurement to FILE, too.",
)
