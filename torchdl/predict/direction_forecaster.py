"""Predict whether a column of a series rises next, beside the share of rises in the training part.

Shapes: N windows, T terms seen by the network, D columns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from torchdl.data.time_columns import later_times
from torchdl.errors import require
from torchdl.predict.base import Predictor
from torchdl.predict.series import SeriesInput

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class DirectionAnswer:
    """Whether a column rises at the next term.

    Attributes:
        target: The column.
        probability: The probability that it rises; otherwise it falls or stays.
        rises: The share of rises in the training part, which needs no network.
        last: The last known value of the column.
        time: The time of the next term, if the series has times that are equally spaced; or None.
        notes: Sentences on what a reader should know, such as that the series has left the training's range.

    Example:
        >>> from torchdl.predict import DirectionAnswer
        >>> DirectionAnswer("close", 0.75, 0.5, last=54.5).to_frame()[["column", "last", "next"]]
          column  last   next
        0  close  54.5  rises
    """

    target: str
    probability: float
    rises: float
    last: float
    time: np.datetime64 | None = None
    notes: tuple[str, ...] = ()

    def to_frame(self) -> pandas.DataFrame:
        """Return a table with one row: the more probable direction, its probability and the share in training."""
        import pandas  # imported late: it takes a second

        row: dict[str, Any] = {"column": self.target, "last": self.last}
        if self.time is not None:
            row["time of the next"] = self.time
        row["next"] = "rises" if self.probability > 0.5 else "falls or stays"
        row["probability that it rises"] = self.probability
        row["share of rises in training"] = self.rises
        return pandas.DataFrame([row])


@dataclass(frozen=True)
class DirectionSettings:
    """The series that is read, the column whose direction is predicted, and its share of rises in training."""

    series: SeriesInput
    target: str
    rises: float


class DirectionForecaster(Predictor[DirectionSettings]):
    """Predict by a network that maps windows (N, T, D) to logits (N, 1) whether a column rises at the next term.

    Args:
        model, settings, device, batch_size, workers: As for :class:`Predictor`; the settings are
            ``DirectionForecaster.Settings``.

    Example:
        >>> from torchdl.predict import DirectionForecaster, SeriesInput
        >>> split = torchdl.Split(torchdl.google_prices(), length=10, test_size=300)
        >>> model = torchdl.SequenceModel("lstm", in_features=5, length=10)
        >>> settings = DirectionForecaster.Settings(SeriesInput.of(split), "close", rises=0.53)
        >>> answer = DirectionForecaster(model, settings).predict(torchdl.google_prices())
        >>> answer.target, 0 < answer.probability < 1
        ('close', True)
    """

    kind = "direction forecaster"
    Settings = DirectionSettings

    def check(self) -> None:
        """Raise :class:`InputError` unless the settings are sound and the model's."""
        settings = self.settings
        settings.series.check()
        settings.series.check_model(self.model, 1)
        require(not settings.series.returns, "a direction forecaster reads the columns themselves, not their returns")
        require(getattr(self.model, "horizon", None) is None, "the model forecasts terms, not a direction")
        require(settings.target in settings.series.columns, f"there is no column {settings.target!r} to predict")
        require(0 <= settings.rises <= 1, f"the share of rises must be in [0, 1], not {settings.rises}")

    def logits(self, windows: Tensor) -> Tensor:
        """Return the logits (N, 1), on the CPU, of windows (N, T, D) in the unit of the series."""
        return self.computed(self.model, self.settings.series.scale(windows))

    def predict(self, inputs: Any, **file: Any) -> DirectionAnswer:
        """Return the probability that the column rises at the term after the end of a series.

        Args:
            inputs: The series; see :meth:`torchdl.predict.SeriesInput.read`. Of a long one, only the last terms matter.
            **file: What is written in another way than the training's file; see :meth:`SeriesInput.read`.

        Raises:
            InputError: The series lacks a column, has too few terms, or a value is not a finite number.
        """
        settings = self.settings
        series = settings.series.read(inputs, **file)
        window = series.values[-settings.series.length :]  # (T, D)
        logits = self.logits(window[None])  # (1, 1)
        last = series.select([settings.target]).values[-1]
        later = None if series.times is None else later_times(series.times, 1)
        time = None if later is None else later[0]
        probability, notes = float(logits.double().sigmoid()), settings.series.notes(window)
        require(math.isfinite(probability), "the probability is not a number: the series is too different")
        return DirectionAnswer(settings.target, probability, settings.rises, float(last), time, notes)
