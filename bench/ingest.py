"""Measure uploads to uringd and to other servers on this machine: `make bench-ingest`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))  # python -I leaves it out: it is where bench/ is

from bench.harness.command import command_of
from bench.harness.suites import SUITES

HELP = """
Measure uploads: uringd beside nginx, rsync, Starlette, tuspyserver, plain Python and the disk.

In each job the same objects are uploaded to each server, once a round, over as many connections as
the cell says; each measurement has a server of its own, and every file is read back and compared.
The tables say of each whether what it answered for survives a power cut. One JSON file and a folder
with pictures and a report are left, as by bench/run.py; bench/README.md says how to read them.
Ctrl-C ends it early, keeps what is whole, and leaves no server behind.

\b
Examples:
  make bench-ingest                                everything, about three quarters of an hour
  make bench-ingest QUICK=1                        a short look, three minutes
  python -I bench/ingest.py --jobs 2g,4k           two jobs of them
  python -I bench/ingest.py --jobs 2g --only disk --only uringd --rounds 9
"""

if __name__ == "__main__":
    command_of(SUITES["ingest"], HELP)()
