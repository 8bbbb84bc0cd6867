"""Train on a table: get the data, build the model, train, compare it with linear models."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # torchdl of this clone, installed or not

from torchdl import MLP, Trainer
from torchdl.cli.main import name_options, run_script
from torchdl.cli.options import RunOptions
from torchdl.cli.run import Run
from torchdl.data.delimited_files import TableFormat
from torchdl.data.tabular import breast_cancer, read_table, split_table
from torchdl.errors import require
from torchdl.predict import TabularPredictor, load_as
from torchdl.recipes.tabular import TableLearning, evaluate_table, outputs, score_on_test, table_training


@dataclass(frozen=True)
class Config:
    """Train a linear model or a network to predict one column of a table from the others (lectures 8 to 16)."""

    csv: Path | None = None
    """A text file with a table; scikit-learn's 569 breast tumours if not given."""
    target: str = ""
    """The column to predict."""
    task: Literal["auto", "classification", "regression"] = "auto"
    """The kind of target. With auto, texts and up to ten different whole numbers are classes."""
    ignore: tuple[str, ...] = ()
    """Columns to leave out."""
    categories: tuple[str, ...] = ()
    """Columns of categories that look like numbers."""
    format: TableFormat = field(default_factory=TableFormat)
    missing: Literal["refuse", "drop", "fill"] = "refuse"
    """Missing values: an error, their rows are dropped, or numbers are replaced by the training mean."""
    test_share: float = 0.33
    """Share of the rows for testing, drawn at random by the seed."""
    learning: TableLearning = field(default_factory=TableLearning)
    run: RunOptions = field(default_factory=lambda: RunOptions(threads=1))
    trainer: Trainer = field(default_factory=lambda: Trainer(epochs=100, evaluate_every=20))


def main(config: Config) -> None:
    """Get the data, build the model, train, look."""
    # 1. Get the table, split it, and turn it into numbers.
    require(config.csv is None or bool(config.target), "name the column to predict: --target COLUMN")
    require(
        config.csv is not None or not (config.target or config.categories),
        "--target and --categories need a --csv FILE",
    )
    if config.csv is None:
        rows, target = breast_cancer(), "diagnosis"
    else:
        target = config.target
        rows = read_table(config.csv, config.categories, config.format, target, config.task)
    for name in config.categories:
        require(
            name in rows.columns, f"there is no column {name!r} of categories: choose among {', '.join(rows.columns)}"
        )
    origin = str(config.csv or "scikit-learn's breast tumours")
    table = split_table(
        rows, target, config.task, config.test_share, config.missing, config.ignore, config.trainer.seed, origin
    )
    run = Run("tabular", config, config.run, config.trainer, table.train, table.test)
    # 2. Build the model.
    learning = config.learning
    width = len(table.columns.names)
    model = MLP(width, outputs(table.columns), learning.hidden, learning.dropout, learning.activation)
    # 3. Train it.
    for note in table.notes:
        run.say(name_options(note, Config))
    predictor = TabularPredictor(model, table.columns, config.trainer.device)
    run.fit(*table_training(model, table, learning, config.trainer.seed), predictor=predictor)
    # 4. Look at it beside linear models; then load it from the run's folder, and evaluate it again.
    if run.is_main:
        run.keep(evaluate_table(predictor, table))
        loaded = load_as(TabularPredictor, run.folder, config.trainer.device)
        run.say(f"loaded again: {score_on_test(loaded, table)}; before: {score_on_test(predictor, table)}")
    run.close()


if __name__ == "__main__":
    run_script(main, Config)
