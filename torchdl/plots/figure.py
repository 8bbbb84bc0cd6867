"""Make figures that need no screen, in one style, and save them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from torchdl.files import PathLike, make_folder, replacing, require_suffix

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# Matplotlib's colours, grey last, because it is that of chance and of ceilings
CYCLE = ("1f77b4", "ff7f0e", "2ca02c", "d62728", "9467bd", "8c564b", "e377c2", "bcbd22", "17becf", "7f7f7f")
# One colour for each meaning in all figures; what is not here takes the next of CYCLE
COLORS = {"train": "C0", "validation": "C1", "D(x)": "C4", "D(G(z))": "C3", "test images": "C4", "generated": "C3"}
COLORS |= {"chance": "0.5", "ceiling": "0.5"}
COLORS |= dict.fromkeys(("generator_loss", "generated_accuracy"), "C3")  # generated images have one, real ones another
COLORS |= dict.fromkeys(("discriminator_loss", "real_accuracy"), "C4")
OWN = "this model"  # what recipes call the model among others that it is compared with
OTHERS = "0.7"  # the colour of the others' bars
SHADED = "0.93"  # the colour behind terms that are forecast
LABELS = 8  # points: the size of legends and names of lines
STYLE = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.prop_cycle": f"cycler('color', {list(CYCLE)})",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11,
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.w_pad": 0.08,
    "figure.titlesize": 12,
    "font.size": 9.5,
    "grid.color": "0.9",
    "legend.fontsize": LABELS,
    "legend.frameon": False,
    "legend.title_fontsize": LABELS,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
}


@contextmanager
def styled() -> Iterator[None]:
    """Apply the style of all figures within a block, or, as a decorator, within a function that makes a figure."""
    from matplotlib import rc_context

    with rc_context(STYLE):
        yield


def new_figure(width: float, height: float) -> Figure:
    """Make a figure that needs no screen, and that a notebook shows; ``width`` and ``height`` are in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from torchdl.plots.png_figure import PNGFigure

    figure = PNGFigure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def sheet(count: int, columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """Make a figure of ``count`` panels, ``width`` x ``height`` inches each, in rows of up to ``columns``; return both.

    The rows are as equal as can be; see :func:`rows_and_columns`.
    """
    rows, columns = rows_and_columns(count, columns)
    figure = new_figure(width * columns, height * rows)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes[count:]:
        axis.remove()
    return figure, axes[:count]


def rows_and_columns(count: int, columns: int) -> tuple[int, int]:
    """Return the numbers of rows and columns for ``count`` panels in as few rows, of at most ``columns``, as can be.

    Example:
        >>> from torchdl.plots.figure import rows_and_columns
        >>> rows_and_columns(4, columns=3)  # not a row of three, and one
        (2, 2)
    """
    rows = max(1, -(-count // columns))
    return rows, max(1, -(-count // rows))


def colors_of(count: int, ordered: bool = False) -> list[Any]:
    """Return as many colours, as easy to tell apart as so many can be, or from dark to light if ``ordered``."""
    import matplotlib

    if ordered:
        return [matplotlib.colormaps["viridis"](0.8 * place / max(1, count - 1)) for place in range(count)]
    if count <= len(CYCLE):
        return [f"#{color}" for color in CYCLE[:count]]
    palette = matplotlib.colormaps["tab20" if count <= 20 else "turbo"]
    return [palette(place if count <= 20 else place / (count - 1)) for place in range(count)]


def whole_numbers(axis: Axes) -> None:
    """Mark whole numbers only on the x axis, such as epochs and steps."""
    from matplotlib.ticker import MaxNLocator

    axis.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
    axis.xaxis.set_major_formatter("{x:,.0f}")


def spans_decades(values: Iterable[float]) -> bool:
    """Return whether values are positive and so far apart that the small ones need a logarithmic axis."""
    finite = [value for value in values if math.isfinite(value)]
    return bool(finite) and 0 < 30 * min(finite) < max(finite)


def logarithmic(axis: Axes, *names: str) -> None:
    """Make the axes ``x``, ``y`` or both of a panel logarithmic, after its lines are drawn.

    The ticks are plain numbers; beyond six decades, or below 0.00005, they are powers of ten.
    """
    from matplotlib.ticker import AutoLocator, LogLocator, NullFormatter

    for name in names:
        axis.set(**{f"{name}scale": "log"})
        each: Axis = getattr(axis, f"{name}axis")
        low, high = sorted(each.get_view_interval())
        decades = math.log10(high / low)
        if decades < 6 and low > 5e-5:
            each.set_major_locator(
                AutoLocator() if decades < 0.7 else LogLocator(subs=(1, 2, 5) if decades < 3 else (1,))
            )
            each.set_major_formatter("{x:,g}")
            each.set_minor_formatter(NullFormatter())


def name_lines(figure: Figure, axis: Axes) -> None:
    """Write the names of a panel's lines beside their right ends, in their colours; this legend hides no line.

    Call it after everything else is drawn. If there are too many names for the panel's height, some are left out.
    """
    low, high = axis.get_ylim()  # fixes the limits
    places: list[tuple[float, int, tuple[float, float], Any, str]] = []
    for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
        line = getattr(handle, "lines", [handle])[0]  # an error bar has several
        points = np.asarray(line.get_xydata(), dtype=float)
        points = points[np.isfinite(points).all(1)]
        if len(points):
            end = (float(points[-1][0]), float(np.clip(points[-1][1], low, high)))
            _, height = (axis.transScale + axis.transLimits).transform(end)  # from 0 to 1
            places.append((float(height), len(places), end, line, label))
    gap = 1.3 * LABELS / 72 / (axis.get_position().height * figure.get_figheight())  # as a fraction of the panel
    room = max(2, int(1.1 / gap) + 1)
    places.sort(key=lambda place: place[:2])
    if len(places) > room:
        places = [places[round(k * (len(places) - 1) / (room - 1))] for k in range(room)]
    for height, (_, _, end, line, label) in zip(apart([place[0] for place in places], gap), places, strict=True):
        pointer = {"arrowstyle": "-", "color": line.get_color(), "linewidth": 0.8, "linestyle": line.get_linestyle()}
        axis.annotate(
            label,
            end,
            (1.05, height),
            line.get_transform(),
            "axes fraction",
            va="center",
            color=line.get_color(),
            fontsize=LABELS,
            parse_math=False,  # names may hold a $
            annotation_clip=False,
            arrowprops={**pointer, "relpos": (0, 0.5), "shrinkA": 1, "shrinkB": 0},
        )


def apart(heights: Sequence[float], gap: float) -> list[float]:
    """Move ascending ``heights`` as little as possible so that neighbours are at least ``gap`` apart.

    Example:
        >>> from torchdl.plots.figure import apart
        >>> apart([0.0, 1.0, 1.0], 0.5)
        [0.0, 0.75, 1.25]
    """
    groups: list[list[float]] = []  # without the gaps, heights need only ascend; a group shares its mean
    for number, height in enumerate(heights):
        groups.append([height - number * gap])
        while len(groups) > 1 and np.mean(groups[-2]) > np.mean(groups[-1]):
            groups[-2:] = [groups[-2] + groups[-1]]
    means = [float(np.mean(group)) for group in groups for _ in group]
    return [mean + number * gap for number, mean in enumerate(means)]


def legend_below(figure: Figure, axes: Iterable[Axes], **options: Any) -> None:
    """Write the names of what is drawn in panels, each once, below all of them, where the legend hides nothing."""
    named = {name: drawn for axis in axes for drawn, name in zip(*axis.get_legend_handles_labels(), strict=True)}
    fitting = max(1, int(figure.get_figwidth() / (0.6 + 0.065 * max(map(len, named), default=0))))
    options = {"loc": "outside lower center", "ncols": rows_and_columns(len(named), fitting)[1], **options}
    legend = figure.legend(named.values(), named.keys(), **options)
    for text in legend.get_texts():
        text.set_parse_math(False)  # names may hold a $


def highlight(axis: Axes, own: str = OWN) -> None:
    """Make the line whose name begins with ``own`` thicker than the others."""
    for line in axis.lines:
        if str(line.get_label()).startswith(own):
            line.set(linewidth=2.5, zorder=3)


def save_figure(figure: Figure, path: PathLike) -> None:
    """Save a figure at ``path`` as PNG; an interrupted call leaves no partial file.

    Raises:
        InputError: The file's name does not end in ``.png``.
    """
    require_suffix(path, ".png")
    path = Path(path)
    make_folder(path.parent)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


def finish(figure: Figure, path: PathLike | None) -> Figure:
    """Save a figure as PNG if a path is given, and return it."""
    if path is not None:
        save_figure(figure, path)
    return figure


def finish_curves(figure: Figure, axis: Axes, path: PathLike | None, **legend: Any) -> Figure:
    """Highlight the own model's curve in a panel, write a legend below it, then :func:`finish` its figure."""
    highlight(axis)
    legend_below(figure, [axis], **legend)
    return finish(figure, path)
