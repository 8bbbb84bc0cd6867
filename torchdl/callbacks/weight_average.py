"""A moving average of a model's weights, which often predicts better than the last ones (Polyak and Juditsky 1992)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from torchdl.callbacks.base import Callback, Training
from torchdl.errors import kind_of, require


class WeightAverage(Callback):
    """Keep an exponential moving average of a module's weights and buffers, updated after each step.

    The first update copies the weights. The decay of a later one, with n before it, is the smaller of ``decay`` and
    (1 + n) / (10 + n), as in TensorFlow's ExponentialMovingAverage, so the first weights soon lose their influence.

    Args:
        module: The module that is trained.
        decay: The largest decay of the average, such as 0.999, in [0, 1); 0.999 is reached after about 9,000 updates.
        every: The number of steps between two updates.

    Attributes:
        averaged: PyTorch's ``AveragedModel`` of the module; ``averaged.module`` is a module with the averages.

    Raises:
        InputError: A number is outside its range.

    Example:
        >>> model = torch.nn.Linear(1, 1)
        >>> average = torchdl.WeightAverage(model, 0.99)
        >>> loader = torchdl.BatchLoader(torchdl.ArrayDataset(torch.ones(8, 1), torch.ones(8, 1)), batch_size=2)
        >>> task = torchdl.Supervised(model, torch.nn.functional.mse_loss)
        >>> history = torchdl.Trainer(epochs=1).fit(task, loader, callbacks=[average])
        >>> average.averaged.module(torch.zeros(3, 1)).shape, int(average.averaged.n_averaged)
        (torch.Size([3, 1]), 4)
    """

    def __init__(self, module: nn.Module, decay: float, every: int = 1) -> None:
        require(isinstance(module, nn.Module), f"WeightAverage averages a torch.nn.Module, not {kind_of(module)}")
        require(0 <= decay < 1, f"the decay of an average must be in [0, 1), not {decay}")
        require(every >= 1, f"the steps between two updates of an average must be 1 or more, not {every}")
        self.source, self.decay, self.every, self.in_task = module, decay, every, False
        self.averaged = AveragedModel(module, use_buffers=True)

    def on_fit_start(self, training: Training) -> None:
        """Put the average on the device.

        Raises:
            InputError: The module is none of the task's, so it would not be trained.
        """
        there = any(module is self.source for module in training.task.modules())
        require(there, "WeightAverage averages a module of the task; with shard, which trains a copy, the task's own")
        self.averaged.to(training.device)
        self.in_task = any(module is self.averaged for module in training.task.modules())  # which is saved already

    def on_step_end(self, training: Training) -> None:
        """Update the average."""
        if (training.step - 1) % self.every == 0:
            self.update()

    def update(self) -> None:
        """Update the average, as ``AveragedModel.update_parameters`` does, without waiting for the device."""
        averages, tensors = (
            [tensor.detach() for tensor in (*module.parameters(), *module.buffers())]
            for module in (self.averaged.module, self.source)
        )
        average_(self.decay, averages, tensors, self.averaged.n_averaged)
        self.averaged.n_averaged += 1

    def state_dict(self) -> dict[str, Any]:
        """Return the average, unless the task's own state has it."""
        return {} if self.in_task else self.averaged.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the average."""
        self.averaged.load_state_dict(state)


@torch.no_grad()
def average_(decay: float, averages: Sequence[Tensor], tensors: Sequence[Tensor], updates: Tensor) -> None:
    """Update moving averages of tensors, in place.

    The decay of update n is min(``decay``, (1 + n) / (10 + n)), as in TensorFlow's ExponentialMovingAverage, so the
    initial weights soon lose their influence. The first update copies the tensors.
    """
    weight = (1 - (1 + updates) / (10 + updates)).clamp(min=1 - decay).masked_fill(updates == 0, 1.0)
    for average, tensor in zip(averages, tensors, strict=True):
        if average.is_floating_point():
            average.lerp_(tensor.to(average.dtype), weight.to(average.dtype))
        else:
            average.copy_(tensor)  # a counter
