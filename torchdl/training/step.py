"""One step of training: every update that a task yields, applied in turn to a group of batches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchdl.collective import rank_and_size
from torchdl.data.loader import BatchRange
from torchdl.errors import InputError
from torchdl.fast.blocks import blocked
from torchdl.tasks import Schedule, StepInfo, Task, Update
from torchdl.training import distributed
from torchdl.training.device import move, seed_generators
from torchdl.training.progress import Progress


class TrainingDiverged(InputError):
    """A loss or a gradient norm is no longer finite; the sentence says which, where, and what to try.

    Example:
        >>> data = torchdl.ArrayDataset(torch.ones(4, 1), torch.full((4, 1), torch.inf))
        >>> task = torchdl.Supervised(torch.nn.Linear(1, 1), torch.nn.functional.mse_loss)
        >>> torchdl.Trainer().fit(task, torchdl.BatchLoader(data, batch_size=2))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        torchdl.training.step.TrainingDiverged: the loss of the optimizer 'model' is inf at step 1, batch 1 ...
    """


class Measured(NamedTuple):
    """A number still on its device, with its weight, where it was measured, and what was measured beside it."""

    optimizer: str
    name: str
    value: Tensor
    weight: int
    step: int
    batch: int
    metrics: Mapping[str, Tensor] = MappingProxyType({})


def rule_of(optimizer: torch.optim.Optimizer) -> str:
    """Name what an optimizer does: its class, with the settings that a checkpoint would silently bring back."""
    group = optimizer.param_groups[0]
    settings = {key: group[key] for key in ("momentum", "nesterov", "betas") if group.get(key)}
    if decay := max(group.get("weight_decay", 0) for group in optimizer.param_groups):
        settings["weight_decay"] = decay
    return f"{type(optimizer).__name__}({', '.join(f'{key}={value}' for key, value in settings.items())})"


class Updates:
    """Apply a task's updates and keep what they measure.

    Args:
        task: The task, on its device.
        device: That device.
        seed: What random draws derive from.
        bf16: Whether forward passes run in bfloat16, by autocast.
        clip_norm: The norm that an optimizer's gradients are scaled down to; 0 for never.
    """

    def __init__(self, task: Task, device: torch.device, seed: int, bf16: bool, clip_norm: float) -> None:
        self.task, self.device, self.seed, self.bf16, self.clip_norm = task, device, seed, bf16, clip_norm
        self.rank, _ = rank_and_size()
        self.optimizers = task.configure_optimizers()
        self.parameters = {
            name: [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
            for name, optimizer in self.optimizers.items()
        }
        # what a checkpoint's optimizers would silently bring back
        self.rates = {f"initial {key.removeprefix('charts/')}": rate for key, rate in self.learning_rates().items()}
        self.schedules: dict[str, Schedule] = {}
        self.pending: list[Measured] = []

    def tag(self, group: str, optimizer: str, name: str) -> str:
        """Name an optimizer's number; its own name is left out where it is the only one."""
        return f"{group}/{name}" if len(self.optimizers) == 1 else f"{group}/{optimizer}_{name}"

    def learning_rates(self) -> dict[str, float]:
        """Return every optimizer's learning rate by tag."""
        rates = {name: optimizer.param_groups[0]["lr"] for name, optimizer in self.optimizers.items()}
        return {self.tag("charts", name, "learning_rate"): float(rate) for name, rate in rates.items()}

    def region(self) -> AbstractContextManager[Any]:
        """Open a region for a forward pass, of bf16 or of oneDNN's blocks where a network likes them.

        Each needs its own: within one of bf16, a second forward would reuse weights cast before the first step.
        """
        return torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else blocked()

    def step(self, group: list[tuple[Any, BatchRange]], progress: Progress) -> None:
        """Do every update of the task on a group of batches, whose gradients are added up, and count the step."""
        seed_generators(self.device, self.seed, progress.epoch, progress.batch, self.rank)
        total = sum(span.total for _, span in group)
        runs = []
        for batch, span in group:
            step_info = StepInfo(self.seed, progress.epoch, progress.step, span.start)
            runs.append((self.task.losses(move(batch, self.device)), step_info, span.size))
        while self._update(runs, total, progress):
            pass
        progress.step += 1
        progress.batch += len(group)
        for schedule in self.schedules.values():
            if schedule.every == "step":
                schedule.scheduler.step()  # type: ignore[call-arg]

    def _update(self, runs: list[tuple[Iterator[Update], StepInfo, int]], total: int, progress: Progress) -> bool:
        """Do the next update of all batches of the group together; False when there is none left."""
        where = (progress.step, progress.batch)
        for losses, self.task.step_info, count in runs:
            with self.region():
                update = next(losses, None)
            if update is None:
                return False
            name, parameters = update.optimizer, self.parameters[update.optimizer]
            share = update.loss if count == total else update.loss * (count / total)
            share.backward(inputs=parameters)  # so the generator's loss leaves no gradient on the discriminator
            self.pending.append(Measured(name, "loss", update.loss.detach(), count, *where, update.metrics))
        distributed.sum_gradients(parameters)
        gradients = [p.grad for p in parameters if p.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        loss = self.pending[-1].value
        self.pending.append(Measured(name, "grad_norm", norm, total, *where))
        if self.device.type == "cpu" and not math.isfinite(float(norm) + float(loss)):
            self.collect(progress)  # on a CPU there is nothing to wait for, so a bad number stops the run at once
        if self.clip_norm:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.clip_norm, norm)
        self.optimizers[name].step()
        for parameter in parameters:
            parameter.grad = None
        return True

    def end_epoch(self, row: Mapping[str, float]) -> None:
        """Step the schedules of epochs, and those that follow a metric with its value in ``row`` if it is there."""
        for schedule in self.schedules.values():
            if schedule.monitor is not None and schedule.monitor in row:
                schedule.scheduler.step(row[schedule.monitor])  # type: ignore[arg-type]
            elif schedule.monitor is None and schedule.every == "epoch":
                schedule.scheduler.step()  # type: ignore[call-arg]

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """Return the state of the optimizers and schedules."""
        return {
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "schedules": {name: schedule.scheduler.state_dict() for name, schedule in self.schedules.items()},
        }

    def load_state_dict(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        """Take a state; KeyError or ValueError where it is of other optimizers or schedules."""
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        for name, schedule in self.schedules.items():
            schedule.scheduler.load_state_dict(state["schedules"][name])

    def order_settings(self) -> dict[str, Any]:
        """Return the seed, the rules, their initial rates and the schedules, to be compared."""
        rules = {f"rule of {name!r}": rule_of(optimizer) for name, optimizer in self.optimizers.items()}
        schedules = {
            f"schedule of {name!r}": f"{type(s.scheduler).__name__} {s.settings}" for name, s in self.schedules.items()
        }
        return {"seed": self.seed, **self.rates, **rules, **schedules}

    def collect(self, progress: Progress) -> None:
        """Add the numbers measured since the last time to the progress: the one place that waits for the device.

        Raises:
            TrainingDiverged: One of them is not finite; it says which, and where.
        """
        noted = [(m, self.tag("train", m.optimizer, m.name), m.value) for m in self.pending]
        noted += [(m, f"train/{name}", value) for m in self.pending for name, value in m.metrics.items()]
        values = torch.stack([value.float() for _, _, value in noted]).tolist() if noted else []
        for (measured, tag, _), value in zip(noted, values, strict=True):
            if tag[6:] not in measured.metrics and not math.isfinite(value):
                raise TrainingDiverged(
                    f"the {measured.name} of the optimizer {measured.optimizer!r} is {value} at step "
                    f"{measured.step + 1}, batch {measured.batch + 1} of epoch {progress.epoch + 1}: lower the "
                    "learning rate, clip the gradients or look at that batch; the checkpoints are from before it"
                )
            progress.epoch_sums.add(tag, value, measured.weight)
            progress.window_sums.add(tag, value, measured.weight)
        self.pending.clear()
