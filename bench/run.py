"""Measure durable writes of a fresh file on this machine's disk: `make bench`."""

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
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench.harness.contenders import CONTENDERS
from bench.harness.content import write_source
from bench.harness.environment import describe
from bench.harness.figures import MIB, figures_of
from bench.harness.measurement import CannotRunError
from bench.harness.memory import MemoryFiller
from bench.harness.method import environment_lines, method_lines, size_text
from bench.harness.plot import draw
from bench.harness.quiet import REST_TIMEOUT_S
from bench.harness.results import Memory, Result, Run, Settings
from bench.harness.rounds import ContentError, Rounds
from bench.harness.tables import show

SIZE_BYTES = 2 << 30
QUICK_SIZE_BYTES = 512 << 20
BLOCK_BYTES = 1 << 20
DEPTH = 16
ROUNDS = 5
QUICK_ROUNDS = 2
FREE_SHARE = 1.25
"""Beside the source and one file, the file system wants room to be fast."""

RESULTS = Path(__file__).parent / "results"
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}

DEFAULT_NAMES = [name for name, contender in CONTENDERS.items() if not contender.optional]


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


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--quick", is_flag=True, help="A short look: 512 MiB and 2 rounds. Not for quoting.")
@click.option(
    "--dir",
    "directory",
    type=click.Path(exists=True, file_okay=False, writable=True, path_type=Path),
    default=Path("/var/tmp"),  # noqa: S108  # the temporary directory that is on a disk
    show_default=True,
    envvar="URINGIO_BENCH_DIR",
    help="Where to write: a directory on the disk to be measured.",
)
@click.option("--rounds", type=click.IntRange(1), help="Rounds of all contenders.  [default: 5]")
@click.option("--size", type=Size(), help="Size of the file.  [default: 2GiB]")
@click.option(
    "--rest",
    "rest_timeout_s",
    type=click.FloatRange(0),
    default=REST_TIMEOUT_S,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait before each run for the disk to do nothing.",
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
    help="Measure this contender only; may be repeated. Without it, all but "
    + " and ".join(name for name in CONTENDERS if name not in DEFAULT_NAMES)
    + ".",
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
    rounds: int | None,
    size: int | None,
    rest_timeout_s: float,
    memory: Memory | None,
    only: tuple[str, ...],
    json_path: Path | None,
) -> None:
    """Measure durable writes of a fresh file, this library beside fio and os.write.

    Every contender writes the same bytes to a new file on the same disk, once a round, in a process
    of its own; the tables give medians, ratios first. Nothing is left behind but the result, one
    JSON file with the environment, the method and every run. bench/report.py makes a picture and a
    Markdown table from it. bench/README.md says how to read the figures.

    \b
    Examples:
      make bench                                    the full comparison, five to ten minutes
      make bench QUICK=1                            a short look
      python -I bench/run.py --dir /mnt/nvme        another disk
      python -I bench/run.py --only fio --only uringio-slots --rounds 9
    """  # noqa: D301  # \b is click's: leave the next paragraph as it is
    settings = Settings(
        size_bytes=size or (QUICK_SIZE_BYTES if quick else SIZE_BYTES),
        block_bytes=BLOCK_BYTES,
        depth=DEPTH,
        rounds=rounds or (QUICK_ROUNDS if quick else ROUNDS),
        rest_timeout_s=rest_timeout_s,
        memory=memory or ("as-is" if quick else "in-use"),
        contenders=tuple(name for name in CONTENDERS if name in (only or DEFAULT_NAMES)),
    )
    if settings.size_bytes % BLOCK_BYTES:
        raise click.UsageError(f"--size must be a multiple of {size_text(BLOCK_BYTES)}")
    for number in (signal.SIGINT, signal.SIGTERM):  # clean up, also where a shell had us ignore it
        signal.signal(number, signal.default_int_handler)
    _check_space(directory, settings)
    environment = describe(directory)
    result = Result(settings, environment, method_lines(settings, environment))
    for line in [*environment_lines(environment), "", *result.method, ""]:
        click.echo(line)
    try:
        _measure(result, directory)
    except ContentError as exc:
        raise click.ClickException(str(exc)) from exc
    _report(result, json_path or RESULTS / f"{_timestamp()}.json")


def _check_space(directory: Path, settings: Settings) -> None:
    uploads = any(CONTENDERS[name].uploads for name in settings.contenders)
    wanted = int(settings.size_bytes * (2 if uploads else 1) * FREE_SHARE)
    free = shutil.disk_usage(directory).free
    if free < wanted:
        raise click.ClickException(
            f"{directory} has {size_text(free)} free and {size_text(wanted)} are needed: "
            "name another --dir, or a smaller --size"
        )


def _measure(result: Result, directory: Path) -> None:
    """Run all rounds in a temporary directory, with a bar on a terminal and lines elsewhere."""
    settings = result.settings
    console = Console(stderr=True)
    columns = [
        TextColumn("{task.description:32}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    ]
    progress = Progress(*columns, console=console, disable=not console.is_terminal)
    with tempfile.TemporaryDirectory(prefix="uringio-bench-", dir=directory) as scratch, progress:
        task = progress.add_task("", total=settings.rounds * len(settings.contenders))
        source = Path(scratch) / "source"
        if any(CONTENDERS[name].uploads for name in settings.contenders):
            progress.update(task, description="writing the source of uploads")
            write_source(source, settings.size_bytes, settings.block_bytes)

        filler = None
        if settings.memory == "in-use":
            progress.update(task, description="filling memory")
            filler = MemoryFiller(Path(scratch) / "hole")
            filler.fill()

        def before(number: int, name: str) -> None:
            progress.update(task, description=f"round {number + 1}: {name}")

        def after(run: Run) -> None:
            progress.advance(task)
            rate = settings.size_bytes / MIB / run.measurement.seconds
            line = (
                f"round {run.round + 1} of {settings.rounds}  {run.contender:22} {rate:6.0f} MiB/s"
            )
            console.print(line, highlight=False)

        Rounds(result, Path(scratch), source, filler, before, after).run()


def _report(result: Result, path: Path) -> None:
    figures = figures_of(result)
    result.save(path, {name: found.to_json() for name, found in figures.items()})
    show(result, figures)
    click.echo(f"result: {path}")
    try:
        draw(result, figures, path.with_suffix(".svg"))
        click.echo(f"picture: {path.with_suffix('.svg')}")
    except CannotRunError as exc:
        click.echo(str(exc))
    if not figures:
        raise click.ClickException("nothing could be measured")


def _timestamp() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%SZ")


if __name__ == "__main__":
    main()
