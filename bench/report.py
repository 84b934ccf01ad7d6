"""Make a picture and a table from a result of `make bench`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))  # python -I leaves it out: it is where bench/ is

import click

from bench.harness.block import BlockError, replace_block
from bench.harness.figures import figures_of
from bench.harness.measurement import CannotRunError
from bench.harness.plot import draw
from bench.harness.results import Result, ResultError
from bench.harness.tables import markdown, show

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PICTURE = "fresh-file.svg"


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
    help=f"Folder for the picture, {PICTURE}.  [default: bench/report]",
)
@click.option(
    "--into",
    type=click.Path(exists=True, dir_okay=False, writable=True, path_type=Path),
    help="Markdown file whose block between the figures markers is rewritten.",
)
def main(*, result_path: Path | None, output: Path, into: Path | None) -> None:
    """Draw a result as SVG, and show its table or write it into a Markdown file.

    Without RESULT.json the newest file in bench/results is taken.

    \b
    Examples:
      python -I bench/report.py
      python -I bench/report.py bench/results/X.json --into bench/README.md
    """  # noqa: D301  # \b is click's: leave the next paragraph as it is
    try:
        result = Result.load(result_path or _newest())
        figures = figures_of(result)
        if not figures:
            raise ResultError("this result has no runs")
        picture = output / PICTURE
        draw(result, figures, picture)
        click.echo(f"picture: {picture}")
        if into is None:
            show(result, figures)
        else:
            image = os.path.relpath(picture, into.parent)
            text = replace_block(into.read_text(), markdown(result, figures, image))
            into.write_text(text)
            click.echo(f"table: {into}")
    except (ResultError, BlockError, CannotRunError) as exc:
        raise click.ClickException(str(exc)) from exc


def _newest() -> Path:
    results = sorted(RESULTS.glob("*.json"))
    if not results:
        raise ResultError("there is no result yet: make bench")
    return results[-1]


if __name__ == "__main__":
    main()
