"""What every plot shares: colours, type, and SVG that is readable on light and on dark pages.

An SVG in a page is a document of its own: its style can ask for the reader's colour scheme. So each
picture is drawn in light colours on a card of its own, and a style in it exchanges every colour for
its dark counterpart. Where no scheme is known, the light card is what is seen.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from bench.harness.measurement import CannotRunError
from bench.harness.units import GIB, rounds_text, size_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.harness.contender import Kind
    from bench.harness.results import Result

PAPER, INK, FAINT = "#ffffff", "#333333", "#d9dde1"
OURS, WITHOUT = "#2f6f9f", "#8fb6d3"
YARDSTICK, PLAIN, LIBRARY = "#7b8691", "#b9c0c7", "#cbb58f"
SERIES = (OURS, "#c2703d", "#4f8a5b", "#8a5fa0", "#b3903a", "#5b6b7b")
"""Lines, which markers tell apart too."""
MARKERS = ("o", "s", "^", "D", "v", "P")

DARK = {
    PAPER: "#0d1117",
    INK: "#d5dbe2",
    FAINT: "#333a43",
    OURS: "#4f9bd0",
    WITHOUT: "#2f5a78",
    YARDSTICK: "#98a2ad",
    PLAIN: "#5a636d",
    LIBRARY: "#8a7a5c",
    "#c2703d": "#e0905f",
    "#4f8a5b": "#72b380",
    "#8a5fa0": "#b48ccb",
    "#b3903a": "#d3b058",
    "#5b6b7b": "#a3b1bf",
}
"""The dark counterpart of every colour above."""
KINDS: dict[Kind, str] = {
    "ours": OURS,
    "without": WITHOUT,
    "yardstick": YARDSTICK,
    "plain": PLAIN,
    "library": LIBRARY,
    "server": LIBRARY,
}
KIND_NAMES: dict[Kind, str] = {
    "ours": "uringio, uringd",
    "without": "uringio with one choice switched off",
    "yardstick": "fio",
    "plain": "Python's os",
    "library": "Python libraries",
    "server": "other servers",
}
ROW_INCHES = 0.34
"""Height of a bar with its gap: a line of 9 point text fits."""
WHISKER: dict[str, Any] = {"ecolor": INK, "elinewidth": 0.9, "capsize": 2}
DPI = 110


class Canvas:
    """A figure of matplotlib with a title; `save` writes it. Raises CannotRunError without it."""

    def __init__(self, title: str, width: float, height: float) -> None:
        try:
            # Of the bench extra, and slow to import. By name, so that types are checked without it.
            self._mpl: Any = importlib.import_module("matplotlib")
            figures: Any = importlib.import_module("matplotlib.figure")
        except ImportError as exc:
            raise CannotRunError("no plot without matplotlib: pip install 'uringd[bench]'") from exc
        # Text stays text (small files that can be searched), ids are the same for the same picture.
        self._style: Any = {
            "svg.fonttype": "none",
            "svg.hashsalt": "uringd",
            "font.family": "sans-serif",
            "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],
            "font.size": 9,
            "text.color": INK,
            "axes.labelcolor": INK,
            "axes.titlesize": 9.5,
            "axes.titlelocation": "left",
            "axes.edgecolor": FAINT,
            "xtick.color": INK,
            "ytick.color": INK,
            "hatch.color": PAPER,
            "legend.frameon": False,
        }
        self._mpl.rcParams.update(self._style)
        self.figure: Any = figures.Figure(
            figsize=(width, height), layout="constrained", facecolor=PAPER
        )
        self.figure.suptitle(title, x=0.01, ha="left", fontsize=11)

    def panels(self, rows: int, columns: int, **options: Any) -> list[Any]:
        """Make axes, left to right and down, in the house's style."""
        found = self.figure.subplots(rows, columns, squeeze=False, **options)
        axes = [each for row in found for each in row]
        for each in axes:
            each.set_facecolor(PAPER)
            each.set_axisbelow(True)
            each.tick_params(length=0)
            each.spines[["top", "right", "bottom"]].set_visible(False)
            each.spines["left"].set_color(FAINT)
        return axes

    def legend(self, handles: list[Any], columns: int) -> None:
        """Explain the colours below all panels."""
        self.figure.legend(handles=handles, loc="outside lower left", ncols=columns)

    def kind_legend(self, kinds: Iterator[Kind]) -> None:
        """Explain whose bars have which colour."""
        patches: Any = importlib.import_module("matplotlib.patches")
        known = dict.fromkeys(kinds)
        said = [patches.Patch(color=KINDS[kind], label=KIND_NAMES[kind]) for kind in known]
        self.legend(said, len(said))

    def save(self, path: Path) -> None:
        """Write the picture in the format that its suffix names."""
        path.parent.mkdir(parents=True, exist_ok=True)
        metadata = {"Date": None} if path.suffix == ".svg" else None
        self.figure.savefig(path, metadata=metadata, dpi=DPI)
        if path.suffix == ".svg":
            path.write_text(with_dark_style(path.read_text()))


def with_dark_style(svg: str) -> str:
    """Add the style that exchanges the colours where the reader prefers dark ones."""
    rules = [
        f'[style*="{kind}: {light}"], [{kind}="{light}"] {{ {kind}: {dark} !important }}'
        for light, dark in DARK.items()
        for kind in ("fill", "stroke")
    ]
    style = "@media (prefers-color-scheme: dark) { " + " ".join(rules) + " }"
    head, found, rest = svg.partition("<defs>")
    return f"{head}<style>{style}</style>\n {found}{rest}"


def title_of(result: Result, what: str) -> str:
    """Say what is drawn, and on what it was measured."""
    said = result.environment
    memory = size_text(round(int(said["memory_bytes"]) / GIB) * GIB)
    rounds = result.settings.rounds
    spread = "" if rounds == 1 else ", whiskers: lowest and highest"
    return (
        f"{what}\n{said['file_system']} on {said['device']}, {str(said['kernel']).split()[1]}, "
        f"{said['cpu_count']} CPUs, {memory}; median of {rounds_text(rounds)}{spread}"
    )
