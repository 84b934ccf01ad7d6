"""A process that is killed in the middle of a replace: at every operation, on ext4 and XFS.

A SIGKILL keeps the page cache, so this shows the order of the steps and what recovery does with
what is there; what a power cut takes away is test_replace_power_cuts.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

import uringio

if TYPE_CHECKING:
    from tests.conftest import RunPython

FILE_SYSTEMS = [("ext4", 32), ("xfs", 320)]
"""Kind and MiB: 300 are the least that mkfs.xfs makes."""

PROBE = uringio.probe()

AT_EVERY_STEP = """
import json, os, random, signal, sys
from dataclasses import replace

import trio
import uringio
from uringio._ring.execute import execute
from uringio.lowlevel import Opcode, run_ring
from uringio.testing import SimulatedRing

directory, direct, offset, length = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
path = os.path.join(directory, "file")
OLD = random.Random(1).randbytes(100_000)
NEW = random.Random(2).randbytes(length)
WANTED = OLD[:offset] + NEW + OLD[offset + length:]
SLOTS, SLOT, STEPS_MAX = 4, 16 << 10, 100
assert len(WANTED) == len(OLD)


class Killer:
    "Kills its process before the n-th operation of a replace, or in the middle of the n-th write."

    def __init__(self, nth, when):
        self.left, self.when, self.on = nth, when, False

    def __call__(self, operation):
        is_write = operation.opcode in {Opcode.WRITE, Opcode.WRITE_FIXED}
        if not self.on or (self.when == "in a write" and not is_write):
            return execute(operation)
        self.left -= 1
        if self.left != -1:
            return execute(operation)
        if self.when == "in a write":
            half = operation.length // 2
            execute(replace(operation, length=half - half % 512 or half))
        os.kill(os.getpid(), signal.SIGKILL)


async def replace_once(killer):
    async with run_ring(SimulatedRing(killer.left, perform=killer), SLOTS, SLOT) as ring:
        async with await ring.open(path, "r+", direct=direct) as file:
            killer.on = True
            done = await file.replace(offset, NEW)
            killer.on = False
            assert done.verified


async def recover(mode):
    async with uringio.open_ring(SLOTS, SLOT) as ring:
        async with await ring.open(path, mode, direct=direct) as file:
            return [(found.outcome, found.offset, found.length) for found in file.recovered]


found = {}
for when in ("before", "in a write"):
    for nth in range(STEPS_MAX):
        with open(path, "wb") as file:
            file.write(OLD)
        child = os.fork()
        if child == 0:
            try:
                trio.run(replace_once, Killer(nth, when))
                os._exit(0)
            finally:
                os._exit(1)
        status = os.waitpid(child, 0)[1]
        with open(path, "rb") as file:
            before = file.read()
        left = len(os.listdir(directory))
        outcome = trio.run(recover, "r" if nth % 2 else "r+")
        with open(path, "rb") as file:
            after = file.read()
        assert after in (OLD, WANTED), (when, nth)
        assert os.listdir(directory) == ["file"], (when, nth, os.listdir(directory))
        torn = before not in (OLD, WANTED)
        found.setdefault(when, []).append(
            [os.WIFSIGNALED(status), left, torn, after == WANTED, [it[0] for it in outcome]]
        )
        for it in outcome:
            assert it == ("completed", offset, length) or it[0] == "torn", it
        if not os.WIFSIGNALED(status):
            assert os.WEXITSTATUS(status) == 0
            assert outcome == [], "a replace that has returned leaves nothing to do"
            break
    else:
        raise AssertionError("the replace never came through")
print(json.dumps(found))
"""


@pytest.mark.root
@pytest.mark.parametrize("file_system", FILE_SYSTEMS, indirect=True, ids=["ext4", "xfs"])
@pytest.mark.parametrize(
    ("direct", "offset", "length"),
    [
        ("auto", 5000, 9000),
        ("auto", 5000, 50_000),
        ("never", 5000, 50_000),
        ("require", 4096, 53_248),
    ],
)
def test_a_replace_that_is_killed_at_any_step_is_old_or_new(
    run_python: RunPython, file_system: Path, direct: str, offset: int, length: int
) -> None:
    """And whole again after the next open, with nothing left beside the file."""
    directory = file_system / "d"
    directory.mkdir()
    found = json.loads(run_python(AT_EVERY_STEP, directory, direct, offset, length).stdout)
    assert len(found["before"]) >= 14, "every operation of a replace"
    for steps in found.values():
        *killed, last = steps
        is_new = [step[3] for step in killed]
        assert not is_new[0], "the journal is not whole yet"
        assert is_new[-1], "the journal is whole"
        assert is_new == sorted(is_new), "from one step on, and for good"
        outcomes = [outcome for step in killed for outcome in step[4]]
        assert {"torn", "completed"} == set(outcomes)
        assert last[0] is False
    torn = [step for steps in found.values() for step in steps if step[2]]
    assert torn, "the kills did leave files that only recovery made whole"


ISOLATED = "-I" if sys.flags.isolated else "-P"
"""As the tests themselves run: without the source tree where they do."""

IN_A_LOOP = """
import itertools, sys
import trio, uringio

async def main():
    async with uringio.open_ring(4, 16 << 10, backend=sys.argv[2]) as ring:
        async with await ring.open(sys.argv[1], "r+") as file:
            for number in itertools.count(1):
                await file.replace(5000, bytes([number % 256]) * 300_000)
                print(number, flush=True)

trio.run(main)
"""


@pytest.mark.parametrize("backend", ["io_uring", "threads"])
def test_a_process_killed_at_any_moment_has_lost_nothing_it_was_told_of(
    tmp_path: Path, backend: str
) -> None:
    """A real ring, and no step is chosen: the kill comes some time after an acknowledgement."""
    if backend == "io_uring" and not PROBE.available:
        pytest.skip(PROBE.reason)
    directory = tmp_path / "d"
    directory.mkdir()
    path = directory / "file"
    for rounds in range(6):
        path.write_bytes(bytes(400_000))
        child = subprocess.Popen(
            [sys.executable, ISOLATED, "-c", IN_A_LOOP, path, backend],
            stdout=subprocess.PIPE,
        )
        assert child.stdout is not None
        with child, child.stdout:
            for _ in range(1 + rounds % 3):
                acknowledged = int(child.stdout.readline())
            spin_until = time.perf_counter() + rounds * 0.002
            while time.perf_counter() < spin_until:
                continue
            child.kill()
            rest = child.stdout.read().split()
        acknowledged = int(rest[-1]) if rest and rest[-1].isdigit() else acknowledged

        async def reopen() -> tuple[uringio.Recovered, ...]:
            async with uringio.open_ring() as ring, await ring.open(path, "r") as file:
                return file.recovered

        found = trio.run(reopen)
        content = path.read_bytes()
        (value,) = set(content[5000:305_000])
        assert value in {acknowledged, acknowledged + 1}
        assert value == acknowledged + 1 or not any(it.outcome == "completed" for it in found)
        assert content == (bytes(5000) + bytes([value]) * 300_000).ljust(400_000, b"\0")
        assert os.listdir(directory) == ["file"]
