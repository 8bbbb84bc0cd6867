"""What takes part in a training beside its task: it is called at fixed places, and may measure, save, log and stop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch.optim import Optimizer

from torchdl.errors import require


class Training:
    """What a callback sees of a training; only the methods change something.

    The trainer makes it of its ``fit``.
    """

    def __init__(self, fit: Any) -> None:
        self._fit = fit

    @property
    def task(self) -> Any:
        """The task, on its device."""
        return self._fit.task

    @property
    def folder(self) -> Path | None:
        """The run's folder, in which process 0 alone writes; None if nothing is written."""
        return self._fit.folder

    @property
    def device(self) -> torch.device:
        """The device."""
        return self._fit.device

    @property
    def is_main(self) -> bool:
        """Whether this is process 0, which alone should write and print."""
        return self._fit.rank == 0

    @property
    def logger(self) -> Any:
        """The run's log; on other processes than 0, and without a folder, it writes nothing."""
        return self._fit.logger

    @property
    def optimizers(self) -> Mapping[str, Optimizer]:
        """The optimizers, by name."""
        return self._fit.stepper.optimizers

    @property
    def epoch(self) -> int:
        """The number of complete epochs."""
        return self._fit.state.epoch

    @property
    def epochs(self) -> int | None:
        """The number of epochs to train for, of which the last one may be cut short; None if it is not known."""
        return self._fit.epochs

    @property
    def step(self) -> int:
        """The number of steps done."""
        return self._fit.state.step

    @property
    def steps(self) -> int:
        """The number of steps to train for."""
        return self._fit.steps

    @property
    def batch(self) -> int:
        """The number of batches done in this epoch."""
        return self._fit.state.batch

    @property
    def batches(self) -> int | None:
        """The number of batches in an epoch; None if it is not known."""
        return self._fit.batches

    @property
    def means(self) -> Mapping[str, float]:
        """The means of the training metrics between the last two points in the log, such as ``train/loss``."""
        return self._fit.means

    @property
    def values(self) -> dict[str, float]:
        """The training metrics of the last step, on this process; to read them waits for the device."""
        return self._fit.stepper.last_values()

    @property
    def row(self) -> Mapping[str, float]:
        """The metrics of the epoch that ends: in ``on_validation_end`` without what later callbacks measure."""
        return MappingProxyType(self._fit.row)

    @property
    def history(self) -> Sequence[Mapping[str, float]]:
        """The metrics of all epochs that have ended."""
        return tuple(map(MappingProxyType, self._fit.state.history))

    def measure(self, values: Mapping[str, float]) -> None:
        """Add metrics to those of the validation data, by name; for ``on_validation_end`` alone.

        Raises:
            InputError: A metric is measured already.
        """
        twice = ", ".join(values.keys() & self._fit.row.keys())
        require(not twice, f"a callback measures {twice}, which are measured already: give them other names")
        self._fit.row.update(values)

    def warn(self, sentence: str) -> None:
        """Log and print a sentence about a problem that the metrics of this validation show."""
        self._fit.found.append(sentence)

    def say(self, text: str) -> None:
        """Print a line if the training is verbose, on process 0."""
        self._fit.say(text)

    def load_weights(self, state: Mapping[str, Any]) -> None:
        """Load a state of the task, of this training or of a checkpoint.

        Args:
            state: What ``task.state_dict()`` has returned, or a checkpoint's part ``task``.
        """
        self._fit.load_weights(state)

    def save_as(self, name: str) -> None:
        """Write the next checkpoint under a further name, such as ``best.pt``; for ``on_epoch_end``.

        Raises:
            InputError: The name does not end in ``.pt``, or names a folder, too.
        """
        require(Path(name).name == name and name.endswith(".pt"), f"a checkpoint's name ends in .pt, unlike {name!r}")
        self._fit.names.append(name)

    def stop(self, reason: str) -> None:
        """End the training after this step or epoch, as if it were the last; process 0 prints the reason."""
        self._fit.reason = self._fit.reason or reason


class Callback:
    """The base class of callbacks: every method does nothing until a subclass says what.

    A callback is called on every process, in the order of the list that was given to :meth:`torchdl.Trainer.fit`, after
    those of the trainer itself. What it decides must be the same on all: decide by metrics, which are.

    Example:
        >>> class StopAtLoss(torchdl.Callback):
        ...     def on_epoch_end(self, training):
        ...         if training.row["train/loss"] < 0.1:
        ...             training.stop("the loss is small enough")
        >>> x = torch.linspace(-1, 1, 64)[:, None]
        >>> loader = torchdl.BatchLoader(torchdl.ArrayDataset(x, 2 * x), batch_size=4)
        >>> task = torchdl.Supervised(torch.nn.Linear(1, 1), torch.nn.functional.mse_loss)
        >>> history = torchdl.Trainer(epochs=500).fit(task, loader, callbacks=[StopAtLoss()])
        >>> len(history) < 500, history[-1]["train/loss"] < 0.1
        (True, True)
    """

    def on_fit_start(self, training: Training) -> None:
        """Begin, or go on after a resume; the state is loaded."""

    def on_step_end(self, training: Training) -> None:
        """A step is done; this is called often, so it should do little."""

    def on_validation_end(self, training: Training) -> None:
        """The validation data are measured; the model is in evaluation mode, without gradients.

        This is also called once before training, with metrics of one batch, to find the names of all metrics.
        """

    def on_epoch_end(self, training: Training) -> None:
        """An epoch has ended, or the training within one; its checkpoint is not yet written."""

    def on_checkpoint(self, training: Training) -> None:
        """Process 0 has written a checkpoint."""

    def on_fit_end(self, training: Training) -> None:
        """The training has ended, by an error or a signal, too."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: numbers, texts, tensors and containers of them."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what a checkpoint has kept."""
