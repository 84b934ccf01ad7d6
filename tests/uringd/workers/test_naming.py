"""A name is given by one worker at a time, and by nobody who is dead."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import trio

from uringd.accounts import shared_memory
from uringd.workers.naming import SharedNames

STUCK_S = 60

HOLD = """
import sys, trio
from uringd.workers.naming import SharedNames
async def main():
    async with SharedNames(int(sys.argv[1])).hold(sys.argv[2]):
        print("held", flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)
trio.run(main)
"""

TURNS = """
import sys, trio
from uringd.workers.naming import SharedNames
async def main():
    names = SharedNames(int(sys.argv[1]))
    for turn in range(100):
        wanted = {str((turn + int(sys.argv[2]) + step) % 7) for step in range(5)}
        await names.take(wanted)
        await trio.lowlevel.checkpoint()
        names.free(wanted)
    print("done")
trio.run(main)
"""

TRY = """
import sys, trio
from uringd.workers.naming import SharedNames
async def main():
    with trio.move_on_after(0.05) as scope:
        async with SharedNames(int(sys.argv[1])).hold(sys.argv[2]):
            pass
    sys.exit(scope.cancelled_caught)
trio.run(main)
"""


def is_held(memory_fd: int, name: str) -> bool:
    """Whether another process would wait for a name."""
    flag = "-I" if sys.flags.isolated else "-P"
    command = [sys.executable, flag, "-c", TRY, str(memory_fd), name]
    return subprocess.run(command, pass_fds=[memory_fd], check=False).returncode == 1


@pytest.fixture
def memory_fd() -> Iterator[int]:
    fd = shared_memory(1)
    yield fd
    os.close(fd)


@contextlib.contextmanager
def held_by_another(memory_fd: int, name: str) -> Iterator[subprocess.Popen[str]]:
    flag = "-I" if sys.flags.isolated else "-P"
    with subprocess.Popen(
        [sys.executable, flag, "-c", HOLD, str(memory_fd), name],
        pass_fds=[memory_fd],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("killed", [False, True])
async def test_a_name_that_another_worker_holds_is_waited_for(
    memory_fd: int, *, killed: bool
) -> None:
    names = SharedNames(memory_fd)
    with held_by_another(memory_fd, "a") as other:
        async with names.hold("b"):
            pass  # another name is free
        order: list[str] = []

        async def take() -> None:
            async with names.hold("a"):
                order.append("taken")

        with trio.fail_after(STUCK_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(take)
                for _ in range(10):
                    await trio.lowlevel.checkpoint()
                order.append("let go")
                if killed:
                    other.kill()
                else:
                    assert other.stdin is not None
                    other.stdin.close()
    assert order == ["let go", "taken"]


async def test_of_many_names_none_is_taken_before_its_turn_and_all_are_let_go(
    memory_fd: int,
) -> None:
    names, wanted = SharedNames(memory_fd), {"a", "b", "c"}
    with held_by_another(memory_fd, "b"), trio.move_on_after(0):
        await names.take(wanted)
    with trio.fail_after(STUCK_S):
        await names.take(wanted)  # who was cancelled holds nothing
        for name in wanted:
            assert is_held(memory_fd, name)
        names.free(wanted)
        for name in wanted:
            assert not is_held(memory_fd, name)


def test_many_names_that_two_workers_want_are_given_to_one_after_the_other(memory_fd: int) -> None:
    flag = "-I" if sys.flags.isolated else "-P"
    with contextlib.ExitStack() as stack:
        processes = []
        for begin in range(2):
            command = [sys.executable, flag, "-c", TURNS, str(memory_fd), str(begin)]
            process = subprocess.Popen(
                command, pass_fds=[memory_fd], stdout=subprocess.PIPE, text=True
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            processes.append(process)
        for process in processes:
            said, _ = process.communicate(timeout=STUCK_S)
            assert (process.returncode, said) == (0, "done\n")


async def test_within_a_worker_a_name_is_held_once_too(memory_fd: int) -> None:
    names = SharedNames(memory_fd)
    inside = 0

    async def take() -> None:
        nonlocal inside
        async with names.hold("a"):
            inside += 1
            assert inside == 1
            await trio.lowlevel.checkpoint()
            inside -= 1

    with trio.fail_after(STUCK_S):
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(take)
