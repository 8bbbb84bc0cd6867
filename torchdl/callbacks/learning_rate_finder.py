"""Find a learning rate by a short training in which it rises step by step (Smith 2017, 1506.01186, section 3.3)."""

from __future__ import annotations

import math
import statistics

from torchdl.callbacks.base import Callback, Training
from torchdl.errors import InputError, require

SMOOTHING = 0.9  # the weight of the earlier losses in the mean
EXPLODED = 4  # times the smallest loss
LEAST = 10  # first steps, whose loss is not yet a mean of several


class LearningRateFinder(Callback):
    """Raise the learning rate of all optimizers from step to step, until the loss explodes.

    Give it to :meth:`torchdl.Trainer.fit` with a model that is not used afterwards.

    Args:
        lowest: The first learning rate.
        highest: The last one, if the loss does not explode before.
        steps: The number of steps from the first to the last.

    Attributes:
        rates: The learning rate of each step.
        losses: The loss of each step, a mean over the last ones; with several optimizers, over theirs, too.

    Raises:
        InputError: The rates do not rise from above 0, or there are too few steps.

    Example:
        >>> x = torch.linspace(-1, 1, 64)[:, None]
        >>> loader = torchdl.BatchLoader(torchdl.ArrayDataset(x, 2 * x), batch_size=8, shuffle=True)
        >>> task = torchdl.Supervised(torch.nn.Linear(1, 1), torch.nn.functional.mse_loss, optimizer=torch.optim.SGD)
        >>> finder = torchdl.LearningRateFinder(1e-3, 100.0)
        >>> _ = torchdl.Trainer(max_steps=100).fit(task, loader, callbacks=[finder])
        >>> 0.001 < finder.suggestion < 1, max(finder.rates) < 100
        (True, True)
    """

    def __init__(self, lowest: float = 1e-6, highest: float = 10.0, steps: int = 100) -> None:
        require(
            0 < lowest < highest < math.inf, f"learning rates must rise from above 0, not from {lowest} to {highest}"
        )
        require(steps > LEAST, f"there must be more than {LEAST} steps, not {steps}")
        self.lowest, self.factor, self.steps = lowest, (highest / lowest) ** (1 / (steps - 1)), steps
        self.rates: list[float] = []
        self.losses: list[float] = []
        self.mean = 0.0

    def on_fit_start(self, training: Training) -> None:
        """Begin with the lowest learning rate."""
        self.set(training, self.lowest)

    def on_step_end(self, training: Training) -> None:
        """Note the loss, and raise the rate."""
        loss = statistics.fmean(value for name, value in training.values.items() if name.endswith("loss"))
        self.mean = SMOOTHING * self.mean + (1 - SMOOTHING) * loss
        smoothed = self.mean / (1 - SMOOTHING ** (len(self.losses) + 1))  # a mean of the steps that there have been
        self.rates.append(next(iter(training.optimizers.values())).param_groups[0]["lr"])
        self.losses.append(smoothed)
        exploded = not math.isfinite(smoothed) or smoothed > min(self.losses) + (EXPLODED - 1) * abs(min(self.losses))
        if exploded and len(self.losses) > LEAST:
            training.stop(f"the loss has exploded at the learning rate {self.rates[-1]:.3g}")
        elif len(self.losses) >= self.steps:
            training.stop(f"the learning rate has reached {self.rates[-1]:.3g}")
        self.set(training, self.lowest * self.factor ** len(self.losses))

    def set(self, training: Training, rate: float) -> None:
        """Set the learning rate of all parameters of a ``training`` to ``rate``."""
        for optimizer in training.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = rate

    @property
    def suggestion(self) -> float:
        """The learning rate at which the loss fell fastest: a good first choice for a schedule's largest rate.

        Raises:
            InputError: The loss never fell, or there were too few steps.
        """
        window = max(2, len(self.losses) // 10)  # steps over which a fall is measured: single ones are noise
        pairs = zip(self.losses[LEAST:], self.losses[LEAST + window :], strict=False)
        falls = [before - after for before, after in pairs]
        if not falls or not max(falls) > 0:
            raise InputError("the loss has not fallen: begin at a lower learning rate, or take more steps")
        return self.rates[LEAST + falls.index(max(falls)) + window // 2]
