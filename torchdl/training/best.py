"""The best epoch so far, by one metric."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Best(NamedTuple):
    """The best value of a metric in a history, and the number of evaluations since then.

    Attributes:
        value: The value; NaN if there is none, or none that is a number.
        since: The number of later evaluations; of all if there is no value.
    """

    value: float
    since: int

    @classmethod
    def of(cls, history: Sequence[Mapping[str, float]], monitor: str, mode: str) -> Best:
        """Return the best value of a metric in a history; rows without the metric do not count.

        Example:
            >>> from torchdl.training.best import Best
            >>> Best.of([{"val/loss": 2.0}, {"val/loss": 1.0}, {}, {"val/loss": 1.0}], "val/loss", "min")
            Best(value=1.0, since=1)
        """
        best, since = math.nan, 0
        for row in history:
            if monitor in row:
                value = row[monitor]
                better = value < best if mode == "min" else value > best
                if better or (math.isnan(best) and not math.isnan(value)):
                    best, since = value, 0
                else:
                    since += 1
        return cls(best, since)
