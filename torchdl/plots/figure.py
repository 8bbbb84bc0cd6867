"""Make figures that need no screen, and save them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchdl.files import PathLike, make_folder, replacing, require_suffix

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> Figure:
    """Make a figure that needs no screen, and that a notebook shows; ``width`` and ``height`` are in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from torchdl.plots.png_figure import PNGFigure

    figure = PNGFigure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def sheet(count: int, columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """Make a figure of ``count`` panels in rows of ``columns``, each ``width`` x ``height`` inches; return both."""
    rows = max(1, -(-count // columns))
    figure = new_figure(width * columns, height * rows)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes[count:]:
        axis.remove()
    return figure, axes[:count]


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
    """Give a panel of curves a grid and a legend, then :func:`finish` its figure."""
    axis.grid(alpha=0.3)
    axis.legend(**legend)
    return finish(figure, path)
