"""What a recipe's evaluation returns: results, a summary, figures and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from torchdl.field_docs import with_field_docs
from torchdl.files import PLOTS, RESULTS, PathLike, make_folder, write_json, write_table
from torchdl.pictures import save_png
from torchdl.plots.figure import save_figure

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure


class Embedding(NamedTuple):
    """The ``vectors`` (N, D), their labels (N) and any images (N, C, H, W) in [0, 1], for TensorBoard's projector."""

    vectors: Tensor
    labels: Sequence[str]
    images: Tensor | None = None


@with_field_docs
@dataclass(frozen=True)
class Report:
    """The outcome of an evaluation.

    Example:
        >>> import os, tempfile
        >>> from torchdl.recipes.report import Report
        >>> folder = tempfile.mkdtemp()
        >>> paths = Report({"accuracy": 0.9}, "accuracy 90 %").save(folder)
        >>> os.listdir(folder), paths
        (['results.json'], [])
    """

    results: dict[str, Any]
    """Measurements and settings that can be written as JSON."""
    summary: str = ""
    """The main results as text of one or more lines."""
    figures: Mapping[str, Figure | Tensor] = field(default_factory=dict)
    """Figures or pictures (C, H, W) uint8, by name."""
    tables: Mapping[str, pandas.DataFrame] = field(default_factory=dict)
    """Tables by name."""
    embedding: Embedding | None = None
    """Vectors for TensorBoard's projector."""

    def save(self, folder: PathLike, name: str = RESULTS, plots: str = PLOTS) -> list[Path]:
        """Write the results as JSON, the tables as CSV and the figures as PNG; return the paths of the figures.

        Args:
            folder: Where to write; it is created if it does not exist.
            name: The name of the JSON file.
            plots: The folder of the figures, inside ``folder``.
        """
        folder = Path(folder)
        make_folder(folder)
        write_json(folder / name, self.results, default=str)
        for title, table in self.tables.items():
            write_table(folder / f"{title}.csv", table)
        paths = [folder / plots / f"{title}.png" for title in self.figures]
        for path, figure in zip(paths, self.figures.values(), strict=True):
            if isinstance(figure, Tensor):
                save_png(figure, path)
            else:
                save_figure(figure, path)
        return paths
