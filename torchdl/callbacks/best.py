"""The best epoch so far, by one metric, and what is kept of it: its checkpoint, or its weights."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

from torchdl.callbacks.base import Callback, Training
from torchdl.errors import require
from torchdl.files import BEST

#: How the names of metrics end of which a higher value is better, also with ``score`` after it, as in ``f1_score``.
HIGHER = (
    *("accuracy", "acc", "top1", "top3", "top5", "precision", "recall", "f1", "auc", "auroc", "correlation"),
    *("information", "iou", "dice", "psnr", "ssim", "similarity", "coverage", "bleu"),
)

Mode = Literal["auto", "min", "max"]


def direction(monitor: str, mode: str = "auto") -> str:
    """Return whether a lower or a higher value of a metric is better, as min or max.

    Args:
        monitor: The metric, such as ``val/accuracy``.
        mode: ``auto`` to choose by the metric's name: max if it ends in a word of :data:`HIGHER` or is ``r2``, or else
            min. ``min`` and ``max`` stay as they are.

    Example:
        >>> from torchdl.callbacks.best import direction
        >>> direction("val/accuracy"), direction("val/f1_score"), direction("val/loss"), direction("val/loss", "max")
        ('max', 'max', 'min', 'max')
    """
    if mode != "auto":
        return mode
    name = monitor.lower().removesuffix("score").rstrip("_")
    return "max" if name.endswith(HIGHER) or re.search(r"(?<![a-z])r2$", name) else "min"  # not val/error2


class Best(NamedTuple):
    """The best value of a metric in a history, and the number of evaluations since then.

    Attributes:
        value: The value; NaN if there is none, or none that is a number.
        since: The number of later evaluations; of all if there is no value.
    """

    value: float
    since: int

    @classmethod
    def of(cls, history: Sequence[Mapping[str, float]], monitor: str, mode: str = "auto") -> Best:
        """Return the best value of the metric ``monitor`` in ``history``, by ``mode``; rows may lack it.

        ``mode`` is as in :func:`direction`.

        Example:
            >>> from torchdl.callbacks.best import Best
            >>> Best.of([{"val/loss": 2.0}, {"val/loss": 1.0}, {}, {"val/loss": 1.0}], "val/loss")
            Best(value=1.0, since=1)
        """
        best, since, mode = math.nan, 0, direction(monitor, mode)
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
        mode: Whether a lower (min) or a higher value (max) is better; auto tells by the metric's name: see
            :func:`torchdl.callbacks.best.direction`.

    Raises:
        InputError: The mode is another word.
    """

    def __init__(self, monitor: str, mode: str = "auto") -> None:
        require(mode in get_args(Mode), f"mode must be auto, min or max, not {mode!r}")
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
        mode: Whether a lower (min) or a higher value (max) is better; auto tells by the metric's name: see
            :func:`torchdl.callbacks.best.direction`.
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

    def __init__(self, monitor: str, mode: str = "auto", name: str = BEST) -> None:
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
        mode: Whether a lower (min) or a higher value (max) is better; auto tells by the metric's name: see
            :func:`torchdl.callbacks.best.direction`.

    Example:
        >>> loader = torchdl.BatchLoader(torchdl.ArrayDataset(torch.ones(4, 1), torch.ones(4, 1)), 4)
        >>> task = torchdl.Supervised(torch.nn.Linear(1, 1), torch.nn.functional.mse_loss)
        >>> best = torchdl.BestWeights("val/loss", mode="max")  # the highest loss is that after the first epoch
        >>> history = torchdl.Trainer(epochs=5).fit(task, loader, loader, callbacks=[best])
        >>> bool(torch.isclose(task.model(torch.ones(1, 1)), torch.tensor(1.0 - history[0]["val/loss"] ** 0.5)).all())
        True
    """

    def __init__(self, monitor: str, mode: str = "auto") -> None:
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
