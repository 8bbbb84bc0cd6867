from __future__ import annotations

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from helpers import fill_, gaussian
from torch import nn
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    CosineAnnealingLR,
    ExponentialLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)

from torchdl import BatchLoader, ImageDataset, InputError, Supervised, Trainer
from torchdl.tasks import SCHEDULES, Schedule, make_optimizer
from torchdl.tasks.schedules import constant, cosine, linear, milestones, one_cycle

pytestmark = pytest.mark.usefixtures("quick")
STEPS = [1, 2, 3, 4, 5, 8, 99, 1000]
DATA = ImageDataset((128 + 50 * gaussian(26, 1, 4, 4)).clamp(0, 255).to(torch.uint8), torch.arange(26) % 3, -1, 1)


def rates(schedule, steps: int, lr: float = 0.5) -> list[float]:
    """Give the rate of every step, and the one after the last."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    made, found = schedule(optimizer, steps), []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if made is not None:
            assert made.every == "step"
            made.scheduler.step()
    return [*found, optimizer.param_groups[0]["lr"]]


def classifier(optimizer=None, **options) -> Supervised:
    layers = nn.Flatten(), nn.Linear(16, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.5), nn.Linear(12, 3)
    optimizer = optimizer or partial(make_optimizer, "adamw", lr=1e-2, weight_decay=0.1)
    return Supervised(fill_(nn.Sequential(*layers)), F.cross_entropy, optimizer=optimizer, **options)


def fit(task: Supervised, folder=None, resume: bool = False, **options):
    """Train, seven steps an epoch."""
    loaders = BatchLoader(DATA, 4, shuffle=True), BatchLoader(DATA, 13)
    return Trainer(device="cpu", **{"log_every": 1, **options}).fit(task, *loaders, folder, resume=resume)


# closed forms


@pytest.mark.parametrize("steps", STEPS)
def test_cosine_is_half_a_cosine_from_the_rate_to_nothing(steps):
    expected = [0.5 * (1 + math.cos(math.pi * k / steps)) / 2 for k in range(steps + 1)]
    assert rates(cosine, steps) == pytest.approx(expected, abs=1e-7)


def test_cosine_without_a_step_can_be_made():
    assert rates(cosine, 0) == [0.5]


@pytest.mark.parametrize("steps", [4, 5, 8, 99, 1000])
def test_one_cycle_rises_over_a_quarter_and_falls_to_nothing(steps):
    found, top = rates(one_cycle, steps), 0.25 * (steps + 1) - 1

    def between(start: float, end: float, share: float) -> float:
        return end + (start - end) * (1 + math.cos(math.pi * share)) / 2

    rising = [between(0.5 / 25, 0.5, k / top) for k in range(steps + 1) if k <= top]
    falling = [between(0.5, 0.0, (k - top) / (steps - top)) for k in range(steps + 1) if k > top]
    assert found == pytest.approx(rising + falling, abs=1e-5)
    assert found[0] == pytest.approx(0.02)
    assert abs(found.index(max(found)) - steps / 4) <= 1
    assert max(found) <= 0.5 + 1e-9
    assert found[-1] < 1e-5


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_one_cycle_of_a_few_steps_learns_in_each_and_ends_at_nothing(steps):
    found = rates(one_cycle, steps)
    assert len(found) == steps + 1
    assert 0.1 < max(found) <= 0.5 + 1e-9
    assert all(rate >= 0.02 - 1e-9 for rate in found[:-1])
    assert found[-1] < 1e-5


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5])
def test_every_number_of_steps_can_be_trained_with_every_schedule(name, steps):
    assert fit(classifier(schedule=SCHEDULES[name]), max_steps=steps)[-1]["step"] == steps


def test_one_cycle_has_each_groups_own_peak_and_leaves_the_momentum_alone():
    one, other = (nn.Parameter(torch.zeros(1)) for _ in range(2))
    optimizer = torch.optim.Adam([{"params": [one], "lr": 1.0}, {"params": [other], "lr": 0.1}], betas=(0.7, 0.99))
    schedule, seen = one_cycle(optimizer, 19), []
    for _ in range(19):
        seen.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.scheduler.step()
        assert all(group["betas"] == (0.7, 0.99) for group in optimizer.param_groups)
    assert all(second == pytest.approx(first / 10) for first, second in seen)
    assert max(seen) == pytest.approx([1.0, 0.1])


def test_linear_falls_by_the_same_amount_each_step():
    assert rates(linear, 5) == pytest.approx([0.5, 0.4, 0.3, 0.2, 0.1, 0.0])


def test_constant_is_no_schedule():
    assert rates(constant, 5) == [0.5] * 6
    assert list(SCHEDULES) == ["constant", "cosine", "linear", "one_cycle"]


# what a trainer does with them


@pytest.mark.parametrize(
    ("name", "steps"), [("constant", 14), ("cosine", 14), ("cosine", 9), ("linear", 9), ("one_cycle", 14)]
)
def test_the_history_has_the_rate_that_follows_each_epochs_last_step(name, steps):
    history = fit(classifier(schedule=SCHEDULES[name]), max_steps=steps)
    expected = rates(SCHEDULES[name], steps, lr=1e-2)
    assert [row["step"] for row in history] == [7, steps]
    assert [row["charts/learning_rate"] for row in history] == pytest.approx([expected[7], expected[steps]], rel=1e-6)


def test_the_schedule_sets_the_rate_that_every_step_is_taken_with():
    used = []

    def spied(parameters):
        optimizer = make_optimizer("adamw", parameters, 1e-2, 0.1)
        optimizer.register_step_pre_hook(lambda o, *_: used.append([group["lr"] for group in o.param_groups]))
        return optimizer

    fit(classifier(spied, schedule=one_cycle), epochs=2)
    expected = rates(one_cycle, 14, lr=1e-2)[:-1]
    assert used == [pytest.approx([rate, rate]) for rate in expected]


def test_supervised_gives_its_schedule_the_optimizer_and_the_number_of_steps():
    told = []

    def schedule(optimizer, steps):
        told.append((type(optimizer), steps))
        return Schedule(torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0, total_iters=1))

    fit(classifier(schedule=schedule), epochs=3)
    assert told == [(torch.optim.AdamW, 21)]
    assert classifier().configure_schedules({}, 5) == {}
    assert classifier(schedule=constant).configure_schedules({"model": None}, 5) == {}


@pytest.mark.parametrize("name", ["cosine", "one_cycle"])
@pytest.mark.parametrize("step", [2, 6, 10])
def test_a_stopped_run_with_a_schedule_goes_on_as_if_it_had_not_been(tmp_path, name, step):
    whole, cut, resumed = (classifier(schedule=SCHEDULES[name]) for _ in range(3))
    expected = fit(whole, epochs=2)
    losses = cut.losses

    def crashing(batch):
        if cut.step_info.step == step:
            raise KeyboardInterrupt
        yield from losses(batch)

    cut.losses = crashing
    with pytest.raises(KeyboardInterrupt):
        fit(cut, tmp_path, epochs=2, checkpoint_every=1)
    assert fit(resumed, tmp_path, resume=True, epochs=2) == expected
    assert all(torch.equal(tensor, resumed.state_dict()[name]) for name, tensor in whole.state_dict().items())


@pytest.mark.parametrize("name", ["cosine", "one_cycle"])
@pytest.mark.parametrize(
    ("before", "after"),
    [({"max_steps": 5}, {"max_steps": 9}), ({"epochs": 1}, {"epochs": 2}), ({"max_steps": 9}, {"max_steps": 5})],
    ids=str,
)
def test_a_schedule_that_ends_cannot_go_on_for_another_number_of_steps(tmp_path, name, before, after):
    fit(classifier(schedule=SCHEDULES[name]), tmp_path, **before)
    kept = (tmp_path / "checkpoint.pt").read_bytes()
    with pytest.raises(InputError, match="schedule") as caught:
        fit(classifier(schedule=SCHEDULES[name]), tmp_path, resume=True, **after)
    assert len(str(caught.value).splitlines()) == 1
    assert str(after.get("max_steps", 14)) in str(caught.value)
    assert (tmp_path / "checkpoint.pt").read_bytes() == kept


@pytest.mark.parametrize(
    ("one", "other"),
    [("constant", "cosine"), ("cosine", "one_cycle"), ("one_cycle", "constant"), ("cosine", "constant")],
)
def test_a_run_cannot_go_on_with_another_schedule(tmp_path, one, other):
    fit(classifier(schedule=SCHEDULES[one]), tmp_path, epochs=1)
    with pytest.raises(InputError, match="schedule") as caught:
        fit(classifier(schedule=SCHEDULES[other]), tmp_path, resume=True, epochs=1)
    assert len(str(caught.value).splitlines()) == 1


def test_a_cycle_for_another_number_of_steps_is_refused_without_its_phases(tmp_path):
    def fit_for(epochs, resume=False):
        one_cycle = torch.optim.lr_scheduler.OneCycleLR
        fit(classifier(schedule=lambda o, steps: one_cycle(o, 0.1, steps)), tmp_path, resume, epochs=epochs)

    fit_for(1)
    with pytest.raises(InputError, match=r"total_steps 14 instead of 7: use its original settings$"):
        fit_for(2, resume=True)


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        (lambda optimizer, steps: CosineAnnealingLR(optimizer, steps), [0.005, 0]),  # each step
        (lambda optimizer: CosineAnnealingLR(optimizer, 2), [0.01, 0.005]),  # each epoch, after its row
        (CosineAnnealingLR, [0.005, 0]),
        (lambda optimizer, steps: Schedule(CosineAnnealingLR(optimizer, 2), "epoch"), [0.01, 0.005]),
        (lambda optimizer, steps: ReduceLROnPlateau(optimizer), [0.01, 0.01]),
    ],
    ids=["steps", "epochs", "class", "said", "metric"],
)
def test_a_scheduler_that_is_made_for_a_number_of_steps_counts_steps(schedule, rates):
    history = fit(classifier(schedule=schedule), epochs=2)
    assert [row["charts/learning_rate"] for row in history] == pytest.approx(rates, abs=1e-9)


def warmed_up(optimizer, steps):
    return SequentialLR(optimizer, [LinearLR(optimizer, total_iters=3), CosineAnnealingLR(optimizer, steps - 3)], [3])


@pytest.mark.parametrize(
    ("build", "count"),
    [
        (warmed_up, 14),
        (lambda optimizer, steps: ChainedScheduler([LinearLR(optimizer, total_iters=steps)], optimizer), 14),
        (lambda optimizer, steps: MultiStepLR(optimizer, [1, steps // 2]), 7),
        (lambda optimizer, steps: Schedule(StepLR(optimizer, steps)), 14),
        (lambda optimizer, steps: Schedule(warmed_up(optimizer, steps), "step"), None),
        (lambda optimizer, steps: OneCycleLR(optimizer, 0.1, steps), None),
        (lambda optimizer, steps: CosineAnnealingLR(optimizer, 2), None),
        (lambda optimizer, steps: ExponentialLR(optimizer, 0.9), None),
        (lambda optimizer, steps: ReduceLROnPlateau(optimizer, patience=99), None),
    ],
    ids=["sequence", "chain", "milestones", "explicit", "steps", "cycle", "epochs", "endless", "metric"],
)
def test_a_schedule_of_a_task_that_counts_further_than_there_are_epochs_is_named(build, count, recwarn):
    task = classifier()
    task.configure_schedules = lambda optimizers, steps: build(optimizers["model"], steps)
    fit(task, epochs=2)
    fit(task, epochs=2, dry_run=True)
    found = [str(each.message) for each in recwarn if "the schedule of" in str(each.message)]
    assert [text.split(":")[0] for text in found] == [
        f"the schedule of 'model' counts to {count}, but it steps once per epoch, and there are 2"
    ] * bool(count)


@pytest.mark.parametrize("before", [{"max_steps": 5}, {"epochs": 1}], ids=str)
def test_without_a_schedule_training_can_go_on_for_longer(tmp_path, before):
    whole, cut, resumed = (classifier(schedule=constant) for _ in range(3))
    fit(whole, epochs=2)
    fit(cut, tmp_path, **before)
    fit(resumed, tmp_path, resume=True, epochs=2)
    assert all(torch.equal(tensor, resumed.state_dict()[name]) for name, tensor in whole.state_dict().items())


# AdamW


def network() -> nn.Module:
    layers = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.LayerNorm(12), nn.Linear(12, 3)
    return fill_conv(nn.Sequential(*layers))


def fill_conv(module: nn.Module) -> nn.Module:
    with torch.no_grad():
        for number, parameter in enumerate(module.parameters()):
            parameter.copy_(0.5 + 0.3 * gaussian(*parameter.shape, seed=number))
    return module


def test_with_no_gradient_kernels_shrink_and_nothing_else_moves():
    model = network()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = make_optimizer("adamw", model.parameters(), lr=0.1, weight_decay=0.5)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for _ in range(3):
        optimizer.step()
    kernels = {"0.weight", "5.weight"}
    for name, parameter in model.named_parameters():
        factor = (1 - 0.1 * 0.5) ** 3 if name in kernels else 1
        torch.testing.assert_close(parameter.detach(), factor * before[name])


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_the_update_is_adamw_written_out(weight_decay):
    model, lr = network(), 0.05
    optimizer = make_optimizer("adamw", model.parameters(), lr, weight_decay)
    wanted = [p.detach().double().clone() for p in model.parameters()]
    averages, squares = ([torch.zeros_like(p) for p in wanted] for _ in range(2))
    for step in range(1, 6):
        for i, parameter in enumerate(model.parameters()):
            parameter.grad = gaussian(*parameter.shape, seed=100 * step + i)
            gradient = parameter.grad.double()
            if parameter.dim() > 1:
                wanted[i] -= lr * weight_decay * wanted[i]
            averages[i] += 0.1 * (gradient - averages[i])
            squares[i] += 0.001 * (gradient**2 - squares[i])
            mean, square = averages[i] / (1 - 0.9**step), squares[i] / (1 - 0.999**step)
            wanted[i] -= lr * mean / (square.sqrt() + 1e-8)
        optimizer.step()
    for parameter, expected in zip(model.parameters(), wanted, strict=True):
        torch.testing.assert_close(parameter.detach().double(), expected, rtol=1e-5, atol=1e-5)


def test_frozen_parameters_have_their_groups_and_empty_groups_are_left_out():
    model = network()
    model[0].requires_grad_(False)  # a kernel and a bias, until they are unfrozen
    groups = make_optimizer("adamw", model.parameters(), 1e-3, 0.1).param_groups
    assert [(len(group["params"]), group["weight_decay"]) for group in groups] == [(2, 0.1), (6, 0.0)]
    (only,) = make_optimizer("adamw", nn.Linear(3, 2, bias=False).parameters(), 1e-3, 0.1).param_groups
    assert only["weight_decay"] == 0.1
    (only,) = make_optimizer("adamw", nn.LayerNorm(3).parameters(), 1e-3, 0.1).param_groups
    assert only["weight_decay"] == 0


@pytest.mark.parametrize(
    ("lr", "weight_decay", "named"),
    [
        (0.0, 0.0, "learning rate.*0.0"),
        (-1.0, 0.0, "learning rate.*-1.0"),
        (math.nan, 0.0, "learning rate.*nan"),
        (1e-3, -0.1, "weight_decay.*-0.1"),
        (1e-3, math.inf, "weight_decay.*inf"),
    ],
)
def test_bad_settings_of_adamw_are_refused(lr, weight_decay, named):
    with pytest.raises(InputError, match=named):
        make_optimizer("adamw", network().parameters(), lr, weight_decay)


def test_a_resume_with_other_milestones_is_refused(tmp_path):
    def task(*settings: object) -> Supervised:
        return classifier(schedule=lambda optimizer, steps: milestones(optimizer, steps, *settings))

    fit(task([3], 0.5), max_steps=4, folder=tmp_path)
    for settings in (([5], 0.5), ([3], 0.1)):
        with pytest.raises(InputError, match=r"schedule of 'model' MultiStepLR by .* instead of"):
            fit(task(*settings), max_steps=8, folder=tmp_path, resume=True)
    assert fit(task([3], 0.5), max_steps=8, folder=tmp_path, resume=True)[-1]["step"] == 8
