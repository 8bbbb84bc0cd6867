"""Where training stands: with the task, the optimizers and the schedules it is all that a checkpoint holds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from torchdl.collective import is_main_process
from torchdl.errors import require
from torchdl.training import distributed


class Sums(dict[str, list[float]]):
    """Weighted sums by name, to take means of: ``{name: [sum of value * weight, sum of weight]}``."""

    def add(self, name: str, value: float, weight: float) -> None:
        """Add one value."""
        entry = self.setdefault(name, [0.0, 0.0])
        entry[0] += value * weight
        entry[1] += weight

    def over_processes(self) -> Sums:
        """Return the sums over all processes, which must have the same names."""
        flat = distributed.total([number for entry in self.values() for number in entry])
        return Sums({name: flat[2 * i : 2 * i + 2] for i, name in enumerate(self)})

    def means(self) -> dict[str, float]:
        """Return the means over all processes, of what any example had."""
        return {name: value / weight for name, (value, weight) in self.over_processes().items() if weight}


@dataclass
class Progress:
    """Counters, metrics and the best epoch so far; ``batch`` counts within the epoch, ``step`` from the start."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    best: float = math.nan
    since_best: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    epoch_sums: Sums = field(default_factory=Sums)
    window_sums: Sums = field(default_factory=Sums)  # since the last point in the log

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers, strings, lists and dictionaries, the sums over all processes; to be called by each."""
        sums = {name: dict(getattr(self, name).over_processes()) for name in ("epoch_sums", "window_sums")}
        return {**asdict(self), **sums}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take a state; the sums go to process 0 alone, so that they count once."""
        share = 1.0 if is_main_process() else 0.0
        for name, value in state.items():
            if name.endswith("_sums"):
                value = Sums({key: [share * number for number in entry] for key, entry in value.items()})
            setattr(self, name, value)

    def is_best(self, row: Mapping[str, float], monitor: str, mode: str) -> bool:
        """Say whether an epoch's monitored value is the best so far, and note it; NaN never is."""
        if monitor not in row:
            known = ", ".join(name for name in row if name.startswith("train/"))
            require(
                not monitor.startswith("train/"), f"there is no metric {monitor!r} to monitor: choose one of {known}"
            )
            return False  # nothing to monitor, or no evaluation in this epoch
        value = row[monitor]
        better = value < self.best if mode == "min" else value > self.best
        if better or (math.isnan(self.best) and not math.isnan(value)):
            self.best, self.since_best = value, 0
            return True
        self.since_best += 1
        return False
