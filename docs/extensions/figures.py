"""Show the figures of torchdl.plots on the lessons' pages: pyplot, where sphinx-gallery looks, does not know them."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from matplotlib.figure import Figure
from sphinx_gallery.scrapers import figure_rst

SHOWN = "shown_in_lesson"  # an attribute of figures: a last value stays until a later cell has another one


def scrape(block: Any, block_vars: dict[str, Any], gallery_conf: dict[str, Any], **_: Any) -> str:
    """Save the figure that is a cell's last value, also at twice the size, and return its directive in reST."""
    figure = block_vars["example_globals"].get("___")
    if not isinstance(figure, Figure) or figure.canvas.manager is not None or hasattr(figure, SHOWN):
        return ""
    setattr(figure, SHOWN, True)
    path = PurePosixPath(next(block_vars["image_path_iterator"]))
    twice = path.with_name(f"{path.stem}_2_00x{path.suffix}")
    figure.savefig(path)
    figure.savefig(twice, dpi=2 * figure.dpi)
    titles = ", ".join(title for axis in figure.axes if (title := axis.get_title()))
    return str(figure_rst([path], gallery_conf["src_dir"], titles, [{0: path, 2.0: twice}]))
