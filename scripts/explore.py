"""Look at a table before anything is learnt from it: what its columns hold, and how they go together (lecture 6)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import _clone  # noqa: F401
import tyro

from torchdl.data.tabular import MOST_CATEGORIES, breast_cancer, read_table
from torchdl.errors import require
from torchdl.plots import plot_histograms, plot_scatter_matrix
from torchdl.training.command import run_script


@dataclass(frozen=True)
class Config:
    """Describe a CSV file's columns, and draw their histograms and a scatter matrix of those that hold numbers."""

    csv: tyro.conf.Positional[Path | None] = None
    """A CSV file with a header; scikit-learn's breast tumours if none is given."""
    columns: tuple[str, ...] = ()
    """Columns of the scatter matrix; the first six of numbers if none is given."""
    out: Path = Path("runs/explore")
    """The folder of the pictures."""


def main(config: Config) -> None:
    """Read, describe, draw."""
    table = breast_cancer() if config.csv is None else read_table(config.csv)
    print(f"{len(table):,} rows, {table.shape[1]} columns")
    print(table.describe(include="all").T.to_string(float_format="{:.4g}".format, na_rep=""))
    gaps = table.isna().sum()
    print(f"missing: {', '.join(f'{name} {count:,}' for name, count in gaps.items() if count) or 'nothing'}")
    numbers = list(table.select_dtypes("number").columns)
    for name in config.columns:
        require(name in numbers, f"there is no column of numbers {name!r}: choose among {', '.join(numbers)}")
    few = [name for name in table.columns if name in numbers or table[name].nunique() <= MOST_CATEGORIES]
    plot_histograms({name: table[name].dropna().to_numpy() for name in few}, config.out / "histograms.png")
    print(f"histograms: {config.out / 'histograms.png'}")
    chosen = list(config.columns or numbers[:6])
    if len(chosen) > 1:
        path = config.out / "scatter_matrix.png"
        plot_scatter_matrix({name: table[name].to_numpy("float64") for name in chosen}, path)
        print(f"scatter matrix of {', '.join(chosen)}: {path}")


if __name__ == "__main__":
    run_script(main, Config)
