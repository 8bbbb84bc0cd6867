"""The state of training: counters and metrics; a checkpoint holds it beside the task."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, TypedDict

import msgspec

from torchdl.collective import is_main_process
from torchdl.training import distributed


class Sums(dict[str, list[float]]):
    """Weighted sums, by name, for weighted means: ``{name: [sum of value * weight, sum of weight]}``."""

    def add(self, name: str, value: float, weight: float) -> None:
        """Add a value with its weight."""
        entry = self.setdefault(name, [0.0, 0.0])
        entry[0] += value * weight
        entry[1] += weight

    def over_processes(self) -> Sums:
        """Return the sums over all processes; a name may be missing on some of them."""
        names = distributed.union(self)
        flat = distributed.total([number for name in names for number in self.get(name, [0.0, 0.0])])
        return Sums({name: flat[2 * i : 2 * i + 2] for i, name in enumerate(names)})

    def means(self) -> dict[str, float]:
        """Return the means over all processes, without those of weight 0."""
        return {name: value / weight for name, (value, weight) in self.over_processes().items() if weight}


Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class Progress(TypedDict, total=False):
    """What a checkpoint holds of the :class:`TrainingState`."""

    epoch: Count
    batch: Count
    step: Count
    history: list[dict[str, int | float]]
    epoch_sums: dict[str, tuple[float, float]]
    window_sums: dict[str, tuple[float, float]]


@dataclass
class TrainingState:
    """Counters and metrics; ``batch`` counts within the epoch, ``step`` from the start."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    epoch_sums: Sums = field(default_factory=Sums)
    window_sums: Sums = field(default_factory=Sums)  # since the last point in the log

    def state_dict(self) -> dict[str, Any]:
        """Return plain values and containers of them; all processes must call this, because it sums over them."""
        sums = {name: dict(getattr(self, name).over_processes()) for name in ("epoch_sums", "window_sums")}
        own = {name: getattr(self, name) for name in ("epoch", "batch", "step")}
        return {**own, "history": list(self.history), **sums}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a state; the sums go to process 0 only, so that they count once.

        Raises:
            ValueError: A value is of another type than in :class:`Progress`.
        """
        weight = 1.0 if is_main_process() else 0.0
        found: dict[str, Any] = dict(msgspec.convert(state, Progress))
        for name, value in found.items():
            if name.endswith("_sums"):
                value = Sums({key: [weight * number for number in entry] for key, entry in value.items()})
            setattr(self, name, value)
