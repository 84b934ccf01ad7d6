"""Make pictures and tables from a result of `make bench` or `make bench-ingest`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))  # python -I leaves it out: it is where bench/ is

import click

from bench.harness.block import BlockError, read_block, replace_block
from bench.harness.document import blocks_of, judges_all, rejudged, show
from bench.harness.measurement import CannotRunError
from bench.harness.results import Result, ResultError
from bench.harness.suites import save_pictures, suite_of

HERE = Path(__file__).parent
RESULTS = HERE / "results"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument(
    "result_path",
    metavar="[RESULT.json]",
    required=False,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=HERE / "report",
    help="Folder for the pictures.  [default: bench/report]",
)
@click.option(
    "--into",
    type=click.Path(exists=True, dir_okay=False, writable=True, path_type=Path),
    help="Markdown file whose blocks between the markers of figures are rewritten.",
)
def main(*, result_path: Path | None, output: Path, into: Path | None) -> None:
    """Draw a result as SVG, and show its tables or write them into a Markdown file.

    Without RESULT.json the newest file in bench/results is taken. A job that the result does not
    have keeps the block it has. The table of what is asked is written by a result that has it all;
    another one writes the rows that it has, and each of them says so.

    \b
    Examples:
      python -I bench/report.py
      python -I bench/report.py bench/results/X.json --into bench/README.md
    """  # noqa: D301  # \b is click's: leave the next paragraph as it is
    try:
        result = Result.load(result_path or _newest())
        if not result.runs:
            raise ResultError("this result has no runs")
        pictures = save_pictures(result, output)
        for picture in pictures.values():
            click.echo(f"picture: {picture}")
        if into is None:
            show(result)
        else:
            images = {name: os.path.relpath(path, into.parent) for name, path in pictures.items()}
            text = into.read_text()
            blocks = blocks_of(result, images)
            demands = suite_of(result).acceptance
            if not judges_all(result):  # the table is of a whole run: this one has some rows of it
                blocks[demands] = rejudged(read_block(text, demands), result)
            for name, block in blocks.items():
                text = replace_block(text, name, block)
            into.write_text(text)
            click.echo(f"tables: {into}")
    except (ResultError, BlockError, CannotRunError, ValueError) as exc:
        raise click.ClickException(str(exc)) from exc


def _newest() -> Path:
    results = sorted(RESULTS.glob("*.json"))
    if not results:
        raise ResultError("there is no result yet: make bench")
    return results[-1]


if __name__ == "__main__":
    main()
