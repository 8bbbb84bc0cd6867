"""Stop a training that gets no better."""

from __future__ import annotations

from torchdl.callbacks.base import Training
from torchdl.callbacks.best import Best, Monitoring
from torchdl.errors import require


class EarlyStopping(Monitoring):
    """Stop when a metric has not improved for a number of evaluations.

    Args:
        monitor: The metric, such as ``val/loss``.
        patience: The number of evaluations, 1 or more.
        mode: Whether a lower (min) or a higher value (max) is better; auto tells by the metric's name: see
            :func:`torchdl.callbacks.best.direction`.

    Raises:
        InputError: The patience is less than 1.

    Example:
        >>> loader = torchdl.BatchLoader(torchdl.ArrayDataset(torch.ones(4, 1), torch.ones(4, 1)), 2)
        >>> task = torchdl.Supervised(torch.nn.Linear(1, 1), torch.nn.functional.mse_loss)
        >>> stopping = torchdl.EarlyStopping("val/loss", patience=2, mode="max")  # a loss that falls is no better
        >>> len(torchdl.Trainer(epochs=9).fit(task, loader, loader, callbacks=[stopping]))
        3
    """

    def __init__(self, monitor: str, patience: int, mode: str = "auto") -> None:
        require(patience >= 1, f"patience must be 1 or more, not {patience}")
        super().__init__(monitor, mode)
        self.patience = patience

    def on_fit_start(self, training: Training) -> None:
        """Do not go on with a training that was stopped."""
        self.on_epoch_end(training)

    def on_epoch_end(self, training: Training) -> None:
        """Stop if the last evaluations were no better."""
        if Best.of(training.history, self.monitor, self.mode).since >= self.patience:
            training.stop(f"stopped early: {self.monitor} has not improved for {self.patience} evaluations")
