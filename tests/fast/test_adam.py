from __future__ import annotations

import copy
import math
import pickle
import warnings

import pytest
import torch
from helpers import gaussian
from torch import nn
from torch.optim import lr_scheduler
from torch.optim.optimizer import register_optimizer_step_pre_hook

from torchdl import InputError
from torchdl.fast.adam import Adam
from torchdl.tasks import make_optimizer

SHAPES = [(4, 3), (4,), (2, 4), (2,)]


class Run:
    """Some parameters under an optimizer, with gradients that depend on the step and the parameter alone."""

    def __init__(self, cls=Adam, groups: bool = False, **kwargs) -> None:
        self.parameters = [nn.Parameter(gaussian(*shape, seed=i)) for i, shape in enumerate(SHAPES)]
        kwargs = {"lr": 1e-2, "fused": True} | kwargs
        split = [{"params": self.parameters[:1]}, {"params": self.parameters[1:], "lr": 3e-3, "weight_decay": 0.2}]
        self.optimizer = cls(split if groups else self.parameters, **kwargs)
        self.done = 0

    def steps(self, count: int, missing: int | None = None) -> Run:
        for _ in range(count):
            for i, parameter in enumerate(self.parameters):
                fresh = gaussian(*parameter.shape, seed=1000 + 10 * self.done + i)
                parameter.grad = None if i == missing else fresh
            self.optimizer.step()
            self.done += 1
        return self

    def counts(self) -> list[float]:
        return [float(self.optimizer.state[p]["step"]) for p in self.parameters]


def check_equal(a: Run, b: Run) -> None:
    for p, q in zip(a.parameters, b.parameters, strict=True):
        assert torch.equal(p, q)
        for key in ("exp_avg", "exp_avg_sq", "step"):
            assert torch.equal(a.optimizer.state[p][key], b.optimizer.state[q][key]), key


def both(**kwargs) -> tuple[Run, Run]:
    return Run(Adam, **kwargs), Run(torch.optim.Adam, **kwargs)


@pytest.mark.parametrize(
    "kwargs", [{}, {"weight_decay": 0.1}, {"betas": (0.0, 0.5)}, {"groups": True}, {"eps": 1e-3}], ids=str
)
def test_thirty_steps_equal_pytorchs_to_the_bit_with_the_rate_changed_in_between(kwargs):
    ours, theirs = both(**kwargs)
    start = [p.clone() for p in ours.parameters]
    for run in (ours, theirs):
        run.steps(15)
        for group in run.optimizer.param_groups:
            group["lr"] *= 0.37
        run.steps(15)
    check_equal(ours, theirs)
    assert all(not torch.equal(p, q) for p, q in zip(ours.parameters, start, strict=True))
    assert ours.counts() == [30] * 4


@pytest.mark.parametrize("kwargs", [{"amsgrad": True}, {"maximize": True}, {"fused": False}], ids=str)
def test_what_is_not_the_plain_case_equals_pytorchs(kwargs):
    ours, theirs = both(**kwargs)
    ours.steps(5)
    theirs.steps(5)
    check_equal(ours, theirs)


@pytest.mark.parametrize("groups", [False, True])
def test_a_missing_gradient_in_between_leaves_that_parameter_behind_as_pytorch_does(groups):
    ours, theirs = both(groups=groups)
    for run in (ours, theirs):
        run.steps(3).steps(2, missing=1).steps(2, missing=3).steps(5)
    assert ours.counts() == [12, 10, 12, 10]
    check_equal(ours, theirs)


def test_a_gradient_missing_from_the_start_equals_pytorchs():
    ours, theirs = both()
    for run in (ours, theirs):
        run.steps(3, missing=0).steps(4)
    assert ours.counts() == [4, 7, 7, 7]
    check_equal(ours, theirs)


def test_parameters_added_in_between_are_trained_too():
    ours, theirs = both()
    for run in (ours, theirs):
        run.steps(3)
        run.parameters.append(nn.Parameter(gaussian(5, seed=77)))
        run.optimizer.add_param_group({"params": run.parameters[-1:], "lr": 0.1})
        run.steps(4)
    assert ours.counts() == [7, 7, 7, 7, 4]
    check_equal(ours, theirs)


def test_a_closure_is_called_and_its_loss_returned():
    ours, theirs = both()
    for run in (ours, theirs):
        run.steps(3)
        assert run.optimizer.step(lambda: 1.5) == 1.5
        run.steps(3)
    check_equal(ours, theirs)


def through_a_file(state: dict, path) -> dict:
    torch.save(state, path)
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize("file", [False, True], ids=["in memory", "in a file"])
@pytest.mark.parametrize(
    ("source", "target"),
    [(Adam, Adam), (torch.optim.Adam, Adam), (Adam, torch.optim.Adam)],
    ids=["ours to ours", "theirs to ours", "ours to theirs"],
)
@pytest.mark.parametrize("steps", [1, 6])
def test_a_state_saved_in_between_goes_on_as_if_nothing_had_been(tmp_path, source, target, file, steps):
    before = Run(source).steps(steps)
    state = before.optimizer.state_dict()
    state = through_a_file(state, tmp_path / "state.pt") if file else copy.deepcopy(state)
    after = Run(target)
    with torch.no_grad():
        for p, q in zip(after.parameters, before.parameters, strict=True):
            p.copy_(q)
    after.optimizer.load_state_dict(state)
    after.done = before.done
    after.steps(6)
    reference = Run(torch.optim.Adam).steps(steps + 6)
    assert after.counts() == reference.counts()
    check_equal(after, reference)


def test_a_state_loaded_into_an_optimizer_that_has_stepped_replaces_its_own():
    donor, ours = Run(Adam).steps(6), Run(Adam).steps(9)
    with torch.no_grad():
        for p, q in zip(ours.parameters, donor.parameters, strict=True):
            p.copy_(q)
    ours.optimizer.load_state_dict(donor.optimizer.state_dict())
    ours.done = 6
    ours.steps(4)
    assert donor.counts() == [6] * 4  # not counted up with the other's
    check_equal(ours, Run(torch.optim.Adam).steps(10))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda run: pickle.loads(pickle.dumps(run))], ids=["copy", "pickle"])
def test_a_copy_goes_on_as_the_original(copied):
    other = copied(Run(Adam).steps(5))
    check_equal(other.steps(5), Run(torch.optim.Adam).steps(10))


def test_hooks_are_called_around_every_step_until_they_are_removed():
    ours, theirs = both()
    calls: list[str] = []
    ours.steps(3)
    before = ours.optimizer.register_step_pre_hook(lambda *args: calls.append("before"))
    after = ours.optimizer.register_step_post_hook(lambda *args: calls.append("after"))
    ours.steps(2)
    assert calls == ["before", "after"] * 2
    before.remove()
    after.remove()
    ours.steps(2)
    assert len(calls) == 4
    check_equal(ours, theirs.steps(7))


def test_hooks_of_all_optimizers_are_called_at_every_step():
    calls: list[int] = []
    handle = register_optimizer_step_pre_hook(lambda *args: calls.append(1))
    try:
        Run(Adam).steps(4)
    finally:
        handle.remove()
    assert len(calls) == 4


def test_a_gradient_scaler_unscales_and_skips_infinite_gradients_as_with_pytorchs():
    runs = both()
    for run in runs:
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        for factor in (1.0, 2.0, math.inf, 3.0):
            run.optimizer.zero_grad()
            scaler.scale(factor * sum(p.square().sum() for p in run.parameters)).backward()
            scaler.step(run.optimizer)
            scaler.update()
    check_equal(*runs)


SCHEDULERS = {
    "step": lambda o: lr_scheduler.StepLR(o, 2, 0.1),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, 10),
    "lambda": lambda o: lr_scheduler.LambdaLR(o, lambda k: 1 / (1 + k)),
    "plateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0),
}


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_schedulers_change_the_rate_without_a_warning(kind):
    runs = both()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for run in runs:
            scheduler = SCHEDULERS[kind](run.optimizer)
            for _ in range(6):
                run.steps(1)
                scheduler.step(*([1.0] if kind == "plateau" else []))
    assert runs[0].optimizer.param_groups[0]["lr"] == runs[1].optimizer.param_groups[0]["lr"] < 1e-2
    check_equal(*runs)


@pytest.mark.parametrize("groups", [False, True])
def test_frozen_and_unfrozen_parameters_equal_pytorchs_to_the_bit(groups, monkeypatch):
    runs = both(groups=groups)
    for frozen in ([0], [0], [1, 3], [], [2], [0, 1, 2, 3], [1, 2, 3], []):
        for run in runs:
            for i, parameter in enumerate(run.parameters):
                parameter.requires_grad_(i not in frozen)
            for _ in range(3):
                for i, parameter in enumerate(run.parameters):
                    fresh = gaussian(*parameter.shape, seed=1000 + 10 * run.done + i)
                    parameter.grad = None if i in frozen else fresh
                if run.done == 5:  # the kernel alone can do this step
                    monkeypatch.setattr(Adam, "_torch_step", None)
                run.optimizer.step()
                monkeypatch.undo()
                run.done += 1
    check_equal(*runs)


def test_adam_by_name_is_fused_adam():
    linear = nn.Linear(3, 2, bias=False)
    optimizer = make_optimizer("adam", linear.parameters(), 1e-3, 0.01, betas=(0.5, 0.9))
    (group,) = optimizer.param_groups
    assert [id(p) for p in group["params"]] == [id(linear.weight)]
    assert (group["lr"], group["betas"], group["weight_decay"], group["fused"]) == (1e-3, (0.5, 0.9), 0.01, True)


@pytest.mark.parametrize(
    ("kwargs", "named"),
    [
        (dict(lr=math.nan), "learning rate.*nan"),
        (dict(lr=math.inf), "learning rate.*inf"),
        (dict(lr=0.0), "learning rate.*0.0"),
        (dict(lr=-1e-3), "learning rate.*-0.001"),
        (dict(lr=1e-3, betas=(1.0, 0.9)), "betas.*1.0 and 0.9"),
        (dict(lr=1e-3, betas=(-0.1, 0.9)), "betas.*-0.1 and 0.9"),
        (dict(lr=1e-3, betas=(0.9, 1.0)), "betas.*0.9 and 1.0"),
        (dict(lr=1e-3, betas=(0.9, math.nan)), "betas.*0.9 and nan"),
        (dict(lr=1e-3, weight_decay=-0.1), "weight_decay.*-0.1"),
        (dict(lr=1e-3, weight_decay=math.inf), "weight_decay.*inf"),
    ],
)
def test_adam_refuses_numbers_that_cannot_be(kwargs, named):
    with pytest.raises(InputError, match=named):
        make_optimizer("adam", nn.Linear(1, 1).parameters(), **kwargs)
