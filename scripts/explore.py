"""Look at a table before anything is learnt from it: what its columns hold, and how they go together (lecture 6)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import _clone  # noqa: F401
import numpy as np

from torchdl.cli.arguments import Positional
from torchdl.cli.script import run_script
from torchdl.data.tabular import MOST_CATEGORIES, breast_cancer, check_numbers, holds_numbers, read_table
from torchdl.errors import InputError, require
from torchdl.plots import plot_histograms, plot_scatter_matrix


@dataclass(frozen=True)
class Config:
    """Describe a CSV file's columns, and draw their histograms and a scatter matrix of those that hold numbers."""

    csv: Positional[Path | None] = None
    """A CSV file with a header; scikit-learn's breast tumours if none is given."""
    columns: tuple[str, ...] = ()
    """Columns of the scatter matrix; the first six of numbers that differ if none is given."""
    limit: int = 60
    """Columns that are drawn as histograms, the first so many."""
    out: Path = Path("runs/explore")
    """The folder of the pictures."""


def main(config: Config) -> None:
    """Read, describe, draw."""
    require(config.limit >= 1, f"--limit must be 1 or more, not {config.limit}")
    table = breast_cancer() if config.csv is None else read_table(config.csv)
    print(f"{len(table):,} rows, {table.shape[1]} columns")
    with np.errstate(invalid="ignore"):  # infinite numbers have no deviation
        described = table.describe(include="all").T
    print(described.to_string(float_format="{:.4g}".format, na_rep=""))
    gaps = table.isna().sum()
    print(f"missing: {', '.join(f'{name} {count:,}' for name, count in gaps.items() if count) or 'nothing'}")
    try:
        check_numbers(table)
    except InputError as error:
        print(f"not to be learnt from as it is: {error}")
    numbers = [name for name in table.columns if holds_numbers(table[name])]
    # an infinite number has no place in a picture
    values = {name: table[name].astype("float64").replace([math.inf, -math.inf], math.nan) for name in numbers}
    varied = [name for name in numbers if values[name].nunique() > 1]
    for name in config.columns:
        require(name in varied, f"there is no column of numbers that differ {name!r}: choose among {', '.join(varied)}")
    most = {name: math.inf if name in numbers else MOST_CATEGORIES for name in table.columns}
    drawn = [name for name in table.columns if 0 < table[name].nunique() <= most[name]][: config.limit]
    if drawn:
        columns = {name: values.get(name, table[name]).dropna().to_numpy() for name in drawn}
        plot_histograms(columns, config.out / "histograms.png")
        print(f"histograms: {config.out / 'histograms.png'}")
    if left := [name for name in table.columns if name not in drawn]:
        reason = f"nothing, or more than {MOST_CATEGORIES} different texts, or beyond --limit {config.limit}"
        print(f"not drawn ({reason}): {', '.join(left)}")
    chosen = list(config.columns or varied[:6])
    if len(chosen) > 1:
        path = config.out / "scatter_matrix.png"
        plot_scatter_matrix({name: values[name].to_numpy() for name in chosen}, path)
        print(f"scatter matrix of {', '.join(chosen)}: {path}")


if __name__ == "__main__":
    run_script(main, Config)
