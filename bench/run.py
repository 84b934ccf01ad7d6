"""Measure durable writes on this machine's disk, this library beside others: `make bench`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))  # python -I leaves it out: it is where bench/ is

from bench.harness.command import command_of
from bench.harness.suites import SUITES

HELP = """
Measure durable writes, this library beside fio, Python's own calls and other libraries.

In each job the contenders write the same bytes on the same disk, once a round, each in a
process of its own; the tables give medians, ratios first. Nothing is left behind but the
result: one JSON file with the environment, the method and every run, and a folder beside it
with pictures and a report. bench/README.md says how to read the figures. Ctrl-C ends it early
and keeps what is whole.

\b
Examples:
  make bench                                    everything, about half an hour
  make bench QUICK=1                            a short look, three minutes
  python -I bench/run.py --jobs fresh,random    two jobs of them
  python -I bench/run.py --dir /mnt/nvme        another disk
  python -I bench/run.py --jobs fresh --only fio --only uringio-slots --rounds 9
"""

if __name__ == "__main__":
    command_of(SUITES["library"], HELP)()
