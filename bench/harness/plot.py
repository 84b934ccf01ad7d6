"""One SVG a result: rates with their spread and ratio, and what they cost in CPU."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from bench.harness.contenders import CONTENDERS, FIO, OS_WRITE
from bench.harness.figures import GIB
from bench.harness.measurement import CannotRunError
from bench.harness.method import rounds_text, size_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bench.harness.figures import Figures
    from bench.harness.results import Result

OURS = "#2f6f9f"
OTHERS = "#b9c0c7"
INK = "#333333"
FAINT = "#d9dde1"
ROW_INCHES = 0.46
"""Height of a bar with its gap: two lines of 9 point text fit."""


def draw(result: Result, figures: Mapping[str, Figures], path: Path) -> None:
    """Draw it into `path`, in the format its suffix names. Raises CannotRunError."""
    try:
        # Of the bench extra, and slow to import. By name, so that types are checked without it too.
        mpl: Any = importlib.import_module("matplotlib")
        figures_module: Any = importlib.import_module("matplotlib.figure")
    except ImportError as exc:
        raise CannotRunError("no plot without matplotlib: pip install 'uringd[bench]'") from exc
    names = sorted(figures, key=lambda name: figures[name].rate.median)
    titles = [CONTENDERS[name].title for name in names]
    colours = [OURS if name.startswith("uring") else OTHERS for name in names]
    # Text stays text (small files that can be searched), ids are the same for the same picture.
    style: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": "uringd",
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],
        "font.size": 9,
        "text.color": INK,
        "axes.labelcolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
    }
    with mpl.rc_context(style):
        figure = figures_module.Figure(
            figsize=(10, 1.5 + ROW_INCHES * len(names)), layout="constrained"
        )
        rates, costs = figure.subplots(1, 2, sharey=True, width_ratios=[3, 2])
        figure.suptitle(_title(result), x=0.01, ha="left", fontsize=11)
        _draw_rates(rates, titles, [figures[name] for name in names], colours)
        _draw_costs(costs, titles, [figures[name] for name in names], colours)
        for axes in (rates, costs):
            axes.grid(axis="x", color=FAINT, linewidth=0.6)
            axes.set_axisbelow(True)
            axes.tick_params(length=0)
            axes.spines[["top", "right", "bottom"]].set_visible(False)
            axes.spines["left"].set_color(FAINT)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=120)


def _draw_rates(axes: Any, titles: list[str], found: list[Figures], colours: list[str]) -> None:
    medians = [figures.rate.median for figures in found]
    below = [figures.rate.median - figures.rate.low for figures in found]
    above = [figures.rate.high - figures.rate.median for figures in found]
    spread = {"ecolor": INK, "elinewidth": 0.9, "capsize": 2.5}
    axes.barh(titles, medians, xerr=[below, above], color=colours, height=0.62, error_kw=spread)
    for row, figures in enumerate(found):
        axes.text(figures.rate.high, row, "  " + _rate_label(figures), va="center")
    axes.set_xlim(0, max(figures.rate.high for figures in found) * 1.5)
    axes.set_xlabel("MiB/s, durable (bar: median, whisker: lowest to highest round)")


def _rate_label(figures: Figures) -> str:
    label = f"{figures.rate.median:.0f}"
    ratios = {FIO: "fio", OS_WRITE: "os.write"}
    said = [
        f"{figures.over[name].median:.2f}x {title}"
        for name, title in ratios.items()
        if name in figures.over and figures.over[name].high != figures.over[name].low
    ]
    return f"{label}  ({', '.join(said)})" if said else label


def _draw_costs(axes: Any, titles: list[str], found: list[Figures], colours: list[str]) -> None:
    own = [figures.cpu.median for figures in found]
    kernel = [figures.kworkers.median if figures.kworkers else 0.0 for figures in found]
    axes.barh(titles, own, color=colours, height=0.62)
    axes.barh(titles, kernel, left=own, color=FAINT, height=0.62, hatch="////", edgecolor="white")
    total = [mine + theirs for mine, theirs in zip(own, kernel, strict=True)]
    for row, cost in enumerate(own):
        axes.text(total[row], row, f"  {cost:.2f} + {kernel[row]:.2f}", va="center")
    axes.set_xlim(0, max([*total, 0.01]) * 1.6)
    axes.set_xlabel("CPU s/GiB: process + kernel threads")


def _title(result: Result) -> str:
    said, settings = result.environment, result.settings
    memory = size_text(round(int(said["memory_bytes"]) / GIB) * GIB)
    return (
        f"Fresh file of {size_text(settings.size_bytes)}, {size_text(settings.block_bytes)} blocks"
        f" - {said['file_system']} on {said['device']}, {str(said['kernel']).split()[1]}, "
        f"{said['cpu_count']} CPUs, {memory}, median of {rounds_text(settings.rounds)}"
    )
