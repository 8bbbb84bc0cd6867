"""Predict a column of a new table by the model that a run of train_tabular.py has left (lectures 15 and 16)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import _clone  # noqa: F401
import tyro

import torchdl
from torchdl.data.tabular import Columns, read_table, text
from torchdl.training.command import run_script
from torchdl.training.tabular import COLUMNS, answers


@dataclass(frozen=True)
class Config:
    """Predict the target for every row of a new CSV file; if the file has the target, say how right that is."""

    run: tyro.conf.Positional[Path]
    """The run's folder."""
    csv: Path
    """The CSV file, with the columns that the model was trained on, in any order."""
    out: Path | None = None
    """A CSV file for the predictions, a row each; the console if not given."""


def main(config: Config) -> None:
    """Load, predict, write."""
    columns, model = Columns.load(config.run / COLUMNS), torchdl.load(config.run)
    table = read_table(config.csv)
    if unseen := columns.unseen(table):
        print(f"rows with a text that training has not seen, which counts as none of its kinds: {unseen}")
    found = answers(model, columns, columns.inputs(table))
    predictions = table[[]].copy()
    predictions[columns.target] = [columns.classes[i] for i in found.argmax(1)] if columns.classes else found
    for number, name in enumerate(columns.classes):
        predictions[f"probability of {name}"] = found[:, number]
    if config.out is None:
        print(predictions.to_string(index=False))
    else:
        predictions.to_csv(config.out, index=False)
        print(f"{len(predictions):,} predictions: {config.out}")
    if columns.target in table.columns and table[columns.target].notna().all():
        if columns.classes:
            right = (predictions[columns.target] == table[columns.target].map(text)).mean()
            print(f"{right:.2%} of {len(table):,} rows right")
        else:
            error = (found - table[columns.target]).pow(2).mean() ** 0.5
            print(f"root mean squared error {error:.4g} on {len(table):,} rows")


if __name__ == "__main__":
    run_script(main, Config)
