"""Lines: rates by queue depth, latencies by percentile."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from bench.harness.canvas import FAINT, INK, MARKERS, SERIES, Canvas, title_of
from bench.harness.contenders import CONTENDERS
from bench.harness.figures import figures_of
from bench.harness.method import cell_text
from bench.harness.scale import scale_of
from bench.harness.tables import SHORT
from bench.harness.units import size_text

if TYPE_CHECKING:
    from bench.harness.figures import Figures, Spread
    from bench.harness.jobs import Job
    from bench.harness.results import Result


def draw_depths(result: Result, job: Job) -> Canvas:
    """Draw the ratio over the reference by depth, a line for each block size; beside it rates."""
    canvas = Canvas(title_of(result, job.title), 10.5, 4.4)
    ratios, rates = canvas.panels(1, 2)
    main = job.over[0]
    (other,) = (name for name in job.contenders if name != main)
    depths = sorted({cell.depth for cell in job.cells})
    blocks = sorted({cell.block_bytes for cell in job.cells})
    handles = []
    for index, block in enumerate(blocks):
        cells = {cell.depth: cell for cell in job.cells if cell.block_bytes == block}
        found = {depth: figures_of(result, job, cell) for depth, cell in cells.items()}
        mine = {depth: each[other] for depth, each in found.items() if other in each}
        theirs = {depth: each[main] for depth, each in found.items() if main in each}
        nudge = 1 + 0.03 * (index - (len(blocks) - 1) / 2)
        over = {depth: each.over[main] for depth, each in mine.items() if main in each.over}
        line(ratios, over, index, nudge)
        label = f"{size_text(block)} blocks"
        handles.append(line(rates, _rates(mine), index, nudge, label=label))
        line(rates, _rates(theirs), index, nudge, dashed=True)
    for axes in (ratios, rates):
        axes.set_xscale("log", base=2)
        axes.set_xticks(depths, [str(depth) for depth in depths])
        axes.minorticks_off()
        axes.set_xlabel("queue depth")
        axes.grid(color=FAINT, linewidth=0.6)
        axes.set_ylim(0, axes.get_ylim()[1] * 1.05)
    ratios.axhline(1, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
    ratios.set_title(f"{SHORT.get(other, other)}, times {SHORT.get(main, main)}")
    unit = scale_of(job, job.cells[0]).rate_name
    rates.set_title(f"{unit}: solid {SHORT.get(other, other)}, dashed {SHORT.get(main, main)}")
    canvas.legend(handles, len(handles))
    return canvas


def draw_latencies(result: Result, job: Job) -> Canvas:
    """Draw each contender's percentiles, a panel for each cell."""
    canvas = Canvas(title_of(result, job.title), 10.5, 4.6)
    panels = canvas.panels(1, len(job.cells))
    ticker: Any = importlib.import_module("matplotlib.ticker")
    handles: dict[str, Any] = {}
    ran = {run.contender for run in result.runs if run.job == job.name}
    known = sorted(
        ran, key=lambda name: (CONTENDERS[name].kind != "ours", list(CONTENDERS).index(name))
    )
    for axes, cell in zip(panels, job.cells, strict=True):
        figures = figures_of(result, job, cell)
        names = list(next(iter(figures.values())).latency_us) if figures else []
        for name, found in figures.items():
            index = known.index(name)
            points = {float(i): found.latency_us[p] for i, p in enumerate(names)}
            shift = 0.06 * (index - (len(known) - 1) / 2)
            moved = {where + shift: spread for where, spread in points.items()}
            handles[name] = line(axes, moved, index, 1, label=CONTENDERS[name].title)
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(ticker.NullLocator())
        axes.set_xticks(range(len(names)), [f"p{name}" for name in names])
        axes.yaxis.set_major_formatter(_microseconds)
        axes.set_title(cell_text(cell))
        axes.grid(axis="y", which="both", color=FAINT, linewidth=0.6)
    panels[0].set_ylabel("latency of one write")
    canvas.legend([handles[name] for name in known], 2)
    return canvas


def _rates(found: dict[int, Figures]) -> dict[int, Spread]:
    return {depth: figures.rate for depth, figures in found.items()}


def line(
    axes: Any,
    points: dict[int, Spread] | dict[float, Spread],
    index: int,
    nudge: float,
    *,
    label: str = "",
    dashed: bool = False,
) -> Any:
    """Draw medians with whiskers; `nudge` keeps those of several lines apart."""
    spreads = list(points.values())
    return axes.errorbar(
        [where * nudge for where in points],
        [spread.median for spread in spreads],
        yerr=[
            [spread.median - spread.low for spread in spreads],
            [spread.high - spread.median for spread in spreads],
        ],
        color=SERIES[index % len(SERIES)],
        marker=MARKERS[index % len(MARKERS)],
        markersize=4.5,
        linewidth=1.5,
        linestyle="--" if dashed else "-",
        alpha=0.75 if dashed else 1,
        elinewidth=0.9,
        capsize=2,
        label=label or None,
    )


def _microseconds(value: float, _: int) -> str:
    """Say 250 us, 4 ms."""
    return f"{value:g} us" if value < 1000 else f"{value / 1000:g} ms"
