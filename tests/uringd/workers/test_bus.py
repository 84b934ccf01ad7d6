"""Questions between workers: answered by whoever is there, and lost with nobody."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from uringd.workers import bus
from uringd.workers.bus import Bus
from uringd.workers.messages import Answer, Find, Question

STUCK_S = 60


@pytest.fixture
def directory_fd(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


class Holder:
    """Holds uploads, and remembers what it was asked."""

    def __init__(self, *held: str) -> None:
        self.held = held
        self.asked: list[object] = []
        self.said: list[bytes] = []

    async def __call__(self, question: object, fd: int | None) -> Answer:
        self.asked.append(question)
        if fd is not None:
            self.said.append(os.read(fd, 100))
            os.close(fd)
        assert isinstance(question, Find)
        return Answer(held=question.upload_id in self.held)


def find(upload_id: str) -> Question:
    return Find(upload_id)


async def test_all_others_are_asked_and_each_answers_for_itself(directory_fd: int) -> None:
    first, second, third = (Bus(directory_fd, name) for name in ("1", "2", "3"))
    own = Holder("x")
    async with first.serve(own), second.serve(Holder()), third.serve(Holder("x")):
        answers = await first.ask_all(find("x"))
        assert sorted((name, answer.held) for name, answer in answers) == [
            ("2", False),
            ("3", True),
        ]
    assert own.asked == []
    assert os.listdir(directory_fd) == []


async def test_who_is_dead_or_gone_says_nothing_at_once(directory_fd: int, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
        dead.bind(f"/proc/self/fd/{directory_fd}/2")  # nobody listens any more
    bus = Bus(directory_fd, "1")
    assert await bus.ask_all(find("x")) == []
    assert await bus.ask("3", find("x")) is None


async def test_who_dies_before_it_answers_is_not_waited_for(directory_fd: int) -> None:
    bus = Bus(directory_fd, "1")
    with trio.socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dying:
        await dying.bind(f"/proc/self/fd/{directory_fd}/2")
        dying.listen(1)

        async def die() -> None:
            asking, _ = await dying.accept()
            asking.close()

        with trio.fail_after(STUCK_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(die)
                assert await bus.ask("2", find("x")) is None


async def test_a_descriptor_comes_along(directory_fd: int) -> None:
    holder = Holder("x")
    mine, other = os.pipe()
    async with Bus(directory_fd, "2").serve(holder):
        os.write(other, b"hello")
        answer = await Bus(directory_fd, "1").ask("2", find("x"), mine)
    assert answer is not None and answer.held
    assert holder.said == [b"hello"]
    os.close(mine)
    os.close(other)


async def test_nonsense_costs_its_own_connection(directory_fd: int) -> None:
    before = len(os.listdir("/proc/self/fd"))
    holder = Holder("x")
    async with Bus(directory_fd, "2").serve(holder):
        with trio.socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
            await asking.connect(f"/proc/self/fd/{directory_fd}/2")
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, b"\0\0\0\0\1\0\0\0")
            await asking.sendmsg([b"nonsense"], [rights])
            with trio.fail_after(STUCK_S):
                assert await asking.recv(1) == b""
        answer = await Bus(directory_fd, "1").ask("2", find("x"))
    assert answer is not None and answer.held
    assert len(os.listdir("/proc/self/fd")) == before, "what came with it is closed"


async def test_more_questions_than_may_wait_are_all_answered(
    directory_fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """connect(2) says EAGAIN for them: that nobody has accepted yet is no sign of nobody there."""
    monkeypatch.setattr(bus, "BACKLOG", 1)
    asking, asked = Bus(directory_fd, "1"), Bus(directory_fd, "2")
    answers: list[Answer | None] = []
    with trio.fail_after(STUCK_S):
        async with asked.serve(Holder("held")), trio.open_nursery() as nursery:

            async def ask() -> None:
                answers.append(await asking.ask("2", Find("held")))

            for _ in range(50):
                nursery.start_soon(ask)
    assert answers == [Answer(held=True)] * 50
