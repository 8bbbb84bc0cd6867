"""One step of training: apply each update that a task yields for a group of batches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from torchdl.collective import counting, have_joined, rank_and_size
from torchdl.data.loader import BatchRange
from torchdl.errors import InputError, require
from torchdl.fast.graphs import begin_step
from torchdl.fast.products import NEVER, Region, is_available
from torchdl.tasks import Schedule, StepInfo, Task, Update
from torchdl.tasks.base import updates_of
from torchdl.tasks.optimizers import as_optimizers
from torchdl.tasks.schedules import as_schedules
from torchdl.training import distributed, optimizer_state
from torchdl.training.device import move
from torchdl.training.state import Sums, TrainingState


class TrainingDiverged(InputError):
    """A loss or a gradient norm is not finite; the message states which one, at which step, and what to try.

    Example:
        >>> data = torchdl.ArrayDataset(torch.ones(4, 1), torch.full((4, 1), torch.inf))
        >>> task = torchdl.Supervised(torch.nn.Linear(1, 1), torch.nn.functional.mse_loss)
        >>> torchdl.Trainer().fit(task, torchdl.BatchLoader(data, batch_size=2))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        torchdl.training.step.TrainingDiverged: the loss of the optimizer 'model' is inf at step 1, batch 1 ...
    """


class Measured(NamedTuple):
    """A measured value that is still on its device, with its weight and its place, and the metrics of its batch."""

    optimizer: str
    name: str
    value: Tensor
    weight: int
    step: int
    batch: int
    metrics: Mapping[str, Tensor] = MappingProxyType({})


MEASURED = ("loss", "grad_norm")  # what the trainer itself measures of each optimizer


class Stepper:
    """Do the steps of training: compute a task's losses, update its parameters and collect its metrics.

    Args:
        task: The task, on its device.
        device: That device.
        seed: The seed of all random draws.
        bf16: Whether forward passes run in bfloat16, by autocast.
        clip_norm: The maximum norm of each optimizer's gradients; 0 for no clipping.
        least: The size from which oneDNN computes products; see :func:`torchdl.fast.products.choose`.
    """

    def __init__(
        self, task: Task, device: torch.device, seed: int, bf16: bool, clip_norm: float, least: float = NEVER
    ) -> None:
        self.task, self.device, self.seed, self.bf16, self.clip_norm = task, device, seed, bf16, clip_norm
        self.rank, _ = rank_and_size()
        self.shared_out = False  # whether each process has its part of the parameters
        self.graphs = False  # whether the networks are compiled, on a GPU into CUDA graphs
        self.fast = Region(task, least)
        task.zero_grad()  # what an earlier backward pass has left
        self.optimizers = as_optimizers(task.configure_optimizers())
        rates = self.learning_rates()
        self.initial_rates = {f"initial {tag.removeprefix('charts/')}": rate for tag, rate in rates.items()}
        self.rules = {f"rule of {name!r}": optimizer_state.describe(o) for name, o in self.optimizers.items()}
        self.initial = optimizer_state.of_task(task) | {  # and the optimizers' groups and schedules, at first
            f"group {number} of the optimizer {name!r}": optimizer_state.in_words(group)
            for name, optimizer in self.optimizers.items()
            for number, group in enumerate(optimizer.param_groups, 1)
        }
        self.schedules: dict[str, Schedule] = {}
        self.pending: list[Measured] = []
        self.reserved = {
            self.tag("train", o, name).removeprefix("train/") for o in self.optimizers for name in MEASURED
        }

    def configure_schedules(self, steps: int) -> None:
        """Build the task's schedules for ``steps`` steps in total."""
        self.schedules = as_schedules(self.task.configure_schedules(self.optimizers, steps), self.optimizers)
        for name, schedule in self.schedules.items():
            self.initial[f"the schedule of {name!r}"] = optimizer_state.in_words(schedule.scheduler.state_dict())

    def trainable(self, optimizer: str) -> list[nn.Parameter]:
        """Return an optimizer's parameters that need a gradient now; a task may freeze, unfreeze and add some."""
        groups = self.optimizers[optimizer].param_groups
        return [p for group in groups for p in group["params"] if p.requires_grad]

    def tag(self, group: str, optimizer: str, name: str) -> str:
        """Return the tag of an optimizer's value, without the optimizer's name if it is the only one."""
        return f"{group}/{name}" if len(self.optimizers) == 1 else f"{group}/{optimizer}_{name}"

    def learning_rates(self) -> dict[str, float]:
        """Return every optimizer's learning rate, by tag."""
        rates = {name: optimizer.param_groups[0]["lr"] for name, optimizer in self.optimizers.items()}
        return {self.tag("charts", name, "learning_rate"): float(rate) for name, rate in rates.items()}

    def region(self) -> AbstractContextManager[Any]:
        """Return a context for one forward pass, with autocast to bf16 or with oneDNN's blocks and products.

        Each forward pass needs its own context: autocast would reuse weights that it cast before the last update.
        """
        return torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else self.fast

    def step(self, group: list[tuple[Any, BatchRange]], state: TrainingState) -> None:
        """Apply all updates of the task to a group of batches, by their mean gradients, and count the step."""
        if self.graphs:
            begin_step(self.device)
        total = sum(batch_range.total for _, batch_range in group)
        runs = []
        for batch, batch_range in group:
            step_info = StepInfo(self.seed, state.epoch, state.step, batch_range.start)
            runs.append((updates_of(self.task, move(batch, self.device)), step_info, batch_range.size))
        while self._update(runs, total, state):
            pass
        state.step += 1
        state.batch += len(group)
        for schedule in self.schedules.values():
            if schedule.every == "step":
                schedule.scheduler.step()  # type: ignore[call-arg]

    def _update(self, runs: list[tuple[Iterator[Update], StepInfo, int]], total: int, state: TrainingState) -> bool:
        """Apply the next update to the batches of a group that have one; return False if none has.

        The gradient is the mean over the examples of these batches.
        """
        place = (state.step, state.batch)
        parameters: list[nn.Parameter] = []
        name, loss, examples = "", 0.0, 0
        for losses, self.task.step_info, size in runs:
            with self.region(), counting(size):
                update = next(losses, None)
            if update is None:  # the task skips this batch, or it has no further update
                continue
            self._check(update, name)
            if not name:
                parameters = self.trainable(update.optimizer)
                clean = all(p.grad is None for p in parameters)
                require(clean, "the task has computed gradients, which would count twice: yield the loss alone")
            name = update.optimizer
            weighted = update.loss if size == total else update.loss * (size / total)
            # so the generator's loss leaves no gradient on the discriminator
            weighted.backward(inputs=None if self.shared_out else parameters)
            self.pending.append(Measured(name, "loss", update.loss.detach(), size, *place, update.metrics))
            examples += size
            if self.device.type == "cpu":  # which has no queue to wait for, so it can check at once
                loss += float(self.pending[-1].value)
        name, of_all, loss, some_missing = self._agree(name, parameters, loss, examples)
        if of_all:
            parameters = parameters or self.trainable(name)
            if not self.shared_out:  # else PyTorch has summed them
                distributed.sum_gradients(parameters, some_missing)
            gradients = [p.grad for p in parameters if p.grad is not None]
            if not gradients:
                raise InputError(f"the loss of the optimizer {name!r} depends on none of its parameters")
            if of_all < total:
                torch._foreach_mul_(gradients, total / of_all)
            norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
            of_whole = norm.full_tensor() if self.shared_out else norm
            self.pending.append(Measured(name, "grad_norm", of_whole, examples, *place))
            if self.device.type == "cpu" and not math.isfinite(float(of_whole) + loss):
                self.collect(state)  # raises
            if self.clip_norm:
                torch.nn.utils.clip_grads_with_norm_(parameters, self.clip_norm, norm)
            self.optimizers[name].step()
        for parameter in self.task.parameters() if self.shared_out else parameters:
            parameter.grad = None
        return bool(of_all)

    def _check(self, update: Update, name: str) -> None:
        """Raise :class:`InputError` unless an update can be applied beside one of the optimizer ``name``, if any."""
        given, problem = update.optimizer, ""
        if given not in self.optimizers:
            problem = f"there is no optimizer {given!r}: yield updates of {', '.join(self.optimizers)}"
        elif name not in ("", given):
            problem = f"the batches of a step yield updates of {name!r} and of {given!r}: yield all in the same order"
        elif not self.reserved.isdisjoint(update.metrics):
            taken = ", ".join(self.reserved.intersection(update.metrics))
            problem = f"the trainer itself measures {taken}: give the task's metric another name"
        elif not update.loss.requires_grad:
            problem = f"the loss of the optimizer {given!r} depends on no parameter that is trained"
        require(not problem, problem)

    def _agree(
        self, name: str, parameters: list[nn.Parameter], loss: float, examples: int
    ) -> tuple[str, float, float, bool]:
        """Return, over all processes, the optimizer, the examples, the loss, and whether a gradient may be missing."""
        if not have_joined():
            return name, examples, loss, False
        missing = not name or any(p.grad is None for p in parameters)
        chosen = [float(examples > 0 and name == optimizer) for optimizer in self.optimizers]
        *votes, of_all, loss, some_missing = distributed.total([*chosen, examples, loss, float(missing)])
        names = [optimizer for optimizer, count in zip(self.optimizers, votes, strict=True) if count]
        given = " and of ".join(map(repr, names))
        require(len(names) < 2, f"the processes yield updates of {given}: yield all in the same order")
        return names[0] if names else "", of_all, loss, some_missing > 0

    def _mean(self, value: Any) -> Tensor:
        """Return a measured number, or the mean of several, as a 0-d float tensor on the device."""
        value = torch.as_tensor(value, device=self.device).float()
        return value.mean() if value.dim() else value

    def end_epoch(self, row: Mapping[str, float]) -> None:
        """Step the schedules that step each epoch, and those whose metric is in ``row``."""
        for schedule in self.schedules.values():
            if schedule.monitor is not None and schedule.monitor in row:
                schedule.scheduler.step(row[schedule.monitor])  # type: ignore[arg-type]
            elif schedule.monitor is None and schedule.every == "epoch":
                schedule.scheduler.step()  # type: ignore[call-arg]

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the optimizers and schedules."""
        return {
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "schedules": {name: schedule.scheduler.state_dict() for name, schedule in self.schedules.items()},
            "initial": self.initial,
            "products": self.fast.least,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load a state; raise KeyError or ValueError if it is of other optimizers or schedules."""
        optimizer_state.check_settings(self.initial, state.get("initial", {}))
        self.fast.least = state.get("products", NEVER) if is_available() else NEVER  # as before, to the last bit
        for name, optimizer in self.optimizers.items():
            optimizer_state.load(optimizer, state["optimizers"][name], name)
        for name, schedule in self.schedules.items():
            optimizer_state.load_schedule(schedule.scheduler, state["schedules"][name], name)

    def order_settings(self) -> dict[str, Any]:
        """Return the settings that must not change on a resume, because a checkpoint would restore the old ones."""
        schedules = {
            f"schedule of {name!r}": f"{type(s.scheduler).__name__} {s.settings}" for name, s in self.schedules.items()
        }
        return {"seed": self.seed, **self.initial_rates, **self.rules, **schedules}

    def last_values(self) -> dict[str, float]:
        """Return the values of the last step on this process, by tag; this waits for the device."""
        sums = Sums()
        for measured in self.pending:
            if measured.step == self.pending[-1].step:
                found = {self.tag("train", measured.optimizer, measured.name): measured.value}
                found |= {f"train/{name}": value for name, value in measured.metrics.items()}
                for name, value in found.items():
                    sums.add(name, float(self._mean(value)), measured.weight)
        return {name: value / weight for name, (value, weight) in sums.items() if weight}

    def collect(self, state: TrainingState) -> None:
        """Add the values measured since the last call to the state; only this method waits for the device.

        Raises:
            TrainingDiverged: A loss or a gradient norm is not finite.
        """
        main = [(m, self.tag("train", m.optimizer, m.name), m.value) for m in self.pending]
        metrics = [(m, f"train/{name}", value) for m in self.pending for name, value in m.metrics.items()]
        self.pending.clear()
        values = torch.stack([self._mean(value) for _, _, value in main + metrics]).tolist() if main else []
        with distributed.sharing_errors():
            for number, ((measured, tag, _), value) in enumerate(zip(main + metrics, values, strict=True)):
                if number < len(main) and not math.isfinite(value):
                    raise TrainingDiverged(
                        f"the {measured.name} of the optimizer {measured.optimizer!r} is {value} at step "
                        f"{measured.step + 1}, batch {measured.batch + 1} of epoch {state.epoch + 1}: lower the "
                        "learning rate, clip the gradients or inspect that batch; checkpoints are from earlier steps"
                    )
                state.epoch_sums.add(tag, value, measured.weight)
                state.window_sums.add(tag, value, measured.weight)
