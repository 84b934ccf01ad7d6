"""The pictures of uploads: rates by cell, and beside them what they cost and how long they take."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from bench.harness.canvas import (
    FAINT,
    INK,
    KINDS,
    LIBRARY,
    OURS,
    PLAIN,
    ROW_INCHES,
    Canvas,
    title_of,
)
from bench.harness.contenders import CONTENDERS
from bench.harness.figures import figures_of
from bench.harness.ingest.tables import MILLISECOND_US
from bench.harness.method import cell_text
from bench.harness.plot_bars import BAR, bars
from bench.harness.plot_lines import line
from bench.harness.scale import scale_of

if TYPE_CHECKING:
    from bench.harness.cell import Cell
    from bench.harness.figures import CellFigures
    from bench.harness.jobs import Job
    from bench.harness.results import Result

COST = "-cost"
"""What the name of the second picture ends in."""
COSTS = (("server", OURS), ("kernel threads", PLAIN), ("client", LIBRARY))
CONNECTIONS = "-connections"
"""... and of the third, where there are lines to draw."""
LINE_CELLS_MIN = 3
"""Cells that a contender has to be in for a line."""
PANEL_INCHES = 5.2
ROOM = 1.25
"""Axes are so much longer than the longest bar: its label stands behind it."""
NOT_DURABLE = " (not durable)"
MARK = 7.0
"""Points of the mark at a p99."""


def picture_names(job: Job) -> list[str]:
    """Name the pictures that belong to a job."""
    return [job.name, job.name + COST, job.name + CONNECTIONS]


def pictures(result: Result) -> dict[str, Canvas]:
    """Draw all of every job that has runs. Raises CannotRunError where there is no matplotlib."""
    found: dict[str, Canvas] = {}
    for job in result.settings.jobs:
        figures = {cell: figures_of(result, job, cell) for cell in job.cells}
        known = {cell: each for cell, each in figures.items() if each}
        if known:
            found[job.name] = _draw_rates(result, job, known)
            found[job.name + COST] = _draw_costs(result, job, known)
        if len(known) >= LINE_CELLS_MIN:
            found[job.name + CONNECTIONS] = _draw_connections(result, job, known)
    return found


def _draw_rates(result: Result, job: Job, known: dict[Cell, CellFigures]) -> Canvas:
    """Draw a panel of rates for each cell; of many cells the one that most took part in."""
    if len(known) >= LINE_CELLS_MIN:
        fullest = _fullest(known)
        known = {fullest: known[fullest]}
    names = _names(job, known)
    canvas, panels = _canvas(result, job.title, names, len(known))
    for axes, (cell, figures) in zip(panels, known.items(), strict=True):
        scale = scale_of(job, cell)
        here = [name for name in names if name in figures]
        spreads = [figures[name].rate.times(scale.rate) for name in here]
        labels = [f"{spread.median:,.{scale.rate_digits}f}" for spread in spreads]
        bars(axes, here, spreads, labels, [names.index(name) for name in here])
        axes.set_xlim(0, max(spread.high for spread in spreads) * ROOM)
        axes.set_title(cell_text(cell))
        axes.set_xlabel(scale.rate_name)
    canvas.kind_legend(CONTENDERS[name].kind for name in reversed(names))
    return canvas


def _draw_costs(result: Result, job: Job, known: dict[Cell, CellFigures]) -> Canvas:
    """Draw CPU and latency in the cell that most took part in."""
    cell = _fullest(known)
    figures = known[cell]
    names = _names(job, {cell: figures})
    canvas, panels = _canvas(result, f"{job.title}: {cell_text(cell)}", names, 2)
    costs, commits = panels
    scale = scale_of(job, cell)
    left = [0.0] * len(names)
    rows = range(len(names))
    for (_, colour), parts in zip(
        COSTS, zip(*map(_parts(figures), names), strict=True), strict=True
    ):
        widths = [part * scale.cpu for part in parts]
        costs.barh(rows, widths, left=left, color=colour, height=BAR)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    costs.set_title(scale.cpu_name)
    costs.grid(axis="x", color=FAINT, linewidth=0.6)
    patches: Any = importlib.import_module("matplotlib.patches")
    canvas.legend([patches.Patch(color=colour, label=what) for what, colour in COSTS], len(COSTS))
    _draw_commits(commits, figures, names)
    return canvas


def _parts(figures: CellFigures) -> Any:
    """Make the function that takes a contender's costs apart, in CPU s/GiB."""

    def parts(name: str) -> list[float]:
        found = figures[name]
        return [
            spread.median if spread else 0.0
            for spread in (found.cpu, found.kworkers, found.client_cpu)
        ]

    return parts


def _draw_commits(axes: Any, figures: CellFigures, names: list[str]) -> None:
    """Draw from p50 to p99, on a logarithmic scale."""
    for row, name in enumerate(names):
        found = figures[name].latency_us
        if "50" not in found or "99" not in found:
            continue
        low, high = (found[p].median / MILLISECOND_US for p in ("50", "99"))
        colour = KINDS[CONTENDERS[name].kind]
        axes.plot([low, high], [row, row], color=colour, linewidth=MARK, solid_capstyle="butt")
        axes.plot([low], [row], marker="|", color=INK, markersize=MARK * 1.6)
        axes.annotate(
            f"{_brief(low)} - {_brief(high)}",
            (high, row),
            (5, 0),
            textcoords="offset points",
            va="center",
        )
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xlim(low, high * (high / low) ** 0.4)
    axes.set_title("commit in ms: p50 to p99")
    axes.grid(axis="x", color=FAINT, linewidth=0.6)


def _draw_connections(result: Result, job: Job, known: dict[Cell, CellFigures]) -> Canvas:
    """Draw rates by the number of connections, a line for each contender that has some."""
    canvas = Canvas(title_of(result, job.title), 8.5, 4.6)
    (axes,) = canvas.panels(1, 1)
    scale = scale_of(job, next(iter(known)))
    handles: list[Any] = []
    for name in job.contenders:
        found = {cell.depth: figures[name] for cell, figures in known.items() if name in figures}
        if len(found) >= LINE_CELLS_MIN:
            rates = {depth: each.rate.times(scale.rate) for depth, each in found.items()}
            nudge = 1 + 0.02 * len(handles)
            handles.append(line(axes, rates, len(handles), nudge, label=CONTENDERS[name].title))
    depths = sorted(cell.depth for cell in known)
    axes.set_xscale("log", base=2)
    axes.set_xticks(depths, [str(depth) for depth in depths])
    axes.minorticks_off()
    axes.set_ylim(0, axes.get_ylim()[1] * 1.05)
    axes.set_xlabel("connections")
    axes.set_title(scale.rate_name)
    axes.grid(color=FAINT, linewidth=0.6)
    canvas.legend(handles, 2)
    return canvas


def _fullest(known: dict[Cell, CellFigures]) -> Cell:
    return max(known, key=lambda cell: len(known[cell]))


def _brief(milliseconds: float) -> str:
    return f"{milliseconds:,.0f}" if milliseconds >= 100 else f"{milliseconds:.2g}"


def _canvas(result: Result, title: str, names: list[str], columns: int) -> tuple[Canvas, list[Any]]:
    canvas = Canvas(
        title_of(result, title), 3.0 + PANEL_INCHES * columns, 1.6 + ROW_INCHES * len(names)
    )
    panels = canvas.panels(1, columns, sharey=True)
    titles = [
        CONTENDERS[name].title + NOT_DURABLE * (not CONTENDERS[name].survives) for name in names
    ]
    panels[0].set_yticks(range(len(names)), titles)
    return canvas, panels


def _names(job: Job, known: dict[Cell, CellFigures]) -> list[str]:
    """Keep the order of the job, from the top down."""
    ran = {name for figures in known.values() for name in figures}
    return [name for name in reversed(job.contenders) if name in ran]
