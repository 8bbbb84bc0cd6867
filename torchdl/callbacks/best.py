"""The best epoch so far, by one metric, and what is kept of it: its checkpoint, or its weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torchdl.callbacks.base import Callback, Training
from torchdl.errors import require
from torchdl.files import BEST


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
        """Return the best value of the metric ``monitor`` in ``history``, by ``mode`` (min or max); rows may lack it.

        Example:
            >>> from torchdl.callbacks.best import Best
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


class Monitoring(Callback):
    """The base class of callbacks that follow a metric.

    Args:
        monitor: The metric, such as ``val/accuracy``; the trainer refuses one that there is not.
        mode: min or max: whether a lower or a higher value is better.

    Raises:
        InputError: The mode is another word.
    """

    def __init__(self, monitor: str, mode: str = "min") -> None:
        require(mode in ("min", "max"), f"mode must be min or max, not {mode!r}")
        self.monitor, self.mode = monitor, mode

    def is_best(self, training: Training) -> bool:
        """Return whether the epoch that has just ended has the best value so far.

        Raises:
            InputError: There is no such metric of the training.
        """
        known = ", ".join(name for name in training.row if name.startswith("train/"))
        there = self.monitor in training.row or not self.monitor.startswith("train/")
        require(there, f"there is no metric {self.monitor!r} to monitor: choose one of {known}")
        return self.monitor in training.row and Best.of(training.history, self.monitor, self.mode).since == 0


class BestCheckpoint(Monitoring):
    """Keep the checkpoint of the epoch with the best value of a metric, as ``best.pt``.

    Args:
        monitor: The metric, such as ``val/accuracy``.
        mode: min or max: whether a lower or a higher value is better.
        name: The file's name.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> data = torchdl.ArrayDataset(torch.ones(4, 1), torch.ones(4, 1))
        >>> task = torchdl.Supervised(torch.nn.Linear(1, 1), torch.nn.functional.mse_loss)
        >>> folder, best = tempfile.mkdtemp(), torchdl.BestCheckpoint("train/loss", name="lowest.pt")
        >>> history = torchdl.Trainer(epochs=2).fit(task, torchdl.BatchLoader(data, 2), folder=folder, callbacks=[best])
        >>> (Path(folder) / "lowest.pt").is_file()
        True
    """

    def __init__(self, monitor: str, mode: str = "min", name: str = BEST) -> None:
        super().__init__(monitor, mode)
        self.name = name

    def on_epoch_end(self, training: Training) -> None:
        """Keep this epoch's checkpoint if it is the best one so far."""
        if self.is_best(training):
            training.save_as(self.name)


class BestWeights(Monitoring):
    """End a training with the weights of the epoch that has the best value of a metric, also without a folder.

    Args:
        monitor: The metric, such as ``val/accuracy``.
        mode: min or max: whether a lower or a higher value is better.

    Example:
        >>> loader = torchdl.BatchLoader(torchdl.ArrayDataset(torch.ones(4, 1), torch.ones(4, 1)), 4)
        >>> task = torchdl.Supervised(torch.nn.Linear(1, 1), torch.nn.functional.mse_loss)
        >>> best = torchdl.BestWeights("val/loss", mode="max")  # the highest loss is that after the first epoch
        >>> history = torchdl.Trainer(epochs=5).fit(task, loader, loader, callbacks=[best])
        >>> bool(torch.isclose(task.model(torch.ones(1, 1)), torch.tensor(1.0 - history[0]["val/loss"] ** 0.5)).all())
        True
    """

    def __init__(self, monitor: str, mode: str = "min") -> None:
        super().__init__(monitor, mode)
        self.weights: dict[str, Any] = {}

    def on_epoch_end(self, training: Training) -> None:
        """Keep a copy of this epoch's weights if it is the best one so far."""
        if self.is_best(training):
            self.weights = copy.deepcopy(training.task.state_dict())

    def on_fit_end(self, training: Training) -> None:
        """Load the best epoch's weights."""
        if self.weights:
            training.load_weights(self.weights)

    def state_dict(self) -> dict[str, Any]:
        """Return the best epoch's weights."""
        return self.weights

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the best epoch's weights, of a checkpoint."""
        self.weights = state
