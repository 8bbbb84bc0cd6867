"""Forecast a time series: get the series, split it by time, train a model, compare its forecasts with baselines."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # torchdl of this clone, installed or not

from torchdl import SequenceModel, Trainer
from torchdl.cli.main import run_script
from torchdl.cli.options import RunOptions
from torchdl.cli.parsing import Positional
from torchdl.cli.run import Run
from torchdl.data.delimited_files import TableFormat
from torchdl.data.series import Series, Split, google_prices, load_prices, read_series, sine, sine_of_square
from torchdl.errors import require
from torchdl.models.rnn import Kind
from torchdl.plots import plot_histograms
from torchdl.recipes.forecasting import (
    direction_data,
    direction_forecaster,
    direction_training,
    evaluate_direction,
    evaluate_forecaster,
    forecaster_training,
    series_forecaster,
)
from torchdl.recipes.learning import Learning
from torchdl.tasks import ScheduleName


@dataclass(frozen=True)
class SeriesLearning(Learning):
    """How to train a network on a series."""

    lr: float | None = None  # type: ignore[assignment]
    """The learning rate, with a schedule its maximum; the lecture's if not given."""
    schedule: ScheduleName = "cosine"


@dataclass(frozen=True)
class Config:
    """Forecast a time series one step and many steps ahead, and compare with forecasts that need no training."""

    experiment: Positional[Literal["sine", "noisy_sine", "sine_of_square", "prices", "returns", "direction"] | None] = (
        None
    )
    """The series of lectures 39 (sine), 43 (noisy_sine), 47, 51, 52 and 53; direction asks whether the price rises. If
    not given: sine, or prices with --csv, which may be any series."""
    csv: Path | None = None
    """For the last three: a CSV file with a header and a row per term; Starbucks' prices if not given."""
    format: TableFormat = field(default_factory=TableFormat)
    time: str = ""
    """The file's column of times; found if not given. none: its rows are in order."""
    date_order: Literal["day", "month"] | None = None
    """Whether the day or the month comes first in 03/04/2020; if not given, the file must show it."""
    sort: bool = False
    """Sort the file's rows by time."""
    google: bool = False
    """For the last three: Google's prices of 2004 to 2008, which need no download."""
    column: str = "close"
    """The column to forecast."""
    inputs: tuple[str, ...] = ()
    """For direction: the columns to read; if not given, all that are numbers, but for times and indices."""
    model: Kind | None = None
    """linear (autoregressive), mlp, rnn, gru or lstm; the lecture's if not given."""
    hidden: int | None = None
    """Number of hidden units; the lecture's if not given."""
    layers: int = 1
    """Number of recurrent or hidden layers."""
    bidirectional: bool = False
    """Read the window backwards, too."""
    pooling: Literal["last", "max"] = "last"
    """Predict from the last state, or from the maximum of each unit over all states."""
    activation: Literal["tanh", "relu", "none"] | None = None
    """Activation of rnn and mlp; none makes the recurrence linear, as in lecture 43."""
    length: int = 10
    """Number of terms that the model sees."""
    horizon: int = 20
    """Number of terms that the multi-step forecasts predict."""
    direct: bool = False
    """Predict the whole horizon at once, instead of one term at a time from earlier predictions."""
    period: int = 0
    """Terms per season, for the baseline that repeats the last season; 0 for no such baseline."""
    test_share: float | None = None
    """Share of the series, at its end, for testing. If not given: a half, or a third for direction."""
    learning: SeriesLearning = field(default_factory=SeriesLearning)
    run: RunOptions = field(default_factory=lambda: RunOptions(threads=1))
    trainer: Trainer = field(default_factory=lambda: Trainer(epochs=200, evaluate_every=50))


class Experiment(NamedTuple):
    """A lecture's series, model, number of hidden units and learning rate."""

    load: Callable[[Config], Series]
    model: Kind
    hidden: int
    lr: float


def prices(config: Config) -> Series:
    """Get the prices: the inputs for direction, else the column to forecast."""
    columns = (*config.inputs, config.column) if config.inputs or config.experiment != "direction" else ()
    columns = tuple(dict.fromkeys(columns))
    if config.csv is not None:
        return read_series(config.csv, columns, config.format, config.time, config.date_order, config.sort)
    found = google_prices() if config.google else load_prices(config.run.data_root)
    return found.select(columns) if columns else found


STEP = 0.1  # radians, of the sines
# sin(t + w) = 2 cos(w) sin(t) - sin(t - w), as lecture 40 proves
RECURRENCE = {f"2 cos({STEP:g}) and -1": (2 * math.cos(STEP), -1.0)}
EXPERIMENTS = {
    "sine": Experiment(lambda _: sine(step=STEP), "linear", 5, 0.1),
    "noisy_sine": Experiment(lambda config: sine(step=STEP, noise=0.1, seed=config.trainer.seed), "linear", 5, 0.1),
    "sine_of_square": Experiment(lambda _: sine_of_square(), "rnn", 10, 0.05),
    "prices": Experiment(prices, "lstm", 5, 0.1),
    "returns": Experiment(lambda config: prices(config).returns(), "lstm", 5, 0.1),
    "direction": Experiment(prices, "lstm", 50, 1e-3),
}


def main(config: Config) -> None:
    """Get the series, build the model, train, look."""
    which = config.experiment or ("sine" if config.csv is None and not config.google else "prices")
    experiment, direction = EXPERIMENTS[which], which == "direction"
    chosen: dict[str, Any] = {
        "experiment": which,
        "model": config.model or experiment.model,
        "hidden": experiment.hidden if config.hidden is None else config.hidden,
        "test_share": (1 / 3 if direction else 0.5) if config.test_share is None else config.test_share,
        "learning": replace(config.learning, lr=experiment.lr if config.learning.lr is None else config.learning.lr),
    }
    config = replace(config, **chosen)
    require(
        config.experiment in ("prices", "returns", "direction") or (config.csv is None and not config.google),
        f"{config.experiment} makes its own series: --csv and --google are for prices, returns and direction",
    )
    require(direction or not config.inputs, f"--inputs are for direction: {config.experiment} reads --column alone")
    require(config.csv is None or not config.google, "--csv and --google name two series: leave one of them out")
    require(0 < chosen["test_share"] < 1, f"--test-share must be in (0, 1), not {chosen['test_share']}")
    # 1. Get the series, and split it by time.
    series = experiment.load(config)
    split = Split(series, config.length, max(1, round(len(series) * chosen["test_share"])))
    run = Run("forecast", config, config.run, config.trainer, series)
    # 2. Build the model.
    model = SequenceModel(
        chosen["model"],
        len(series.columns),
        1 if direction else len(series.columns),
        config.length,
        chosen["hidden"],
        config.layers,
        config.bidirectional,
        config.pooling,
        config.activation,
        None if direction else config.horizon if config.direct else 1,
    )
    # 3. Train it. 4. Compare its forecasts with those that need no training.
    learning, seed, device = chosen["learning"], config.trainer.seed, config.trainer.device
    file: dict[str, Any] = {
        "format": config.format,
        "time": config.time,
        "date_order": config.date_order,
        "sort": config.sort,
    }
    if direction:
        data = direction_data(split, config.column)
        directions = direction_forecaster(model, split, config.column, device, **file)
        run.fit(*direction_training(model, data, learning, seed), predictor=directions)
        if run.is_main:
            run.keep(evaluate_direction(directions, split))
    else:
        training = forecaster_training(model, split, config.horizon, config.period, learning, seed)
        returns = config.experiment == "returns"
        forecaster = series_forecaster(model, split, config.horizon, config.period, device, returns=returns, **file)
        name = f"return of {config.column}"
        pictures = {"returns": plot_histograms({name: series.values[:, 0].numpy()})} if returns else None
        run.fit(*training, pictures=pictures, predictor=forecaster)
        if run.is_main:
            columns = len(series.columns)
            linear = SequenceModel("linear", columns, columns, config.length, horizon=1)
            known = RECURRENCE if config.experiment in ("sine", "noisy_sine") else None
            run.keep(evaluate_forecaster(forecaster, linear, split, known))
    run.close()


if __name__ == "__main__":
    run_script(main, Config)
