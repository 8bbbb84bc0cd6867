"""The picture of a benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchdl.plots.figure import finish, sheet, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {
    "ours": "C0",
    "ours, compiled": "C2",
    "JAX": "C1",
    "Keras on JAX": "C1",
    "Lightning": "C1",
    "the limit": "0.6",
}


@styled()
def plot_speeds(report: Mapping[str, Mapping[str, Any]], path: Path | None = None) -> Figure:
    """Draw the speeds of all sides relative to the usual way: medians as bars that start at 1, and their ranges."""
    rows = [
        (f"{title}: {side}", side, found)
        for title, work in report.items()
        for side, found in {"ours": work, **work["others"]}.items()
    ]
    figure, (axis,) = sheet(1, 1, 9, 1.2 + 0.32 * len(rows))
    for place, (_, side, found) in enumerate(rows):
        ratio, (low, high) = found["ratio"], found["ratios"]
        axis.barh(place, ratio - 1, left=1, color=COLOURS[side])
        axis.plot([low, high], [place, place], color="0.2", linewidth=1.2, marker="|")
        axis.annotate(f"{ratio:.3g}", (max(high, 1.0), place), (6, 0), textcoords="offset points", va="center")
    axis.axvline(1, color="0.2", linewidth=1)
    axis.set_xscale("log")
    ends = [1.0, *(end for _, _, found in rows for end in found["ratios"])]
    left, right = min(ends) / 1.2, max(ends) * 1.5  # room for the last number
    axis.set_xlim(left, right)
    ticks = [tick for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200) if left <= tick <= right]
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
    axis.set_yticks(range(len(rows)), [name for name, _, _ in rows], parse_math=False)
    axis.invert_yaxis()
    axis.set_xlabel("speed relative to the usual way: median, minimum and maximum")
    axis.grid(False, axis="y")
    return finish(figure, path)
