"""Bars: how fast over the reference, for how much CPU, and what is left in the page cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.harness.canvas import FAINT, INK, KINDS, PAPER, ROW_INCHES, WHISKER, Canvas, title_of
from bench.harness.contenders import CONTENDERS
from bench.harness.figures import figures_of
from bench.harness.method import cell_text
from bench.harness.scale import scale_of
from bench.harness.tables import SHORT, spread_text
from bench.harness.units import MIB

if TYPE_CHECKING:
    from bench.harness.cell import Cell
    from bench.harness.figures import CellFigures, Figures, Spread
    from bench.harness.jobs import Job
    from bench.harness.results import Result

BAR = 0.66
LABEL_ROOM_WIDE, LABEL_ROOM = 1.45, 1.85
"""Axes are so much longer than the longest bar, in a wide panel and in a narrow one: its label
stands behind it."""


def draw_bars(result: Result, job: Job) -> Canvas:
    """Draw a panel with ratios for each cell, and one with CPU beside a single cell."""
    found = {cell: figures_of(result, job, cell) for cell in job.cells}
    known = {cell: figures for cell, figures in found.items() if figures}
    names = _ranked(job, known)
    single = len(known) == 1
    height = 1.5 + ROW_INCHES * len(names)
    canvas = Canvas(title_of(result, job.title), 10.5 if single else 11.5, height)
    ratios = [3.0] if single else [1.0] * len(known)
    panels = canvas.panels(
        1, len(ratios) + single, sharey=True, width_ratios=[*ratios, *[2.0] * single]
    )
    for axes, (cell, figures) in zip(panels, known.items(), strict=False):
        _draw_ratios(axes, job, cell, figures, names, LABEL_ROOM_WIDE if single else LABEL_ROOM)
        if single:
            _draw_costs(panels[-1], job, cell, figures, names)
    panels[0].set_yticks(range(len(names)), [CONTENDERS[name].title for name in names])
    canvas.kind_legend(CONTENDERS[name].kind for name in reversed(names))
    return canvas


def draw_page_cache(result: Result, job: Job) -> Canvas:
    """Draw how much of the file was in the page cache afterwards."""
    cell = job.cells[0]
    figures = figures_of(result, job, cell)
    shares = {name: found.cached for name, found in figures.items() if found.cached}
    names = sorted(shares, key=lambda name: -shares[name].median)
    title = f"What is left in the page cache: {cell_text(cell)}"
    canvas = Canvas(title_of(result, title), 8.5, 1.4 + ROW_INCHES * len(names))
    (axes,) = canvas.panels(1, 1)
    percent = [shares[name].times(100) for name in names]
    bars(axes, names, percent, [f"{share.median:.1f} %" for share in percent])
    axes.set_yticks(range(len(names)), [CONTENDERS[name].title for name in names])
    axes.set_xlim(0, 118)
    axes.set_xlabel("share of the file, in per cent (mincore)")
    return canvas


def _ranked(job: Job, known: dict[Cell, CellFigures]) -> list[str]:
    """Put the fastest on top: by the cell with blocks of 1 MiB, if there is one."""
    main = next((cell for cell in known if cell.block_bytes == MIB), next(iter(known)))
    figures = known[main]
    ranked = sorted(figures, key=lambda name: figures[name].rate.median)
    others = {name: None for cell in known.values() for name in cell if name not in figures}
    return [name for name in [*others, *ranked] if name in job.contenders]


def _draw_ratios(
    axes: Any, job: Job, cell: Cell, figures: CellFigures, names: list[str], room: float
) -> None:
    """Draw ratios over the main reference; rates, where nobody is a reference."""
    scale = scale_of(job, cell)
    main = next((name for name in job.over if name in figures), None)
    here = [name for name in names if name in figures]
    spreads = [
        figures[name].over[main] if main else figures[name].rate.times(scale.rate) for name in here
    ]
    labels = [label_of(figures[name], main, scale.rate, scale.rate_digits) for name in here]
    bars(axes, here, spreads, labels, [names.index(name) for name in here])
    axes.set_xlim(0, max(spread.high for spread in spreads) * room)
    axes.set_title(cell_text(cell))
    if main:
        axes.axvline(1, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
        axes.set_xlabel(f"times {SHORT.get(main, main)} (behind it: {scale.rate_name})")
    else:
        axes.set_xlabel(scale.rate_name)


def label_of(found: Figures, main: str | None, factor: float, digits: int) -> str:
    """Say a ratio with its rate, or the rate alone."""
    rate = f"{found.rate.median * factor:,.{digits}f}"
    return f"{found.over[main].median:.2f}  ({rate})" if main else rate


def bars(
    axes: Any,
    names: list[str],
    spreads: list[Spread],
    labels: list[str],
    rows: list[int] | None = None,
) -> None:
    """Draw a bar with its whiskers and its label for each name."""
    where = rows if rows is not None else list(range(len(names)))
    medians = [spread.median for spread in spreads]
    below = [spread.median - spread.low for spread in spreads]
    above = [spread.high - spread.median for spread in spreads]
    colours = [KINDS[CONTENDERS[name].kind] for name in names]
    spread_known = any(spread.count > 1 for spread in spreads)
    whiskers = {"xerr": [below, above], "error_kw": WHISKER} if spread_known else {}
    axes.barh(where, medians, color=colours, height=BAR, **whiskers)
    for row, spread, label in zip(where, spreads, labels, strict=True):
        text = axes.annotate(
            label, (spread.high, row), (5, 0), textcoords="offset points", va="center"
        )
        text.set_bbox({"facecolor": PAPER, "edgecolor": "none", "pad": 0.8})
    axes.grid(axis="x", color=FAINT, linewidth=0.6)


def _draw_costs(axes: Any, job: Job, cell: Cell, figures: CellFigures, names: list[str]) -> None:
    """Draw CPU of the process and, hatched behind it, of kernel threads."""
    scale = scale_of(job, cell)
    own = [figures[name].cpu.median * scale.cpu for name in names]
    kernel = [
        found.median * scale.cpu if (found := figures[name].kworkers) else 0.0 for name in names
    ]
    rows = range(len(names))
    colours = [KINDS[CONTENDERS[name].kind] for name in names]
    axes.barh(rows, own, color=colours, height=BAR)
    axes.barh(rows, kernel, left=own, color=FAINT, height=BAR, hatch="////", edgecolor=PAPER)
    for row, name in enumerate(names):
        median, _ = spread_text(figures[name].cpu.times(scale.cpu), scale.cpu_digits)
        label = f"{median} + {kernel[row]:.{scale.cpu_digits}f}"
        axes.annotate(
            label, (own[row] + kernel[row], row), (5, 0), textcoords="offset points", va="center"
        )
    total = [mine + theirs for mine, theirs in zip(own, kernel, strict=True)]
    axes.set_xlim(0, max([*total, 0.001]) * 1.6)
    axes.set_title(scale.cpu_name)
    axes.set_xlabel("process + kernel threads (hatched)")
    axes.grid(axis="x", color=FAINT, linewidth=0.6)
