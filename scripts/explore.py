"""Look at a table before training on it: what its columns hold, and how they depend on each other (lecture 6)."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # torchdl of this clone, installed or not

import numpy as np

from torchdl.cli.main import name_options, run_script
from torchdl.cli.parsing import Positional
from torchdl.data.delimited_files import TableFormat, notes
from torchdl.data.tabular import MAX_CATEGORIES, breast_cancer, check_numeric, is_numeric, read_table
from torchdl.errors import InputError, require
from torchdl.plots import plot_histograms, plot_scatter_matrix


@dataclass(frozen=True)
class Config:
    """Describe the columns of a CSV file; draw histograms, and a scatter matrix of the numeric columns."""

    csv: Positional[Path | None] = None
    """A text file with a table; scikit-learn's breast cancer data if not given."""
    columns: tuple[str, ...] = ()
    """Columns of the scatter matrix. If not given: the first six numeric ones that vary."""
    categories: tuple[str, ...] = ()
    """Columns of categories that look like numbers."""
    limit: int = 60
    """Maximum number of histograms; they show the first columns."""
    out: Path = Path("runs/explore")
    """The folder of the figures."""
    format: TableFormat = field(default_factory=TableFormat)


def main(config: Config) -> None:
    """Read the table, describe it, draw it."""
    require(config.limit >= 1, f"--limit must be 1 or more, not {config.limit}")
    table = breast_cancer() if config.csv is None else read_table(config.csv, config.categories, config.format)
    for note in notes(table):
        print(name_options(note, Config))
    print(f"{len(table):,} rows, {table.shape[1]} columns")
    with np.errstate(invalid="ignore"):  # infinite numbers have no standard deviation
        described = table.describe(include="all").T
    print(described.to_string(float_format="{:.4g}".format, na_rep=""))
    gaps = table.isna().sum()
    print(f"missing: {', '.join(f'{name} {count:,}' for name, count in gaps.items() if count) or 'nothing'}")
    try:
        check_numeric(table)
    except InputError as error:
        print(f"not fit for training as it is: {name_options(str(error), Config)}")
    numbers = [name for name in table.columns if is_numeric(table[name])]
    # an infinite number cannot be drawn
    values = {name: table[name].astype("float64").replace([math.inf, -math.inf], math.nan) for name in numbers}
    varied = [name for name in numbers if values[name].nunique() > 1]
    for name in config.columns:
        require(name in varied, f"{name!r} is no numeric column that varies: choose among {', '.join(varied)}")
    most = {name: math.inf if name in numbers else MAX_CATEGORIES for name in table.columns}
    drawn = [name for name in table.columns if 0 < table[name].nunique() <= most[name]][: config.limit]
    if drawn:
        columns = {name: values.get(name, table[name]).dropna().to_numpy() for name in drawn}
        plot_histograms(columns, config.out / "histograms.png")
        print(f"histograms: {config.out / 'histograms.png'}")
    if left := [name for name in table.columns if name not in drawn]:
        reason = f"empty, or more than {MAX_CATEGORIES} different texts, or beyond --limit {config.limit}"
        print(f"not drawn ({reason}): {', '.join(left)}")
    chosen = list(config.columns or varied[:6])
    if len(chosen) > 1:
        path = config.out / "scatter_matrix.png"
        plot_scatter_matrix({name: values[name].to_numpy() for name in chosen}, path)
        print(f"scatter matrix of {', '.join(chosen)}: {path}")


if __name__ == "__main__":
    run_script(main, Config)
