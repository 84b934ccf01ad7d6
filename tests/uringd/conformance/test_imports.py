"""Where the kit runs: on machines that have neither io_uring nor our server."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from uringd.conformance.runner import PASSED
from uringd.conformance.target import Target

if TYPE_CHECKING:
    from tests.uringd.conformance.conftest import Judge
    from tests.uringd.conftest import Daemon, InAsyncio

STUCK_S = 60
"""Nothing waits for this on the good way."""


def test_it_needs_neither_the_library_nor_trio() -> None:
    """A module that is None in sys.modules cannot be imported."""
    program = (
        "import sys; sys.modules.update(dict.fromkeys(['uringio', 'trio', 'uringd.server'])); "
        "import uringd.conformance.command"
    )
    isolated = ["-I" if sys.flags.isolated else "-P"]
    done = subprocess.run(
        [sys.executable, *isolated, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        timeout=STUCK_S,
    )
    assert (done.returncode, done.stderr) == (0, "")


async def test_it_runs_under_asyncio_too(
    daemon: Daemon, in_asyncio: InAsyncio, judge: Judge
) -> None:
    async def main() -> list[str]:
        target = Target(daemon.unix)
        await target.probe()
        results = await judge(target, "TR-", "PI-", "CO-001", "CO-004", "ER-003")
        return [result.case.id for result in results if result.outcome != PASSED]

    assert await in_asyncio(main) == []
