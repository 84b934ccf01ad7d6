"""The command of a suite: what can be asked, and the run from the first check to the report."""

from __future__ import annotations

import datetime as dt
import re
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.harness.contenders import CONTENDERS
from bench.harness.content import write_source
from bench.harness.display import Display
from bench.harness.document import derived, show, whole_text
from bench.harness.environment import describe
from bench.harness.jobs import Job, select_jobs
from bench.harness.measurement import CannotRunError, DiskFullError
from bench.harness.memory import MemoryFiller
from bench.harness.method import environment_lines
from bench.harness.quiet import REST_TIMEOUT_S
from bench.harness.results import Memory, Result, Settings
from bench.harness.rounds import ContentError, Rounds
from bench.harness.suites import save_pictures
from bench.harness.units import MIB, size_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bench.harness.suites import Suite

ROUNDS = 5
QUICK_ROUNDS = 1
QUICK_REST_TIMEOUT_S = 1.0
"""On a disk that others keep busy a quick look would be none."""
FREE_SHARE = 1.25
"""Beside the source and one file, the file system wants room to be fast."""
INTERRUPTED = 130

RESULTS = Path(__file__).parents[1] / "results"
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class Size(click.ParamType[int]):
    """A number of bytes: 2GiB, 512M, 1048576."""

    name = "size"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Turn "512M" into bytes; K, M and G are powers of 1024."""
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"(\d+)\s*([KMG]?)(i?B)?", str(value).strip(), re.IGNORECASE)
        if not match or not int(match[1]):
            self.fail(f"{value!r} is no size: say 512MiB or 2GiB", param, ctx)
        return int(match[1]) * UNITS[match[2].upper()]


class Names(click.ParamType[tuple[str, ...]]):
    """Names of jobs with commas between: fresh,random."""

    name = "names"

    def __init__(self, known: Iterable[str]) -> None:
        self._known = list(known)

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Turn "fresh,random" into names, each of which must be known."""
        names = tuple(name.strip() for name in str(value).split(","))
        for name in names:
            if name not in self._known:
                self.fail(f"{name!r} is no job: there are {', '.join(self._known)}", param, ctx)
        return names


def command_of(suite: Suite, text: str) -> click.Command:
    """Make the command of a suite; `text` is its help."""
    jobs = suite.jobs(False)
    contenders = list(dict.fromkeys(name for job in jobs.values() for name in job.contenders))

    def run(**said: Any) -> None:
        run_suite(suite, **said)

    return click.Command(
        suite.name,
        callback=run,
        help=text,
        params=_options(list(jobs), contenders),
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def _options(jobs: list[str], contenders: list[str]) -> list[click.Parameter]:
    return [
        click.Option(
            ["--quick"],
            is_flag=True,
            help="A short look: small files, 1 round. Not for quoting.",
        ),
        click.Option(
            ["--dir", "directory"],
            type=click.Path(exists=True, file_okay=False, writable=True, path_type=Path),
            default=Path("/var/tmp"),  # noqa: S108  # the temporary directory that is on a disk
            show_default=True,
            envvar="URINGIO_BENCH_DIR",
            help="Where to write: a directory on the disk to be measured.",
        ),
        click.Option(
            ["--jobs", "job_names"],
            type=Names(jobs),
            metavar="NAME[,NAME]",
            help=f"Do these jobs only, of {', '.join(jobs)}.  [default: all]",
        ),
        click.Option(
            ["--rounds"],
            type=click.IntRange(1),
            help=f"Rounds of all contenders.  [default: {ROUNDS}]",
        ),
        click.Option(
            ["--size"],
            type=Size(),
            help="Bytes that are written in every cell.  [default: each has its own]",
        ),
        click.Option(
            ["--rest", "rest_timeout_s"],
            type=click.FloatRange(0),
            metavar="SECONDS",
            help="How long to wait before each run for the disk to do nothing.  "
            f"[default: {REST_TIMEOUT_S:g}; with --quick {QUICK_REST_TIMEOUT_S:g}]",
        ),
        click.Option(
            ["--memory"],
            type=click.Choice(["in-use", "as-is"]),
            help="Fill all free memory with page cache before each run, as on a machine that has "
            "been up a while, or not. It decides how fast a write through the page cache is.  "
            "[default: in-use; with --quick as-is]",
        ),
        click.Option(
            ["--only"],
            type=click.Choice(contenders),
            multiple=True,
            metavar="CONTENDER",
            help=f"Measure this contender only; may be repeated: {', '.join(contenders)}.",
        ),
        click.Option(
            ["--json", "json_path"],
            type=click.Path(dir_okay=False, path_type=Path),
            help="Where the result goes.  [default: bench/results/<time>.json]",
        ),
    ]


def run_suite(
    suite: Suite,
    *,
    quick: bool,
    directory: Path,
    job_names: tuple[str, ...] | None,
    rounds: int | None,
    size: int | None,
    rest_timeout_s: float | None,
    memory: Memory | None,
    only: tuple[str, ...],
    json_path: Path | None,
) -> None:
    """Check, measure, report. Raises click's exceptions; Ctrl-C keeps what is whole, and is 130."""
    jobs = select_jobs(suite.jobs(quick).values(), job_names or (), only, size)
    _check_jobs(jobs)
    settings = Settings(
        rounds=rounds or (QUICK_ROUNDS if quick else ROUNDS),
        rest_timeout_s=rest_timeout_s
        if rest_timeout_s is not None
        else (QUICK_REST_TIMEOUT_S if quick else REST_TIMEOUT_S),
        memory=memory or ("as-is" if quick else "in-use"),
        jobs=jobs,
        suite=suite.name,
    )
    for number in (signal.SIGINT, signal.SIGTERM):  # clean up, also where a shell had us ignore it
        signal.signal(number, signal.default_int_handler)
    _check_space(directory, settings)
    environment = describe(directory)
    result = Result(settings, environment, suite.method(settings, environment))
    for line in [*environment_lines(environment), "", *result.method, ""]:
        click.echo(line)
    path = json_path or RESULTS / f"{_timestamp()}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)  # known now, not in half an hour
        _measure(result, directory)
        _report(result, path)
    except (ContentError, DiskFullError, OSError) as exc:
        raise click.ClickException(str(exc)) from exc
    if result.interrupted:
        sys.exit(INTERRUPTED)


def _check_jobs(jobs: tuple[Job, ...]) -> None:
    if not jobs:
        raise click.UsageError("none of these contenders takes part in these jobs")
    for job in jobs:
        for cell in job.cells:
            block = cell.block_bytes
            if cell.size_bytes % block or (block > MIB and block % MIB):
                wanted = size_text(MIB if block == cell.size_bytes else block)
                raise click.UsageError(f"--size must be a multiple of {wanted} for job {job.name}")


def _sources(settings: Settings) -> list[tuple[int, int]]:
    """Give the size and the blocks of every source that uploads read, the biggest last.

    Many small uploads are made in memory, without one.
    """
    found = [
        (cell.block_bytes, MIB)
        if cell.pattern == "uploads"
        else (cell.size_bytes, cell.block_bytes)
        for job in settings.jobs
        if any(CONTENDERS[name].uploads for name in job.contenders)
        for cell in job.cells
    ]
    return sorted(each for each in found if each[0] > MIB)


def _check_space(directory: Path, settings: Settings) -> None:
    largest = max(cell.size_bytes for job in settings.jobs for cell in job.cells)
    source = max((size for size, _ in _sources(settings)), default=0)
    wanted = int((largest + source) * FREE_SHARE)
    free = shutil.disk_usage(directory).free
    if free < wanted:
        raise click.ClickException(
            f"{directory} has {size_text(free)} free and {size_text(wanted)} are needed: "
            "name another --dir, or a smaller --size"
        )


def _measure(result: Result, directory: Path) -> None:
    """Run all rounds in a temporary directory; an interruption is noted, and is no error."""
    settings = result.settings
    with (
        tempfile.TemporaryDirectory(prefix="uringio-bench-", dir=directory) as scratch,
        Display(result) as display,
    ):
        try:
            source = Path(scratch) / "source"
            for size, block in _sources(settings)[-1:]:  # smaller ones are the begin of it
                display.say("writing the source of uploads")
                write_source(source, size, block)
            filler = None
            if settings.memory == "in-use":
                display.say("filling memory")
                filler = MemoryFiller(Path(scratch) / "hole")
                filler.fill()
            Rounds(result, Path(scratch), source, filler, display).run()
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one would leave files behind
            result.interrupted = True
            click.echo("interrupted: what is whole is kept, the files are removed", err=True)


def _report(result: Result, path: Path) -> None:
    """Save what there is, in the order of its worth: the result, the tables, the pictures."""
    if not result.runs:
        raise click.ClickException("nothing was measured")
    result.save(path, derived(result))
    show(result)
    click.echo(f"\nresult: {path}")
    folder = path.with_suffix("")
    images = {}
    try:
        images = {name: picture.name for name, picture in save_pictures(result, folder).items()}
    except CannotRunError as exc:
        click.echo(str(exc))
    folder.mkdir(exist_ok=True)
    report = folder / "report.md"
    report.write_text(whole_text(result, images))
    click.echo(f"report: {report}")


def _timestamp() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%SZ")
