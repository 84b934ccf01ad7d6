"""The method of uploads, said before the numbers and kept with them."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
from typing import TYPE_CHECKING

from bench.harness.method import who_and_what
from bench.harness.units import rounds_text

if TYPE_CHECKING:
    from bench.harness.environment import Environment
    from bench.harness.results import Settings

PROGRAMS = {"nginx": ("nginx", "-v"), "rsync": ("rsync", "--version"), "wrk": ("wrk", "-v")}
DISTRIBUTIONS = ("uvicorn", "uvloop", "httptools", "starlette", "tuspyserver", "tuspy")


def method_lines(settings: Settings, environment: Environment) -> list[str]:
    """One sentence a line."""
    memory = "; then all free memory is filled with page cache" * (settings.memory == "in-use")
    text = f"""
{rounds_text(settings.rounds)} on {environment["file_system"]}: every contender runs once a round \
and cell, each round begins with another one, every run is a process and a server of its own.
Before a run the last files are removed, everything is synced, and the device is waited for until \
it rests{memory}.
Files of at most 64 KiB stay to the end of all runs: ext4 makes new ones slowly behind thousands \
of removals.
Ratios are taken within a round, then the median over the rounds; with it the lowest and highest.
Server and load generator share this machine's CPUs: the CPU of the client is a column of its own.
CPU is user and system time of all processes of the server, io-wq workers with them; kernel \
threads of the whole machine (write-back, journal) are in a column of their own.
Latency is of an upload of at most 1 MiB all of it, of a bigger one from its last byte handed to \
the kernel to the answer; with "+ sync" to the end of the sync, which makes all durable at once.
Peak RSS is the sum of all processes of the server, pages that they share counted for each.
Content is known: after each run every file is read back and its checksum compared (not fio's).
Servers: {"; ".join(versions())}.
"""
    return text.strip().splitlines() + who_and_what(settings)


def versions() -> list[str]:
    """Name what takes part with its version, and what is not installed."""
    found = []
    for name, command in PROGRAMS.items():
        path = shutil.which(name) or shutil.which(name, path="/usr/sbin")
        if path is None:
            found.append(f"{name} not installed")
            continue
        done = subprocess.run([path, *command[1:]], capture_output=True, text=True, check=False)
        said = (done.stdout + done.stderr).strip().splitlines()
        found.append(said[0].partition("Copyright")[0].strip() if said else name)
    for name in DISTRIBUTIONS:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{name} not installed")
    return found
