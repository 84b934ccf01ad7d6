"""What is counted over several processes: sums, limits, and what a dead process leaves."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from uringd.accounts import SUM_MAX, Accounts, Kind, shared_memory

ADDERS = 4
ADDITIONS = 500
ENDS_S = 60

ADD = """
import sys
from uringd.accounts import Accounts, Kind
accounts = Accounts(int(sys.argv[1]), int(sys.argv[2]))
print(sum(accounts.take(Kind.UPLOADS, 1, int(sys.argv[3])) for _ in range(int(sys.argv[4]))))
"""


@pytest.fixture
def memory_fd() -> Iterator[int]:
    fd = shared_memory(1 + ADDERS)
    yield fd
    os.close(fd)


def test_a_sum_is_over_all_rows_and_a_limit_is_for_the_sum(memory_fd: int) -> None:
    first, second = Accounts(memory_fd, 1), Accounts(memory_fd, 2)
    assert first.take(Kind.UPLOADS, 2, 3)
    assert not second.take(Kind.UPLOADS, 2, 3)
    assert second.take(Kind.UPLOADS, 1, 3)
    assert first.total(Kind.UPLOADS) == second.total(Kind.UPLOADS) == 3
    assert first.total(Kind.CONNECTIONS) == 0
    first.give_back(Kind.UPLOADS, 1)
    assert second.take(Kind.UPLOADS, 1, 3)


def test_a_sum_that_no_cell_holds_is_refused_without_a_limit_too() -> None:
    accounts = Accounts()
    assert accounts.take(Kind.SPOOL_BYTES, SUM_MAX, None)
    assert not accounts.take(Kind.SPOOL_BYTES, (1 << 63) - 1, None)
    accounts.keep(Kind.SPOOL_BYTES, SUM_MAX)
    assert accounts.total(Kind.SPOOL_BYTES) == SUM_MAX


def test_what_is_kept_outlives_its_process_and_the_rest_does_not(memory_fd: int) -> None:
    house, worker = Accounts(memory_fd), Accounts(memory_fd, 1)
    worker.take(Kind.CONNECTIONS, 5, None)
    worker.take(Kind.SPOOL_BYTES, 100, None)
    worker.keep(Kind.SPOOL_BYTES, 60)
    worker.accept(accepting=True)
    assert house.total(Kind.SPOOL_BYTES) == 100
    house.bury(1)
    assert house.total(Kind.SPOOL_BYTES) == 60
    assert house.total(Kind.CONNECTIONS) == 0
    house.bury(1)
    assert house.total(Kind.SPOOL_BYTES) == 60, "once is enough"
    other = Accounts(memory_fd, 2)
    other.drop(Kind.SPOOL_BYTES, 60)
    assert house.total(Kind.SPOOL_BYTES) == 0, "whoever takes it up counts it out"


def test_who_has_more_connections_than_another_that_accepts_is_told(memory_fd: int) -> None:
    first, second = Accounts(memory_fd, 1), Accounts(memory_fd, 2)
    first.take(Kind.CONNECTIONS, 1, None)
    assert not first.has_more_than_others, "the other one does not accept"
    second.accept(accepting=True)
    assert [each.has_more_than_others for each in (first, second)] == [True, False]
    second.take(Kind.CONNECTIONS, 1, None)
    assert [each.has_more_than_others for each in (first, second)] == [False, False]
    assert not Accounts().has_more_than_others


def test_processes_that_add_at_once_never_go_past_a_limit(memory_fd: int) -> None:
    limit = ADDERS * ADDITIONS // 2
    flag = "-I" if sys.flags.isolated else "-P"
    adders = [
        subprocess.Popen(
            [sys.executable, flag, "-c", ADD, *map(str, (memory_fd, row, limit, ADDITIONS))],
            pass_fds=[memory_fd],
            stdout=subprocess.PIPE,
        )
        for row in range(1, ADDERS + 1)
    ]
    taken = [int(adder.communicate(timeout=ENDS_S)[0]) for adder in adders]
    assert sum(taken) == limit == Accounts(memory_fd).total(Kind.UPLOADS)
