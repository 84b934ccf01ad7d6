"""`uringd conformance`: choose cases, run them, and say what came of it."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import click

from uringd.conformance import report
from uringd.conformance.case import FailedError, RefusalError
from uringd.conformance.cases import CASES
from uringd.conformance.junit import junit
from uringd.conformance.leaving import Leaving
from uringd.conformance.runner import FAILED, Result, run
from uringd.conformance.target import NobodyThereError, Target
from uringd.errors import ConnectionLostError, RefusedError
from uringd.wire import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from uringd.conformance.case import Case
    from uringd.urls import Url

EXIT_FAILED = 1


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says; `timeout_s` bounds each wait for the server."""

    token: str
    ids: tuple[str, ...]
    junit: Path | None
    as_json: bool
    timeout_s: float
    server_pid: int | None


def chosen(ids: Sequence[str]) -> list[Case]:
    """Return the cases of these ids in the order of the list, or all. Raises ValueError."""
    known = {case.id for case in CASES}
    unknown = [case_id for case_id in ids if case_id not in known]
    if unknown:
        raise ValueError(f"there is no case {unknown[0]}: --list has them")
    return [case for case in CASES if not ids or case.id in ids]


def show(cases: Sequence[Case], *, as_json: bool) -> None:
    """Print the cases."""
    if as_json:
        click.echo(json.dumps([report.case_facts(case) for case in cases]))
    else:
        click.echo(report.listed(cases))


async def conform(url: Url, options: Options, cases: Sequence[Case]) -> int:
    """Run cases against the server at `url`, print and write what came of it; the exit code.

    Raises ConnectionLostError when nobody is there, RefusedError when the token is not taken, and
    OSError when the JUnit file cannot be written.
    """
    target = Target(url, options.token, options.timeout_s)
    if options.server_pid is not None:
        target.leaving = Leaving(partial(os.kill, options.server_pid, signal.SIGTERM))
    progress = report.Progress(len(cases), quiet=options.as_json)
    problem = await _probe(target)
    if problem is not None:
        # Nothing can be asked of a server that does not answer HELLO: each case has failed.
        results = [Result(case, FAILED, 0.0, problem.expected, problem.got) for case in cases]
        for result in results:
            progress(result)
    else:
        results = await run(target, cases, progress)
    if options.junit is not None:
        options.junit.write_bytes(junit(results, str(url)))
    if options.as_json:
        rows = [report.result_facts(result) for result in results]
        click.echo(json.dumps({"url": str(url), "prefix": target.prefix, "cases": rows}))
    else:
        click.echo(report.summary(results))
    return EXIT_FAILED if any(result.outcome == FAILED for result in results) else 0


async def _probe(target: Target) -> FailedError | None:
    """Ask for the server's facts; what is wrong where it does not answer as one."""
    try:
        await target.probe()
    except NobodyThereError as exc:
        raise ConnectionLostError(
            f"cannot connect to {target.url}: {exc.got}; is uringd serving there?"
        ) from exc
    except RefusalError as exc:
        if exc.code is ErrorCode.UNAUTHORIZED:
            raise RefusedError(exc.code, "the server did not take the token") from exc
        return exc
    except FailedError as exc:
        return exc
    return None
