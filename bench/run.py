"""Measure durable writes on this machine's disk, this library beside others: `make bench`."""

from __future__ import annotations

import datetime as dt
import re
import shutil
import signal
import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))  # python -I leaves it out: it is where bench/ is

import click

from bench.harness.contenders import CONTENDERS
from bench.harness.content import write_source
from bench.harness.display import Display
from bench.harness.document import derived, show, whole_text
from bench.harness.environment import describe
from bench.harness.jobs import Job, all_jobs, select_jobs
from bench.harness.measurement import CannotRunError, DiskFullError
from bench.harness.memory import MemoryFiller
from bench.harness.method import environment_lines, method_lines
from bench.harness.plot import save_all
from bench.harness.quiet import REST_TIMEOUT_S
from bench.harness.results import Memory, Result, Settings
from bench.harness.rounds import ContentError, Rounds
from bench.harness.units import size_text

ROUNDS = 5
QUICK_ROUNDS = 1
QUICK_REST_TIMEOUT_S = 1.0
"""On a disk that others keep busy a quick look would be none."""
FREE_SHARE = 1.25
"""Beside the source and one file, the file system wants room to be fast."""
INTERRUPTED = 130

RESULTS = Path(__file__).parent / "results"
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
JOB_NAMES = list(all_jobs(quick=False))


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
    """Names with commas between: fresh,random."""

    name = "names"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Turn "fresh,random" into names, each of which must be known."""
        names = tuple(name.strip() for name in str(value).split(","))
        for name in names:
            if name not in JOB_NAMES:
                self.fail(f"{name!r} is no job: there are {', '.join(JOB_NAMES)}", param, ctx)
        return names


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--quick", is_flag=True, help="A short look: small files, 1 round. Not for quoting.")
@click.option(
    "--dir",
    "directory",
    type=click.Path(exists=True, file_okay=False, writable=True, path_type=Path),
    default=Path("/var/tmp"),  # noqa: S108  # the temporary directory that is on a disk
    show_default=True,
    envvar="URINGIO_BENCH_DIR",
    help="Where to write: a directory on the disk to be measured.",
)
@click.option(
    "--jobs",
    "job_names",
    type=Names(),
    metavar="NAME[,NAME]",
    help=f"Do these jobs only, of {', '.join(JOB_NAMES)}.  [default: all]",
)
@click.option("--rounds", type=click.IntRange(1), help="Rounds of all contenders.  [default: 5]")
@click.option("--size", type=Size(), help="Size of every file.  [default: each cell has its own]")
@click.option(
    "--rest",
    "rest_timeout_s",
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="How long to wait before each run for the disk to do nothing.  "
    f"[default: {REST_TIMEOUT_S:g}; with --quick {QUICK_REST_TIMEOUT_S:g}]",
)
@click.option(
    "--memory",
    type=click.Choice(["in-use", "as-is"]),
    help="Fill all free memory with page cache before each run, as on a machine that has been up a "
    "while, or not. It decides how fast os.write is.  [default: in-use; with --quick as-is]",
)
@click.option(
    "--only",
    type=click.Choice(list(CONTENDERS)),
    multiple=True,
    metavar="CONTENDER",
    help=f"Measure this contender only; may be repeated: {', '.join(CONTENDERS)}.",
)
@click.option(
    "--json",
    "json_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where the result goes.  [default: bench/results/<time>.json]",
)
def main(
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
    """Measure durable writes, this library beside fio, Python's own calls and other libraries.

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
    """  # noqa: D301  # \b is click's: leave the next paragraph as it is
    jobs = select_jobs(all_jobs(quick=quick).values(), job_names or (), only, size)
    _check_jobs(jobs)
    settings = Settings(
        rounds=rounds or (QUICK_ROUNDS if quick else ROUNDS),
        rest_timeout_s=rest_timeout_s
        if rest_timeout_s is not None
        else (QUICK_REST_TIMEOUT_S if quick else REST_TIMEOUT_S),
        memory=memory or ("as-is" if quick else "in-use"),
        jobs=jobs,
    )
    for number in (signal.SIGINT, signal.SIGTERM):  # clean up, also where a shell had us ignore it
        signal.signal(number, signal.default_int_handler)
    _check_space(directory, settings)
    environment = describe(directory)
    result = Result(settings, environment, method_lines(settings, environment))
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
            if cell.size_bytes % cell.block_bytes:
                block = size_text(cell.block_bytes)
                raise click.UsageError(f"--size must be a multiple of {block} for job {job.name}")


def _uploads(job: Job) -> bool:
    return any(CONTENDERS[name].uploads for name in job.contenders)


def _check_space(directory: Path, settings: Settings) -> None:
    largest = max(
        cell.size_bytes * (2 if _uploads(job) else 1) for job in settings.jobs for cell in job.cells
    )
    wanted = int(largest * FREE_SHARE)
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
            cells = [cell for job in settings.jobs if _uploads(job) for cell in job.cells]
            for cell in cells[:1]:  # one job uploads, and has one cell
                display.say("writing the source of uploads")
                write_source(source, cell.size_bytes, cell.block_bytes)
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
        images = {name: picture.name for name, picture in save_all(result, folder).items()}
    except CannotRunError as exc:
        click.echo(str(exc))
    folder.mkdir(exist_ok=True)
    report = folder / "report.md"
    report.write_text(whole_text(result, images))
    click.echo(f"report: {report}")


def _timestamp() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%SZ")


if __name__ == "__main__":
    main()
