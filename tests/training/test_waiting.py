"""No step waits for a GPU, as far as a CPU can show it: none asks for a number, or brings one from the CPU."""

from __future__ import annotations

import pytest
import torch
from helpers.resuming import EPOCH, TASKS, classifier, fit
from torch.utils._python_dispatch import TorchDispatchMode

from torchdl import WeightAverage
from torchdl.data.loader import EpochBatches
from torchdl.training import step

#: Operations that copy a GPU's numbers to the CPU, or a list's to a GPU
WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "lift_fresh", "scalar_tensor", "unique"}


class Waits(TorchDispatchMode):
    """Note the operations that would wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        masks = name == "index" and any(i is not None and i.dtype == torch.bool for i in args[1])
        self.found += [name] if name in WAITING or masks else []
        return function(*args, **(kwargs or {}))


@pytest.fixture
def waits(monkeypatch):
    """Note them in every step but the first, as if it were on a GPU, in making its batch and in averaging weights."""
    mode, make, do, average = Waits(), EpochBatches.__getitem__, step.Stepper.step, WeightAverage.on_step_end

    def watched(function):
        def run(*args):
            with mode:
                return function(*args)

        return run

    def watched_step(stepper, group, state):
        if state.step == 0:  # on a CPU, Adam then looks which parameters have the same number of steps
            return do(stepper, group, state)
        before, stepper.device = stepper.device, torch.device("cuda", 0)
        with mode:
            do(stepper, group, state)
        stepper.device = before
        return None

    monkeypatch.setattr(step, "move", lambda batch, device: batch)
    monkeypatch.setattr(step.Stepper, "step", watched_step)
    monkeypatch.setattr(EpochBatches, "__getitem__", watched(make))
    monkeypatch.setattr(WeightAverage, "on_step_end", watched(average))
    return mode


@pytest.mark.parametrize("name", TASKS)
def test_no_step_of_a_task_waits(waits, name):
    fit(TASKS[name](), None, epochs=1, log_every=EPOCH + 1, clip_norm=1.0)
    assert waits.found == []


def test_a_step_that_waits_is_found(waits):
    task = classifier()
    task.metrics["waits"] = lambda output, target: output[:, 0] > float(output.mean())
    fit(task, None, epochs=1, log_every=EPOCH + 1)
    assert waits.found == ["_local_scalar_dense"] * (EPOCH - 1)
