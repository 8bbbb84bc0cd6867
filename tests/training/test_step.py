"""What is trained, with which settings, and by which batches."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from helpers import fill_, gaussian
from torch import nn

from torchdl import ArrayDataset, BatchLoader, InputError, Supervised, Task, Trainer, Update, tasks
from torchdl.files import CHECKPOINT
from torchdl.tasks import Adam, Schedule, make_optimizer
from torchdl.training import checkpoint

pytestmark = pytest.mark.usefixtures("quick")
X = gaussian(12, 3, seed=7)
DATA = ArrayDataset(X, X.sum(1, keepdim=True))
SGD = partial(torch.optim.SGD, lr=0.1)


def fit(task: Task, folder=None, resume: bool = False, batch: int = 4, **options) -> list[dict[str, float]]:
    """Train, by default two epochs of three steps."""
    trainer = Trainer(device="cpu", **{"epochs": 2, **options})
    return trainer.fit(task, BatchLoader(DATA, batch), folder=folder, resume=resume)


def model() -> nn.Sequential:
    return fill_(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)))


def moved(task: Supervised) -> list[bool]:
    """Return which of the first and last layer's weights have changed."""
    return [not torch.equal(task.model[i].weight, model()[i].weight) for i in (0, 2)]


# what is trained


class Unfreezing(Supervised):
    """Train the last layer, and from the second epoch on the first one, too."""

    def losses(self, batch):
        self.model[0].requires_grad_(self.step_info.epoch >= 1)
        yield from super().losses(batch)


@pytest.mark.parametrize("optimizer", [SGD, partial(make_optimizer, "adam", lr=0.1), partial(Adam, lr=0.1, fused=True)])
def test_what_is_unfrozen_in_the_second_epoch_is_trained_from_then_on(tmp_path, optimizer):
    def task() -> Unfreezing:
        made = Unfreezing(model(), F.mse_loss, optimizer=optimizer)
        made.model[0].requires_grad_(False)
        return made

    once, whole, rest = task(), task(), task()
    fit(once, tmp_path, epochs=1)
    assert moved(once) == [False, True]
    fit(whole)
    assert moved(whole) == [True, True]
    fit(rest, tmp_path, resume=True)
    assert all(torch.equal(one, other) for one, other in zip(whole.parameters(), rest.parameters(), strict=True))


def test_what_is_frozen_in_the_second_epoch_stays_as_it_is_from_then_on():
    class Freezing(Supervised):
        def losses(self, batch):
            self.model[0].requires_grad_(self.step_info.epoch < 1)
            yield from super().losses(batch)

    once, twice = (Freezing(model(), F.mse_loss, optimizer=SGD) for _ in range(2))
    fit(once, epochs=1)
    fit(twice, epochs=3)
    assert torch.equal(once.model[0].weight, twice.model[0].weight)
    assert not torch.equal(once.model[2].weight, twice.model[2].weight)


def test_a_group_that_is_added_in_the_second_epoch_is_trained(tmp_path):
    class Adding(Supervised):
        def configure_optimizers(self):
            self.of_last = SGD(self.model[2].parameters())
            return {"model": self.of_last}

        def losses(self, batch):
            if self.step_info.epoch == 1 and len(self.of_last.param_groups) == 1:
                self.of_last.add_param_group({"params": self.model[0].parameters(), "lr": 0.01})
            yield from super().losses(batch)

    task = Adding(model(), F.mse_loss)
    fit(task, epochs=1)
    assert moved(task) == [False, True]
    fit(task, tmp_path, epochs=2)
    assert moved(task) == [True, True]
    with pytest.raises(InputError, match="1 groups of parameters, in the checkpoint 2"):
        fit(Adding(model(), F.mse_loss), tmp_path, epochs=3, resume=True)


def test_a_run_that_left_frozen_parameters_out_of_its_optimizer_goes_on(tmp_path):
    class LeftOut(Supervised):
        def configure_optimizers(self):
            return {"model": make_optimizer("adam", [p for p in self.parameters() if p.requires_grad], lr=0.1)}

    def task(kind: type[Supervised]) -> Supervised:
        made = kind(model(), F.mse_loss, optimizer=partial(make_optimizer, "adam", lr=0.1))
        made.model[0].requires_grad_(False)
        return made

    part, rest, whole = task(LeftOut), task(Supervised), task(Supervised)
    fit(part, tmp_path, epochs=1)
    state = checkpoint.read(tmp_path / CHECKPOINT)
    del state["updates"]["initial"]  # what torchdl 0.1 did not record
    checkpoint.write(state, tmp_path / CHECKPOINT)
    fit(rest, tmp_path, resume=True)
    fit(whole)
    assert all(torch.equal(one, other) for one, other in zip(whole.parameters(), rest.parameters(), strict=True))


def test_a_gradient_from_before_training_is_not_applied():
    fresh, used = (Supervised(model(), F.mse_loss, optimizer=SGD) for _ in range(2))
    used.model(X).sum().backward()
    fit(fresh, epochs=1)
    fit(used, epochs=1)
    assert torch.equal(fresh.model[0].weight, used.model[0].weight)


@pytest.mark.parametrize("frozen", ["all", "the loss"])
def test_a_loss_that_trains_nothing_is_an_input_error(frozen):
    class Elsewhere(Supervised):
        def losses(self, batch):
            yield Update("model", nn.Parameter(torch.ones(())) * 1)

    task = (Elsewhere if frozen == "the loss" else Supervised)(model(), F.mse_loss)
    task.requires_grad_(frozen == "the loss")
    with pytest.raises(InputError, match="'model' depends on n"):
        fit(task)


# skipped batches


class Skipping(Supervised):
    """Skip some batches of each epoch, by their first example's number."""

    skipped: tuple[int, ...] = ()

    def losses(self, batch):
        if self.step_info.start not in self.skipped:
            yield from super().losses(batch)


@pytest.mark.parametrize("skipped", [(0,), (4,), (8,), (0, 8), (4, 8), (0, 4, 8)])
def test_a_skipped_batch_leaves_the_mean_of_the_others(skipped):
    task, expected = (Skipping(model(), F.mse_loss, optimizer=SGD) for _ in range(2))
    task.skipped = skipped
    row = fit(task, epochs=2, accumulate=3)[-1]
    used = [i for start in (0, 4, 8) if start not in skipped for i in range(start, start + 4)]
    for _ in range(2 if used else 0):  # by hand
        loss = F.mse_loss(expected.model(X[used]), X[used].sum(1, keepdim=True))
        gradients = torch.autograd.grad(loss, list(expected.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(expected.parameters(), gradients, strict=True):
                parameter -= 0.1 * gradient
    for one, other in zip(task.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    assert all(p.grad is None for p in task.parameters())
    assert row.get("train/loss") == (pytest.approx(loss.item()) if used else None)
    assert row["step"] == 2


def test_batches_of_a_step_that_yield_other_optimizers_are_an_input_error():
    class Two(Supervised):
        def configure_optimizers(self):
            return {"first": SGD(self.model[0].parameters()), "last": SGD(self.model[2].parameters())}

        def losses(self, batch):
            (update,) = super().losses(batch)
            yield Update("last" if self.step_info.start else "first", update.loss)

    fit(Two(model(), F.mse_loss))
    with pytest.raises(InputError, match="'first' and of 'last'"):
        fit(Two(model(), F.mse_loss), accumulate=2)


def test_an_update_of_an_unknown_optimizer_is_an_input_error():
    class Wrong(Supervised):
        def losses(self, batch):
            yield Update("modle", self.model(batch[0]).sum())

    with pytest.raises(InputError, match=r"'modle'.*model"):
        fit(Wrong(model(), F.mse_loss))


# names of metrics


class Named(Supervised):
    def losses(self, batch):
        for update in super().losses(batch):
            yield Update("model", update.loss, {self.name: torch.ones(())})


@pytest.mark.parametrize("name", ["loss", "grad_norm"])
def test_a_metric_under_a_name_of_the_trainers_is_an_input_error(name):
    task = Named(model(), F.mse_loss)
    task.name = name
    with pytest.raises(InputError, match=name):
        fit(task)
    task.name = f"my_{name}"
    assert fit(task)[-1][f"train/my_{name}"] == 1


def test_a_supervised_metric_called_loss_is_an_input_error():
    with pytest.raises(InputError, match="'loss'"):
        Supervised(model(), F.mse_loss, {"loss": F.l1_loss})


@pytest.mark.parametrize("name", ["loss", "val/loss", "train/loss", "charts/learning_rate"])
def test_a_summary_under_the_name_of_another_value_is_an_input_error(name):
    task = Supervised(model(), F.mse_loss)
    task.summarize = lambda: {name: 0.0}
    with pytest.raises(InputError, match=name):
        Trainer(device="cpu", epochs=1).fit(task, BatchLoader(DATA, 4), BatchLoader(DATA, 4))


# settings that a resume must not change in silence

GROUPS = [{"lr": 0.1}, {"lr": 0.01, "weight_decay": 0.1}]


def two_groups(kind, parameters, **changed):
    first, *rest = parameters
    groups = [{"params": [first], **GROUPS[0]}, {"params": rest, **GROUPS[1], **changed}]
    return kind(groups)


@pytest.mark.parametrize(
    ("build", "changed", "named"),
    [
        (partial(torch.optim.Adam, lr=0.1), {"eps": 1e-3}, "eps 0.001 instead of 1e-08"),
        (partial(torch.optim.Adam, lr=0.1), {"amsgrad": True}, "amsgrad"),
        (partial(Adam, lr=0.1), {"eps": 1e-3}, "eps 0.001 instead of 1e-08"),
        (partial(torch.optim.RMSprop, lr=0.1), {"alpha": 0.5}, "alpha 0.5 instead of 0.99"),
        (partial(torch.optim.RMSprop, lr=0.1), {"centered": True}, "centered"),
        (partial(torch.optim.Adadelta, lr=0.1), {"rho": 0.5}, "rho 0.5 instead of 0.9"),
        (partial(torch.optim.Adagrad, lr=0.1), {"lr_decay": 0.5}, "lr_decay 0.5 instead of 0"),
        (partial(torch.optim.SGD, lr=0.1, momentum=0.9), {"dampening": 0.5}, "dampening 0.5 instead of 0"),
        (partial(two_groups, torch.optim.SGD), {"lr": 0.5}, "group 2 .*lr 0.5 instead of 0.01"),
        (
            partial(two_groups, torch.optim.SGD),
            {"weight_decay": 0.01},
            "weight_decay=0.01.* instead of .*weight_decay=0.1",
        ),
        (partial(two_groups, torch.optim.AdamW), {"betas": (0.5, 0.9)}, "betas"),
    ],
)
def test_a_resume_with_another_setting_of_an_optimizer_is_refused_by_name(tmp_path, build, changed, named):
    fit(Supervised(model(), F.mse_loss, optimizer=build), tmp_path, epochs=1)
    with pytest.raises(InputError, match=named):
        fit(Supervised(model(), F.mse_loss, optimizer=partial(build, **changed)), tmp_path, resume=True)
    fit(Supervised(model(), F.mse_loss, optimizer=build), tmp_path, resume=True)


def test_settings_that_another_version_of_pytorch_has_do_not_matter(tmp_path):
    fit(Supervised(model(), F.mse_loss, schedule=lambda o, _: schedulers.StepLR(o, 1)), tmp_path, epochs=1)
    state = checkpoint.read(tmp_path / CHECKPOINT)
    for settings in state["updates"]["initial"].values():
        settings["of another version"] = "1"
        settings.pop("amsgrad", settings.pop("_step_count", None))
    checkpoint.write(state, tmp_path / CHECKPOINT)
    fit(Supervised(model(), F.mse_loss, schedule=lambda o, _: schedulers.StepLR(o, 1)), tmp_path, resume=True)


def test_a_faster_kernel_and_a_tensor_as_rate_are_no_other_settings(tmp_path):
    fit(Supervised(model(), F.mse_loss, optimizer=partial(torch.optim.Adam, lr=0.5)), tmp_path, epochs=1)
    same = partial(torch.optim.Adam, lr=torch.tensor(0.5), foreach=False)
    fit(Supervised(model(), F.mse_loss, optimizer=same), tmp_path, resume=True)


# PyTorch's schedulers as they are

schedulers = torch.optim.lr_scheduler


def rates(schedule, validation: bool = False, **options) -> list[float]:
    task = Supervised(model(), F.mse_loss, optimizer=SGD, schedule=schedule)
    held_out = BatchLoader(DATA, 4) if validation else None
    rows = Trainer(device="cpu", **{"epochs": 3, **options}).fit(task, BatchLoader(DATA, 4), held_out)
    return [row["charts/learning_rate"] for row in rows]


def test_a_pytorch_scheduler_steps_after_each_epoch_and_a_cycle_after_each_step():
    assert rates(lambda optimizer: schedulers.StepLR(optimizer, 1, 0.5)) == pytest.approx([0.1, 0.05, 0.025])
    cycle = schedulers.OneCycleLR(SGD([nn.Parameter(torch.ones(1))]), 0.1, 10, cycle_momentum=False)
    expected = []
    for _ in range(3):
        for _ in range(3):
            cycle.optimizer.step()
            cycle.step()
        expected.append(cycle.get_last_lr()[0])
    assert rates(lambda optimizer, steps: schedulers.OneCycleLR(optimizer, 0.1, steps + 1)) == pytest.approx(expected)


def test_a_schedule_may_be_a_function_of_the_optimizer_alone():
    by_half = pytest.approx([0.1, 0.05, 0.025])
    assert rates(lambda optimizer: schedulers.StepLR(optimizer, 1, 0.5)) == by_half
    assert rates(partial(schedulers.StepLR, step_size=1, gamma=0.5)) == by_half
    assert rates(partial(schedulers.ExponentialLR, gamma=0.5)) == by_half


def test_a_pytorch_plateau_follows_the_validation_loss():
    def plateau(optimizer, _):
        return schedulers.ReduceLROnPlateau(optimizer, factor=0.5, patience=0, threshold=10, threshold_mode="abs")

    assert rates(plateau, validation=True) == pytest.approx([0.1, 0.1, 0.05])
    with pytest.raises(
        InputError, match=r"'val/loss' to monitor: .*, by Schedule\(scheduler, monitor=\"train/loss\"\)"
    ):
        rates(plateau)
    assert rates(tasks.plateau, validation=True) == pytest.approx([0.1, 0.1, 0.1])


@pytest.mark.parametrize(
    ("mode", "monitor", "sentence"),
    [
        ("max", None, "a ReduceLROnPlateau of mode max would follow val/loss, .* monitor="),
        ("min", "val/accuracy", 'more is better of val/accuracy: give its ReduceLROnPlateau mode="max"'),
        ("max", "val/accuracy", ""),
        ("max", "val/loss", ""),
        ("min", None, ""),
    ],
)
def test_a_plateau_never_takes_better_values_for_worse(mode, monitor, sentence):
    made = schedulers.ReduceLROnPlateau(SGD(nn.Linear(1, 1).parameters()), mode)
    with pytest.raises(InputError, match=f"^{sentence}") if sentence else nullcontext():
        Schedule(made, monitor=monitor)
    assert tasks.plateau(made.optimizer, monitor=monitor or "val/loss").scheduler.mode == (
        "max" if monitor == "val/accuracy" else "min"
    )


@pytest.mark.parametrize("given", ["bare", "named", "none"])
def test_a_task_may_return_a_scheduler_with_or_without_its_optimizers_name(given):
    class Own(Supervised):
        def configure_schedules(self, optimizers, steps):
            made = schedulers.ExponentialLR(optimizers["model"], 0.5)
            return {"bare": made, "named": {"model": made}, "none": None}[given]

    rows = fit(Own(model(), F.mse_loss, optimizer=SGD))
    assert rows[-1]["charts/learning_rate"] == pytest.approx(0.1 if given == "none" else 0.05)


@pytest.mark.parametrize(
    ("schedules", "named"),
    [
        (lambda optimizers: {"modle": schedulers.StepLR(optimizers["model"], 1)}, "'modle'"),
        (lambda optimizers: {"model": 0.5}, "not a float"),
        (lambda optimizers: [schedulers.StepLR(optimizers["model"], 1)], "not a list"),
        (lambda optimizers: schedulers.StepLR(SGD(nn.Linear(1, 1).parameters()), 1), "another optimizer"),
    ],
)
def test_what_is_no_schedule_of_the_optimizer_is_an_input_error(schedules, named):
    task = Supervised(model(), F.mse_loss)
    task.configure_schedules = lambda optimizers, steps: schedules(optimizers)
    with pytest.raises(InputError, match=named):
        fit(task)


@pytest.mark.parametrize(
    "build",
    [
        partial(schedulers.StepLR, step_size=2, gamma=0.5),
        partial(schedulers.MultiStepLR, milestones=[1, 3], gamma=0.5),
        partial(schedulers.CosineAnnealingLR, T_max=4),
        partial(schedulers.LambdaLR, lr_lambda=lambda epoch: 1 / (1 + epoch)),
        partial(schedulers.CyclicLR, base_lr=0.01, max_lr=0.1, step_size_up=2),
        lambda o: schedulers.SequentialLR(o, [schedulers.ConstantLR(o), schedulers.ExponentialLR(o, 0.9)], [2]),
    ],
)
def test_a_pytorch_scheduler_is_resumed_exactly(tmp_path, build):
    def task() -> Supervised:
        return Supervised(model(), F.mse_loss, optimizer=SGD, schedule=lambda optimizer, _: build(optimizer))

    whole, rest = task(), task()
    history = fit(whole, epochs=4)
    fit(task(), tmp_path, epochs=1)
    assert fit(rest, tmp_path, epochs=4, resume=True) == history
    assert torch.equal(whole.model[0].weight, rest.model[0].weight)


def test_a_resume_with_another_setting_of_a_scheduler_is_refused_by_name(tmp_path):
    def task(gamma: float) -> Supervised:
        return Supervised(model(), F.mse_loss, schedule=lambda optimizer, _: schedulers.StepLR(optimizer, 2, gamma))

    fit(task(0.5), tmp_path, epochs=1)
    with pytest.raises(InputError, match=r"schedule of 'model' has gamma 0.25 instead of 0.5"):
        fit(task(0.25), tmp_path, resume=True)


# batch norm


@pytest.mark.parametrize("batch", [1, 11])
def test_batch_norm_with_a_single_example_is_an_input_error(batch):
    task = Supervised(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)), F.mse_loss)
    with pytest.raises(InputError, match=r"batch norm .*batch_size.*drop_last"):
        fit(task, batch=batch)


class Untidy(Task):
    """A task of somebody who does not know the interface: ``mistake`` names what it does otherwise."""

    def __init__(self, mistake):
        super().__init__()
        self.model, self.mistake = nn.Linear(1, 2), mistake

    def configure_optimizers(self):
        kind = torch.optim.LBFGS if self.mistake == "lbfgs" else torch.optim.SGD
        optimizer = kind(self.model.parameters(), lr=0.1)
        return optimizer if self.mistake == "bare" else {"model": optimizer}

    def losses(self, batch):
        errors = self.model(batch).square()
        if self.mistake == "backward":
            errors.mean().backward(retain_graph=True)
        update = Update("model", errors.mean(0) if self.mistake == "vector" else errors.mean())
        others = {"returned": errors.mean(), "nothing": None, "loss": [errors.mean()]}
        return others.get(self.mistake, iter([update]))


@pytest.mark.parametrize(
    ("mistake", "named"),
    [
        ("bare", "optimizers by name"),
        ("lbfgs", "LBFGS"),
        ("backward", "count twice"),
        ("vector", "one number"),
        ("returned", "must yield Update"),
        ("nothing", "must yield Update"),
        ("loss", "must yield Update"),
    ],
)
def test_a_task_that_breaks_the_interface_is_an_input_error(mistake, named):
    loader = BatchLoader(torch.ones(4, 1), batch_size=2)
    Trainer(epochs=1).fit(Untidy(""), loader)  # this one is right
    with pytest.raises(InputError, match=named):
        Trainer(epochs=1, accumulate=2).fit(Untidy(mistake), loader)


def test_losses_that_are_returned_as_a_list_are_of_their_own_position():
    class Listing(Supervised):
        def losses(self, batch):
            starts.append(self.step_info.start)
            return list(super().losses(batch))

    starts: list[int] = []
    fit(Listing(model(), F.mse_loss, optimizer=SGD), epochs=1)
    assert starts == [0, 4, 8]


@pytest.mark.parametrize("region", [torch.no_grad, torch.inference_mode])
def test_training_where_no_gradients_are_computed_is_an_input_error(region):
    with region(), pytest.raises(InputError, match="outside of torch"):
        fit(Supervised(model(), F.mse_loss))
