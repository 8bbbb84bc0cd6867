"""Find a learning rate by a short training in which it rises step by step (Smith 2017, 1506.01186, section 3.3)."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch

from torchdl.callbacks.base import Callback, Training
from torchdl.collective import sum_over_processes
from torchdl.errors import InputError, require

SMOOTHING = 0.9  # the weight of the earlier losses in the mean
EXPLODED = 4  # times the smallest loss
LEAST = 10  # first steps, whose loss is not yet a mean of several


class LearningRateFinder(Callback):
    """Raise the learning rate of all optimizers from step to step, until the loss explodes.

    The rates take the place of those of the task's schedules. At the end the model has the weights of the beginning.

    Args:
        lowest: The first learning rate.
        highest: The last one, if the loss does not explode before.
        steps: The number of steps from the first to the last.

    Attributes:
        rates: The learning rate of each step.
        losses: The loss of each step, a mean over the last ones; with several optimizers and processes, over theirs,
            too.
        ended: Whether the rates have risen to the end: to the highest one, or until the loss has exploded.

    Raises:
        InputError: The rates do not rise from above 0, or there are too few steps, or more than in the training.

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
        self.mean, self.ended = 0.0, False
        self.weights: dict[str, Any] = {}

    def on_fit_start(self, training: Training) -> None:
        """Begin with the lowest learning rate; raise :class:`InputError` if the training is too short."""
        left = training.steps - training.step
        too_long = f"the learning rate rises for {self.steps} steps, but the training ends after {left}"
        require(left >= self.steps, f"{too_long}: train for longer, or give the finder fewer steps")
        self.rates, self.losses, self.mean, self.ended = [], [], 0.0, False
        self.weights = copy.deepcopy(training.task.state_dict())
        self.set(training)

    def on_step_end(self, training: Training) -> None:
        """Note the loss, and raise the rate."""
        found = [value for name, value in training.values.items() if name.endswith("loss")]
        total, count = sum_over_processes(torch.tensor([sum(found), len(found)], device=training.device)).tolist()
        self.mean = SMOOTHING * self.mean + (1 - SMOOTHING) * total / count
        smoothed = self.mean / (1 - SMOOTHING ** (len(self.losses) + 1))  # a mean of the steps that there have been
        self.rates.append(self.rate)
        self.losses.append(smoothed)
        exploded = not math.isfinite(smoothed) or smoothed > min(self.losses) + (EXPLODED - 1) * abs(min(self.losses))
        exploded = exploded and len(self.losses) > LEAST
        self.ended = exploded or len(self.losses) >= self.steps
        if self.ended:
            reason = "loss has exploded at the learning rate" if exploded else "learning rate has reached"
            training.stop(f"the {reason} {self.rates[-1]:.3g}")
        self.set(training)

    def on_epoch_end(self, training: Training) -> None:
        """Set the rate again, after the schedules that step now."""
        self.set(training)

    def on_fit_end(self, training: Training) -> None:
        """Load the weights of the beginning."""
        if self.weights:
            training.load_weights(self.weights)
        self.weights = {}

    @property
    def rate(self) -> float:
        """The learning rate of the next step."""
        return self.lowest * self.factor ** len(self.losses)

    def set(self, training: Training) -> None:
        """Set the learning rate of all parameters of a ``training``."""
        for optimizer in training.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = self.rate

    @property
    def suggestion(self) -> float:
        """The learning rate at which the loss fell fastest: a good first choice for a schedule's largest rate.

        Raises:
            InputError: There was no training yet, or the loss never fell.
        """
        require(bool(self.losses), "there are no losses yet: give the finder to Trainer.fit as a callback")
        window = max(2, len(self.losses) // 10)  # steps over which a fall is measured: single ones are noise
        pairs = zip(self.losses[LEAST:], self.losses[LEAST + window :], strict=False)
        falls = [before - after for before, after in pairs]
        if not falls or not max(falls) > 0:
            raise InputError("the loss has not fallen: begin at a lower learning rate, or take more steps")
        return self.rates[LEAST + falls.index(max(falls)) + window // 2]
