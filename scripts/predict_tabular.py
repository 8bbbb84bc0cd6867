"""Predict a column of a new table with the model of a run of train_tabular.py (lectures 15 and 16)."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # torchdl of this clone, installed or not

import torchdl
from torchdl.cli.main import run_script
from torchdl.cli.parsing import Positional
from torchdl.data.delimited_files import TableFormat, notes
from torchdl.data.tabular import Columns
from torchdl.errors import require
from torchdl.files import replacing, require_suffix
from torchdl.recipes.tabular import COLUMNS, check_fit, predict, score


@dataclass(frozen=True)
class Config:
    """Predict the target for every row of a new CSV file; if the file has the target, measure the error."""

    run: Positional[Path]
    """The folder of the run."""
    csv: Path
    """The text file. It needs the columns that the model was trained on, in any order; other columns are ignored."""
    out: Path | None = None
    """The CSV file for the predictions; if not given, they are printed."""
    missing: Literal["refuse", "fill"] = "refuse"
    """Missing values: an error, or numbers are replaced by the training mean and texts by no category."""
    format: TableFormat = field(default_factory=TableFormat)


def main(config: Config) -> None:
    """Load the model and the table, predict, save."""
    if config.out is not None:
        require_suffix(config.out, ".csv", ".txt")
    columns, model = Columns.load(config.run / COLUMNS), torchdl.load(config.run)
    check_fit(model, columns)
    table = columns.read(config.csv, config.format)
    for note in notes(table):
        print(note)
    gaps = ", ".join(f"{name!r} {count:,}" for name, count in columns.gaps(table).items())
    require(not gaps or config.missing == "fill", f"{config.csv} lacks values in {gaps}: fill in, or --missing fill")
    if gaps:
        print(f"missing values, filled: {gaps}")
    if unseen := columns.unseen(table):
        print(f"rows with a text that is not in the training data, which counts as no category: {unseen}")
    found = predict(model, columns, columns.inputs(table))
    said = score(columns, found, table)
    predictions = table[[]].copy()
    predictions[columns.target] = [columns.classes[i] for i in found.argmax(1)] if columns.classes else found
    for number, name in enumerate(columns.classes):
        predictions[f"probability of {name}"] = found[:, number]
    if config.out is None:
        print(predictions.to_string(index=False))
    else:
        with replacing(config.out) as temporary:
            predictions.to_csv(temporary, index=False)
        print(f"{len(predictions):,} predictions: {config.out}")
    print(said)


if __name__ == "__main__":
    run_script(main, Config)
