"""From a series, in any form in which people have one, to the terms that a network was trained on.

Shapes: L known terms, T terms seen by the network, D columns, N windows.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from torchdl.data.delimited_files import CSV, TableFormat, repeated
from torchdl.data.series import Series, Split, as_values, read_series, table_series
from torchdl.data.time_columns import DateOrder
from torchdl.errors import require


@dataclass(frozen=True)
class SeriesInput:
    """The columns that a network reads, how they are scaled, and how a file of them is written.

    Attributes:
        columns: The names of the D columns.
        mean: (D,), the mean of the training part.
        deviation: (D,), its standard deviation.
        length: T.
        low, high: (D,), the smallest and the largest value in the training part; none if they are unknown.
        returns: Whether the network's terms are the relative changes of the columns, not the columns themselves.
        format, time, date_order, sort: How a file is read; see :func:`torchdl.read_series`.

    Example:
        >>> from torchdl.predict import SeriesInput
        >>> prices = SeriesInput(("close",), (0.0,), (0.1,), length=2, returns=True)
        >>> prices.terms(prices.read([100.0, 110.0, 99.0])).values.flatten()
        tensor([ 0.1000, -0.1000], dtype=torch.float64)
    """

    columns: tuple[str, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    length: int
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    returns: bool = False
    format: TableFormat = CSV
    time: str = ""
    date_order: DateOrder | None = None
    sort: bool = False

    @classmethod
    def of(cls, split: Split, returns: bool = False, **file: Any) -> SeriesInput:
        """Describe the series of a split.

        Args:
            split: The split. If ``returns``, its series are the returns of the columns.
            returns: See the class.
            **file: ``format``, ``time``, ``date_order`` and ``sort``.
        """
        mean, deviation = (tuple(each.tolist()) for each in (split.mean, split.deviation))
        low, high = (tuple(each.tolist()) for each in split.series.values[: split.boundary].aminmax(dim=0))
        return cls(split.series.columns, mean, deviation, split.length, low, high, returns, **file)

    def check(self) -> None:
        """Raise :class:`InputError` unless these describe a series."""
        count = len(self.columns)
        require(count > 0 and not repeated(self.columns), "a series needs columns, each with a name of its own")
        require(count == len(self.mean) == len(self.deviation), "mean and deviation must have a number for each column")
        sound = all(map(math.isfinite, (*self.mean, *self.deviation))) and min(self.deviation) > 0
        require(sound, "mean and deviation must be finite, and deviation above 0")
        require(len(self.low) == len(self.high) in (0, count), "low and high must have a number for each column")
        require(self.length >= 1, f"length must be 1 or more, not {self.length}")

    def read(self, raw: Any, **file: Any) -> Series:
        """Read the columns, in their own unit, from whatever holds them; other columns are ignored.

        Args:
            raw: A text file; a :class:`torchdl.Series`; a DataFrame; an array, tensor or list (L, D), with the columns
                in the training's order, or (L,) for a single one.
            **file: ``format``, ``time``, ``date_order`` or ``sort``, where they differ from the training's.

        Raises:
            InputError: A column is missing, a value is not a finite number, or there are too few terms for a window.
        """
        series = replace(self, **file)._columns(raw)
        least = self.length + self.returns
        require(
            len(series) >= least,
            f"the series has {len(series):,} terms, but the network reads {least}: give at least as many",
        )
        return series

    def _columns(self, raw: Any) -> Series:
        if isinstance(raw, (str, os.PathLike)):
            return read_series(raw, self.columns, self.format, self.time, self.date_order, self.sort)
        if isinstance(raw, Series):
            return raw.select(self.columns)
        raw = raw.to_pandas() if hasattr(raw, "to_pandas") else raw
        if hasattr(raw, "iloc"):
            frame = raw.to_frame(self.columns[0] if raw.name is None else raw.name) if raw.ndim == 1 else raw
            return table_series(frame, self.columns, self.time, self.date_order, self.sort)
        values = as_values(raw)
        require(
            values.dim() == 2 and values.shape[1] == len(self.columns),
            f"the network reads {', '.join(self.columns)}: numbers must be (L, {len(self.columns)}), "
            f"not {tuple(values.shape)}",
        )
        return Series(values, self.columns)

    def terms(self, series: Series) -> Series:
        """Return the terms that the network reads: the series itself, or its returns."""
        return series.returns() if self.returns else series

    def notes(self, terms: Tensor) -> tuple[str, ...]:
        """Return a sentence for each column whose terms (L, D) reach beyond those of the training part."""
        found = []
        for name, low, high, values in zip(self.columns, self.low, self.high, terms.T, strict=False):
            far = [value for value in (float(values.min()), float(values.max())) if not low <= value <= high]
            if far:
                term = f"the return of {name!r}" if self.returns else repr(name)
                reached = f"{term} reaches {far[-1]:.4g}, but only {low:.4g} to {high:.4g} in the training part"
                found.append(f"{reached}: a network is often wrong where it has not learnt")
        return tuple(found)

    def scale(self, terms: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Scale terms (..., D) as training did; the result has the type ``dtype``."""
        mean, deviation = self._scale()
        return ((terms.cpu() - mean) / deviation).to(dtype).contiguous()

    def unscale(self, values: Tensor) -> Tensor:
        """Convert scaled terms (..., D) back to the unit of the terms, float64."""
        mean, deviation = self._scale()
        return values.cpu().double() * deviation + mean

    def _scale(self) -> tuple[Tensor, Tensor]:
        return torch.tensor(self.mean, dtype=torch.float64), torch.tensor(self.deviation, dtype=torch.float64)

    def check_model(self, model: torch.nn.Module, outputs: int) -> None:
        """Raise :class:`InputError` unless ``model`` reads these columns and returns ``outputs`` numbers per term."""
        columns = getattr(model, "in_features", len(self.columns))
        require(columns == len(self.columns), f"the model reads {columns} columns")
        found = getattr(model, "out_features", outputs)
        require(found == outputs, f"the model has {found} outputs for each term, not {outputs}")
        length = getattr(model, "length", None) or self.length
        require(length == self.length, f"the model reads {length} terms, not {self.length}")
