"""Forecast a series, beside a forecast that needs no training.

Shapes: N windows, L known terms, K of them seen by a naive forecast, T by the network, D columns, H future terms.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from torchdl.data.series import Series
from torchdl.data.time_columns import later_times
from torchdl.errors import require
from torchdl.forecasts import NAIVE, forecast, naive_forecasts
from torchdl.plots import plot_next_terms
from torchdl.predict.base import Predictor
from torchdl.predict.series import SeriesInput

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

MAX_HORIZON = 100_000  # of a run: a stranger's must not keep the computer busy for ever


@dataclass(frozen=True)
class Forecast:
    """The next H terms of a series, in its unit.

    Attributes:
        known: The series.
        values: (H, D) float64, the network's forecast.
        naive: (H, D) float64, the forecast by a rule that needs no training.
        rule: The name of that rule: the one with the smallest error in the training part.
        times: (H,) ``datetime64``, if the series has times that are equally spaced (months, for example, are); or None.
        prices: If these are returns, the prices that follow from them.
        notes: Sentences on what a reader should know, such as that the series has left the training's range.

    Example:
        >>> from torchdl.predict import Forecast
        >>> known = torchdl.Series(torch.tensor([[1.0], [2.0]]), ("close",))
        >>> Forecast(known, torch.tensor([[2.5]]), torch.tensor([[2.0]]), "last value").to_frame()
           step  close  close, last value
        0     1    2.5                2.0
    """

    known: Series
    values: Tensor
    naive: Tensor
    rule: str
    times: np.ndarray | None = None
    prices: Forecast | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.values)

    def to_frame(self) -> pandas.DataFrame:
        """Return a table with a row per term: the step, the time if it is known, and both forecasts of each column."""
        import pandas  # imported late: it takes a second

        columns: dict[str, Any] = {"step": range(1, len(self) + 1)}
        if self.times is not None:
            columns["time"] = self.times
        for each in self._with_prices():
            for number, name in enumerate(each.known.columns):
                columns[name] = each.values[:, number].numpy()
                columns[f"{name}, {each.rule}"] = each.naive[:, number].numpy()
        return pandas.DataFrame(columns)

    def figure(self, shown: int | None = None) -> Figure:
        """Draw the last ``shown`` known terms (by default 3 H, at least 50) and both forecasts, a panel per column.

        Raises:
            InputError: ``shown`` is less than 1.
        """
        shown = min(len(self.known), max(3 * len(self), 50) if shown is None else shown)
        require(shown >= 1, f"shown must be 1 or more, not {shown}")
        panels = {
            name: (
                each.known.values[-shown:, number],
                {"forecast": each.values[:, number], each.rule: each.naive[:, number]},
            )
            for each in self._with_prices()
            for number, name in enumerate(each.known.columns)
        }
        known = self.known.times
        times = None if known is None or self.times is None else np.concatenate([known[-shown:], self.times])
        return plot_next_terms(panels, times)

    def _with_prices(self) -> list[Forecast]:
        return [self] if self.prices is None else [self, self.prices]


@dataclass(frozen=True)
class ForecasterSettings:
    """The series that a forecaster reads, and what it forecasts.

    Attributes:
        series: The series.
        horizon: H, unless another one is asked for.
        naive: The name of the naive forecast with the smallest error in the training part.
        period: Terms per season, for the seasonal naive forecast; 0 for none.
    """

    series: SeriesInput
    horizon: int
    naive: str = NAIVE[0]
    period: int = 0


class Forecaster(Predictor[ForecasterSettings]):
    """Forecast all columns of a series by a network that maps windows (N, T, D) to the next terms.

    Args:
        model, settings, device, batch_size, workers: As for :class:`Predictor`; the settings are
            ``Forecaster.Settings``.

    Example:
        >>> from torchdl.predict import Forecaster, SeriesInput
        >>> split = torchdl.Split(torchdl.sine(), length=10, test_size=100)
        >>> model = torchdl.fit_linear_(torchdl.SequenceModel("linear", length=10, horizon=1), *split.train()[:])
        >>> forecaster = Forecaster(model, Forecaster.Settings(SeriesInput.of(split), horizon=3), "cpu")
        >>> forecaster.predict(torchdl.sine()).values.flatten().round(decimals=2)  # sin(20), sin(20.1), sin(20.2)
        tensor([0.9100, 0.9500, 0.9800], dtype=torch.float64)
    """

    kind = "forecaster"
    Settings = ForecasterSettings

    def check(self) -> None:
        """Raise :class:`InputError` unless the settings are sound and the model's."""
        settings = self.settings
        settings.series.check()
        settings.series.check_model(self.model, len(settings.series.columns))
        require(1 <= settings.horizon <= MAX_HORIZON, f"horizon must be in [1, {MAX_HORIZON:,}]")
        require(settings.period >= 0, f"period must be 0 or more, not {settings.period}")
        known = NAIVE[: 4 if settings.period else 3]
        require(settings.naive in known, f"there is no naive forecast {settings.naive!r}, only {', '.join(known)}")
        require(settings.naive != NAIVE[2] or settings.series.length > 1, f"{NAIVE[2]} needs two terms")

    def forecast(self, windows: Tensor, horizon: int | None = None) -> Tensor:
        """Forecast H terms (N, H, D) after each of N windows (N, T, D); all are in the unit of the terms.

        ``horizon`` is H, by default the settings'.
        """
        horizon = self.settings.horizon if horizon is None else horizon
        x = self.settings.series.scale(windows)
        return self.settings.series.unscale(self.computed(partial(forecast, self.model, horizon=horizon), x))

    def naive_forecasts(self, windows: Tensor, horizon: int | None = None) -> dict[str, Tensor]:
        """Return the naive forecasts (N, H, D), by name, after windows (N, K, D), where K is T or more.

        The seasonal one is there if K is a period or more. ``horizon`` is H, by default the settings'.
        """
        horizon = self.settings.horizon if horizon is None else horizon
        period = self.settings.period if windows.shape[1] >= self.settings.period else 0
        series = self.settings.series
        x = series.scale(windows, torch.float64)  # the last value is to be the last value
        return {n: series.unscale(values) for n, values in naive_forecasts(x, series.length, horizon, period).items()}

    def predict(self, inputs: Any, horizon: int | None = None, **file: Any) -> Forecast:
        """Forecast the terms after the end of a series.

        Args:
            inputs: The series, in the unit in which it was read for training (prices, if returns are forecast); see
                :meth:`torchdl.predict.SeriesInput.read`. Of a long one, only the last terms matter.
            horizon: H; by default the one of the training.
            **file: What is written in another way than the training's file; see :meth:`SeriesInput.read`.

        Raises:
            InputError: The series lacks a column, has too few terms, a value is not a finite number, or the forecast
                grows beyond all numbers.
        """
        series = self.settings.series.read(inputs, **file)
        found = self.forecast_after(self.settings.series.terms(series), horizon)
        finite = int(found.values.isfinite().all(1).cumprod(0).sum())  # steps before the first that is not finite
        advice = "choose a smaller horizon" if finite else "the series is too different from the training's"
        require(finite == len(found), f"the forecast is not a finite number at step {finite + 1}: {advice}")
        if not self.settings.series.returns:
            return found
        last = series.values[-1]  # (D,)
        values, naive = (last * (1 + returns).cumprod(0) for returns in (found.values, found.naive))
        names = tuple(f"return of {name}" for name in series.columns)
        prices = Forecast(series, values, naive, found.rule, found.times)
        return replace(found, known=replace(found.known, columns=names), prices=prices)

    def forecast_after(self, series: Series, horizon: int | None = None) -> Forecast:
        """Forecast the terms after a series of what the network reads: of returns, if it forecasts returns.

        ``horizon`` is the number of terms, by default the settings'.

        Raises:
            InputError: The series is shorter than a season that the naive forecast repeats.
        """
        settings, horizon = self.settings, self.settings.horizon if horizon is None else horizon
        values = series.values[None]  # (1, L, D)
        seasonal = settings.naive == NAIVE[3]
        require(
            not seasonal or len(series) >= settings.period,
            f"the series has {len(series):,} terms, but the naive forecast repeats a season of {settings.period}: give "
            "at least as many",
        )
        naive = self.naive_forecasts(values[:, -max(settings.series.length, settings.period) :], horizon)
        window = values[:, -settings.series.length :]  # (1, T, D)
        found = self.forecast(window, horizon)
        times = None if series.times is None else later_times(series.times, horizon)
        notes = settings.series.notes(window[0])
        return Forecast(series, found[0], naive[settings.naive][0], settings.naive, times, notes=notes)
