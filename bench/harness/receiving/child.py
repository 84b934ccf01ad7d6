"""The process of one measurement: it starts the sender, receives all there is, and says how."""

from __future__ import annotations

import resource
import socket
import subprocess
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[3]))  # python -I leaves it out: it is where bench/ is

import trio

from bench.harness.daemon import PYTHON
from bench.harness.measurement import CannotRunError
from bench.harness.meter import Meter, Usage
from bench.harness.receiving.message import teach
from bench.harness.receiving.order import POOL_BYTES, Order, Received
from bench.harness.receiving.ways import WAYS, bare
from bench.harness.receiving.work import Work
from uringio._ring import uring
from uringio.lowlevel import UringRing, run_ring

SENDER = Path(__file__).with_name("sender.py")
READY_TIMEOUT_S = 60.0
"""From the sender's start to its connection: it makes its content first."""
SLOTS_MIN = 8
COOPERATIVE = "+coop"
"""Behind a way's name: its ring finishes work when the kernel is entered for anything, instead of
when it is reaped (COOP_TASKRUN in place of DEFER_TASKRUN)."""


def main() -> None:
    """Measure, print, leave. What cannot be done is one sentence and exit code 1."""
    order = Order.from_json(sys.argv[1])
    try:
        print(measure(order).to_json())
    except (CannotRunError, OSError) as exc:
        sys.exit(str(exc))


def measure(order: Order) -> Received:
    """Receive what a sender of our own sends."""
    with _listen(order) as listener:
        command = [*PYTHON, str(SENDER), order.to_json(), _address(listener)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as sender:
            try:
                listener.settimeout(READY_TIMEOUT_S)
                raw, _ = listener.accept()
                with raw:
                    calls, sleeps, usage = _receive(order, raw)
                said, _ = sender.communicate(timeout=READY_TIMEOUT_S)
            finally:
                sender.kill()
    if sender.returncode:
        raise CannotRunError(f"the sender ended with exit code {sender.returncode}")
    sender_cpu_s = float(said)
    return Received(
        seconds=usage.wall_s,
        user_s=usage.user_s,
        system_s=usage.system_s,
        sender_cpu_s=sender_cpu_s,
        calls=calls,
        sleeps=sleeps,
        others_s=usage.others_s(usage.user_s + usage.system_s + sender_cpu_s),
    )


def _receive(order: Order, raw: socket.socket) -> tuple[int, int, Usage]:
    """Do the work; the result is the receives, the sleeps and what was used."""
    meter = Meter()
    if order.way == "bare":
        raw.settimeout(None)
        meter.start()
        before = _sleeps()
        calls = bare(raw, order.total_bytes)
        return calls, _sleeps() - before, meter.stop()
    raw.setblocking(False)
    return trio.run(_work, order, raw, meter)


async def _work(order: Order, raw: socket.socket, meter: Meter) -> tuple[int, int, Usage]:
    slot_bytes = order.setting.slot_bytes
    way = order.way.removesuffix(COOPERATIVE)
    if way != order.way:
        setattr(uring, "SETUP_ATTEMPTS", uring.SETUP_ATTEMPTS[1:])  # noqa: B010  # types forbid it
    slots = max(SLOTS_MIN, POOL_BYTES // slot_bytes)
    async with run_ring(UringRing(), slots, slot_bytes) as ring:
        teach(ring.reactor)
        work = Work(order, ring, raw)
        meter.start()
        before = _sleeps()
        await work.open()
        await WAYS[way](work)
        await work.finish()
        return work.calls, _sleeps() - before, meter.stop()


def _listen(order: Order) -> socket.socket:
    if order.setting.transport == "unix":
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(f"{order.directory}/s")
    else:
        listener = socket.socket(socket.AF_INET)
        listener.bind(("127.0.0.1", 0))
    if order.setting.buffer_bytes:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, order.setting.buffer_bytes)
    listener.listen(1)
    return listener


def _address(listener: socket.socket) -> str:
    name = listener.getsockname()
    return name if isinstance(name, str) else f"{name[0]}:{name[1]}"


def _sleeps() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw


if __name__ == "__main__":
    main()
