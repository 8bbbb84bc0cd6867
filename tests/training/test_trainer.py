from __future__ import annotations

import csv
import math
import re
import warnings
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from helpers import fill_, gaussian
from helpers.callbacks import AtCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader

import torchdl
from torchdl import BatchLoader, GANTask, ImageDataset, InputError, Supervised, Task, Trainer, TrainingDiverged, Update
from torchdl.files import BEST, CHECKPOINT
from torchdl.losses import GAN_LOSSES
from torchdl.tasks import Schedule, accuracy
from torchdl.training import checkpoint
from torchdl.training.device import move, tf32, why_not_compile
from torchdl.training.evaluation import evaluate
from torchdl.training.fit import Fit
from torchdl.training.state import Sums

SGD = partial(torch.optim.SGD, lr=1.0)

pytestmark = pytest.mark.usefixtures("quick")


def blobs(n: int, seed: int = 0) -> ImageDataset:
    """Make images 4x4 of three classes, each noise around its own centre."""
    labels = torch.arange(n) % 3
    pixels = 128 + 40 * gaussian(3, 1, 4, 4, seed=99)[labels] + 40 * gaussian(n, 1, 4, 4, seed=seed)
    return ImageDataset(pixels.clamp(0, 255).to(torch.uint8), labels, -1, 1)


def classifier(dropout: float = 0.0, kind: type[Supervised] = Supervised, **options) -> Supervised:
    layers = nn.Flatten(), nn.Linear(16, 24), nn.Tanh(), nn.Dropout(dropout), nn.Linear(24, 3)
    return kind(fill_(nn.Sequential(*layers)), F.cross_entropy, {"accuracy": accuracy}, **options)


def gan(kind: type[GANTask] = GANTask, **options) -> GANTask:
    return kind(fill_(torchdl.simple_gan((1, 4, 4), z_dim=6)), **options)


def fit(task: Task, n: int = 26, batch: int = 4, validation: BatchLoader | None = None, folder=None, **options):
    """Train on ``n`` blobs: by default seven steps an epoch, the last one ragged."""
    data = blobs(n) if isinstance(task, Supervised) else blobs(n).without_labels()
    to_fit = {name: options.pop(name) for name in ("resume", "callbacks", "verbose") if name in options}
    return Trainer(device="cpu", **options).fit(
        task, BatchLoader(data, batch, shuffle=True), validation, folder, **to_fit
    )


@contextmanager
def no_warnings():
    """Turn warnings into errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def weights(task: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in task.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def assert_close(one: dict[str, Tensor], other: dict[str, Tensor], tolerance: float) -> None:
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], rtol=0, atol=tolerance)


# learning


def digit_classifier() -> Supervised:
    layers = nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 10)
    return Supervised(fill_(nn.Sequential(*layers)), F.cross_entropy, {"accuracy": accuracy})


def test_a_classifier_overfits_one_batch():
    digits = torchdl.load_images("mnist_5k")
    some = ImageDataset(digits.images[::141], digits.labels[::141])
    history = Trainer(epochs=60, device="cpu").fit(digit_classifier(), BatchLoader(some, 32), BatchLoader(some, 32))
    assert history[-1]["val/accuracy"] == 1
    assert history[-1]["val/loss"] < 0.1 < 2 < history[0]["train/loss"]


def test_a_classifier_beats_the_trivial_baseline_on_digits_it_has_not_seen():
    train, test = (torchdl.load_images("mnist_5k", split) for split in ("train", "test"))
    trainer = Trainer(epochs=2, device="cpu")
    history = trainer.fit(digit_classifier(), BatchLoader(train, 50, shuffle=True), BatchLoader(test, 500))
    assert history[-1]["val/accuracy"] > 0.8  # naming always the same digit gives 0.1


@pytest.mark.parametrize("loss", GAN_LOSSES)
def test_a_gan_moves_every_parameter_of_both_networks(loss):
    task = gan(loss=loss)
    before = weights(task)
    history = fit(task, epochs=1)
    still = {name for name, tensor in task.named_parameters() if torch.equal(tensor, before[name])}
    # between the hinges, and in the Wasserstein loss, a bias of the score cancels out
    assert still <= ({"discriminator.disc.2.bias"} if loss in ("hinge", "wgan_gp") else set())
    assert {"train/discriminator_loss", "train/generator_loss", "train/D(x)", "train/D(G(z))"} <= history[0].keys()


@pytest.mark.parametrize("loss", ["non_saturating", "least_squares"])
def test_the_generators_update_leaves_no_gradient_on_the_discriminator(loss):
    task = gan(loss=loss)
    fit(task, epochs=1)
    assert all(parameter.grad is None for parameter in task.parameters())


@pytest.mark.parametrize("make", [partial(classifier, 0.5), gan], ids=["dropout", "noise"])
def test_the_seed_alone_decides_the_weights(make):
    first, again, other = make(), make(), make()
    fit(first, epochs=2)
    torch.rand(3)  # what others draw from the global generator does not matter
    fit(again, epochs=2)
    fit(other, epochs=2, seed=1)
    assert same(weights(first), weights(again))
    assert not same(weights(first), weights(other))


# evaluation


@pytest.mark.parametrize("batch", [1, 5, 7, 22, 23, 100])
def test_validation_means_are_exact_with_a_ragged_last_batch(batch):
    held_out, task = blobs(23, seed=5), classifier(0.5)
    row = fit(task, epochs=1, validation=BatchLoader(held_out, batch))[-1]
    images, labels = held_out[:]
    output = task.eval().model(images)
    assert row["val/loss"] == pytest.approx(F.cross_entropy(output, labels).item(), abs=1e-6)
    assert row["val/accuracy"] == pytest.approx((output.argmax(1) == labels).double().mean().item(), abs=1e-12)


def test_a_trained_task_is_evaluated_and_predicts():
    task, held_out, trainer = classifier(0.5), BatchLoader(blobs(11), 4), Trainer(epochs=2, device="cpu")
    history = trainer.fit(task, BatchLoader(blobs(26), 4, shuffle=True), held_out)
    task.train()
    measured = trainer.evaluate(task, held_out)
    assert measured == {name: value for name, value in history[-1].items() if name.startswith("val/")}
    shuffled = BatchLoader(blobs(11), 3, shuffle=True, drop_last=True)
    loader = DataLoader(blobs(11), 3, collate_fn=torchdl.whole_batch)
    images, labels = blobs(11)[:]
    outputs = [trainer.predict(task, data, 4) for data in (images, images.numpy(), blobs(11), shuffled, loader)]
    outputs.append(trainer.predict(task.model, images))
    assert all(module.training for module in task.modules())
    expected = task.model.eval()(images)
    for output in outputs:
        torch.testing.assert_close(output, expected.detach())
    assert (outputs[0].argmax(1) == labels).double().mean() == pytest.approx(measured["val/accuracy"])


@pytest.mark.parametrize(
    ("model", "data", "sentence"),
    [
        (nn.Identity(), DataLoader([1.0], shuffle=True), "predictions are in the order of the data: give"),
        (nn.Identity(), 3, "a BatchLoader needs a data set"),
        (nn.Linear(1, 1), torch.zeros(2, 1, dtype=torch.uint8), "the model cannot take inputs of torch.uint8"),
        (nn.LSTM(1, 1), torch.zeros(2, 1), "predict collects tensors, but the model returns 2 parts"),
        ("model", torch.zeros(2, 1), "predict needs a model or a task, not a str"),
    ],
)
def test_what_cannot_be_predicted_is_an_input_error(model, data, sentence):
    with pytest.raises(InputError, match=f"^{sentence}"):
        Trainer(device="cpu").predict(model, data)


def test_training_means_weigh_a_ragged_batch_by_its_examples():
    task = classifier(optimizer=partial(torch.optim.SGD, lr=1e-30))  # weights that stay as they are
    row = fit(task, epochs=1)[-1]
    images, labels = blobs(26)[:]
    assert row["train/loss"] == pytest.approx(F.cross_entropy(task.model(images), labels).item(), abs=1e-6)


def test_evaluating_every_epoch_or_never_leaves_identical_weights():
    often, never = classifier(0.5), classifier(0.5)
    fit(often, epochs=3, validation=BatchLoader(blobs(23, seed=5), 7))
    fit(never, epochs=3, log_every=1)
    assert same(weights(often), weights(never))


def test_evaluate_every_leaves_epochs_out_but_never_the_last():
    rows = fit(classifier(), epochs=5, evaluate_every=2, validation=BatchLoader(blobs(5), 5))
    assert [row["epoch"] for row in rows if "val/loss" in row] == [2, 4, 5]


def test_one_value_a_batch_instead_of_one_an_example_is_an_input_error():
    task = classifier()
    task.metrics["mean"] = lambda output, target: accuracy(output, target).mean()
    with pytest.raises(InputError, match=r"metric 'mean' must be one number per example, .* not \(\)"):
        fit(task.eval(), n=1, validation=BatchLoader(blobs(5), 5))


class Weighted(Task):
    """Measures given values, some of them with weights, by the examples' number in the set."""

    def __init__(self, values: Tensor, weights: Tensor) -> None:
        super().__init__()
        self.values, self.weights = values, weights

    def evaluate(self, batch):
        which = batch[:, 0].long()
        value, weight = self.values[which], self.weights[which]
        return {"of some": (value, weight), "of all": value, "of none": (value, 0 * weight)}


class Numbers(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 11

    def __getitems__(self, index: Tensor) -> Tensor:
        return index[:, None].float()


@pytest.mark.parametrize("batch", [1, 4, 11])
def test_a_metric_with_weights_has_a_weighted_mean_and_what_no_example_has_is_left_out(batch):
    values, weights = gaussian(11), torch.tensor([0, 0, 0, 0, 1, 2, 0, 1, 0.5, 1, 0])
    measured = evaluate(Weighted(values, weights), BatchLoader(Numbers(), batch), torch.device("cpu"), nullcontext)
    expected = sum(v * w for v, w in zip(values.tolist(), weights.tolist(), strict=True)) / 5.5
    assert measured == {
        "val/of some": pytest.approx(expected, rel=1e-6),
        "val/of all": pytest.approx(values.mean().item(), rel=1e-6),
    }


def test_a_nan_is_not_passed_over_for_having_no_weight():
    values, weights = torch.ones(11), torch.ones(11)
    values[3], weights[3] = NAN, 0
    measured = evaluate(Weighted(values, weights), BatchLoader(Numbers(), 4), torch.device("cpu"), nullcontext)
    assert math.isnan(measured["val/of some"])


def test_weights_that_are_not_one_an_example_are_an_input_error():
    task = Weighted(torch.ones(11), torch.ones(11, 1))
    with pytest.raises(InputError, match=r"the weights of the metric 'of some' must be .* not"):
        evaluate(task, BatchLoader(Numbers(), 4), torch.device("cpu"), nullcontext)


def test_sums_of_no_weight_have_no_mean():
    sums = Sums()
    sums.add("seen", 2.0, 3)
    sums.add("seen", 8.0, 1)
    sums.add("unseen", 5.0, 0)
    assert sums.means() == {"seen": 3.5}


class Pair(NamedTuple):
    image: Tensor
    label: Tensor


def test_moving_a_batch_keeps_its_kind():
    batch = {"pair": Pair(torch.ones(2), torch.zeros(2)), "both": (torch.ones(1), [torch.ones(3)]), "name": "mine"}
    moved = move(batch, torch.device("meta"))
    assert type(moved["pair"]) is Pair
    assert moved["pair"].image.shape == (2,)
    tensors = *moved["pair"], moved["both"][0], *moved["both"][1]
    assert all(tensor.is_meta for tensor in tensors)
    assert [type(moved["both"]), type(moved["both"][1]), moved["name"]] == [tuple, list, "mine"]


# the best epoch


class Scripted(Task):
    """Two steps an epoch, after which ``score`` takes the next of ``values``; the weight counts the steps."""

    def __init__(self, values: list[float], schedule: Schedule | None = None) -> None:
        super().__init__()
        self.weight, self.values = nn.Parameter(torch.zeros(())), values

    def configure_optimizers(self):
        return {"model": SGD([self.weight])}

    def losses(self, batch):
        yield Update("model", -self.weight)

    def evaluate(self, batch):
        return {"score": torch.full((len(batch),), self.values[self.step_info.step // 2 - 1])}


NAN = math.nan


@pytest.mark.parametrize(
    ("mode", "patience", "values", "best", "epochs"),
    [
        ("min", 2, [3, 1, 2, 1, 0], 2, 4),
        ("max", 2, [1, 3, 2, 3, 9], 2, 4),
        ("min", 0, [3, 1, 2, 1, 0], 5, 5),
        ("max", 0, [9, 3, 2, 3, 1], 1, 5),
        ("min", 3, [5, 4, 6, 6, 3], 5, 5),
        ("max", 2, [NAN, 3, NAN, 4, 1], 4, 5),
    ],
)
def test_the_best_epoch_is_kept_and_patience_ends_in_time(tmp_path, mode, patience, values, best, epochs):
    task, held_out = Scripted(values), BatchLoader(blobs(3).without_labels(), 2)
    options = {"epochs": 5, "monitor": "val/score", "mode": mode, "patience": patience}
    history = fit(task, n=4, batch=2, validation=held_out, folder=tmp_path, **options)
    assert [row["val/score"] for row in history] == pytest.approx(values[:epochs], nan_ok=True)
    kept = checkpoint.read(tmp_path / BEST)
    assert (kept["task"]["weight"], kept["progress"]["epoch"]) == (2 * best, best)
    assert kept["progress"]["history"][-1]["val/score"] == values[best - 1]


def test_a_metric_that_is_never_a_number_is_named_since_there_is_no_best_epoch(tmp_path):
    task, held_out = Scripted([NAN, NAN]), BatchLoader(blobs(3).without_labels(), 2)
    with pytest.warns(UserWarning, match="val/score was never a number"):
        fit(task, n=4, batch=2, validation=held_out, folder=tmp_path, epochs=2, monitor="val/score")
    assert not (tmp_path / BEST).exists()


@pytest.mark.parametrize(("values", "best"), [([3, 1, 0], 5), ([3, 1, 2], 4)])
def test_the_end_of_a_run_within_an_epoch_may_be_the_best(tmp_path, values, best):
    task, held_out = Scripted(values), BatchLoader(blobs(3).without_labels(), 2)
    task.evaluate = lambda batch: {"score": torch.full((len(batch),), values[-(-task.step_info.step // 2) - 1])}
    options = {"folder": tmp_path, "monitor": "val/score", "validation": held_out}
    history = fit(task, n=4, batch=2, max_steps=5, **options)
    assert [row["val/score"] for row in history] == values
    assert checkpoint.read(tmp_path / BEST)["task"]["weight"] == best
    last = checkpoint.read(tmp_path / CHECKPOINT)  # from before the end, to be gone on with
    assert (last["progress"]["step"], len(last["progress"]["history"])) == (5, 2)


def test_a_metric_that_is_gone_after_a_stop_is_an_input_error(tmp_path):
    held_out = BatchLoader(blobs(5), 5)
    fit(classifier(), validation=held_out, folder=tmp_path, monitor="val/loss", epochs=1)
    with pytest.raises(InputError, match="'val/loss'"):
        fit(classifier(), folder=tmp_path, monitor="val/loss", epochs=2, resume=True)


@pytest.mark.parametrize("validation", [None, BatchLoader(blobs(5), 5)], ids=["none", "some"])
def test_an_unknown_metric_to_monitor_is_an_input_error_before_any_training(tmp_path, validation):
    task = classifier()
    before = weights(task)
    with pytest.raises(InputError, match="'val/nothing'"):
        fit(task, validation=validation, folder=tmp_path, monitor="val/nothing")
    assert same(before, weights(task))
    assert not (tmp_path / CHECKPOINT).exists()


# steps


@pytest.mark.parametrize("make", [classifier, gan, partial(gan, average=0.9)], ids=["classifier", "gan", "averaged"])
def test_accumulating_k_batches_of_n_equals_one_batch_of_k_times_n(make):
    parts, whole = make(), make()
    rows = fit(parts, n=50, batch=4, accumulate=3, epochs=2)  # 13 batches: four groups of three and one of one
    expected = fit(whole, n=50, batch=12, epochs=2)
    assert rows[-1]["step"] == expected[-1]["step"] == 10
    assert_close(weights(parts), weights(whole), 1e-6)
    for row, other in zip(rows, expected, strict=True):
        assert row == pytest.approx(other, rel=1e-5)


def applied_norms(optimizer: torch.optim.Optimizer, norms: list[float]) -> torch.optim.Optimizer:
    """Have the norm of the gradients that the optimizer is about to apply noted."""

    def note(optimizer, _args, _kwargs):
        gradients = [p.grad.flatten() for group in optimizer.param_groups for p in group["params"]]
        norms.append(float(torch.cat(gradients).double().norm()))

    optimizer.register_step_pre_hook(note)
    return optimizer


class SpiedGAN(GANTask):
    def configure_optimizers(self):
        self.norms = []
        return {name: applied_norms(o, self.norms) for name, o in super().configure_optimizers().items()}


def test_clipping_bounds_the_norm_of_the_gradients_that_are_applied():
    free, clipped = [], []
    for norms, limit in ((free, 0.0), (clipped, 0.1)):
        task = classifier(optimizer=lambda p, norms=norms: applied_norms(SGD(p, lr=0.1), norms))
        row = fit(task, epochs=2, clip_norm=limit)[-1]
        assert row["train/grad_norm"] > 0.1  # what is logged is the norm before
    assert min(free) > 0.1
    assert max(clipped) <= 0.1 * (1 + 1e-5)
    assert max(clipped) > 0.099  # scaled down to the limit, not further

    task = gan(SpiedGAN)
    fit(task, epochs=2, clip_norm=0.01)
    assert len(task.norms) == 28
    assert 0.0099 < max(task.norms) <= 0.01 * (1 + 1e-5)


def test_gradients_below_the_limit_are_left_as_they_are():
    free, limited = classifier(), classifier()
    fit(free, epochs=1)
    fit(limited, epochs=1, clip_norm=1e6)
    assert same(weights(free), weights(limited))


def test_max_steps_stops_exactly_there():
    assert [row["step"] for row in fit(Scripted([0]), epochs=9, max_steps=10)] == [7, 10]
    assert [row["step"] for row in fit(Scripted([0]), epochs=9, max_steps=14)] == [7, 14]
    assert [row["step"] for row in fit(Scripted([0]), epochs=1, max_steps=15)] == [7, 14, 15]
    task = Scripted([0])
    fit(task, epochs=9, max_steps=10)
    assert task.weight == 10


def test_dry_run_does_two_steps():
    task = Scripted([0])
    fit(task, dry_run=True)
    assert task.weight == 2


@pytest.mark.parametrize("cut", [4, 7, 10])
def test_going_on_after_max_steps_equals_never_having_stopped(tmp_path, cut):
    cut_off, gone_on, uninterrupted = (classifier(0.5) for _ in range(3))
    held_out = BatchLoader(blobs(5), 5)
    expected = fit(uninterrupted, epochs=3, max_steps=17, validation=held_out)
    fit(cut_off, epochs=3, max_steps=cut, validation=held_out, folder=tmp_path)
    history = fit(gone_on, epochs=3, max_steps=17, validation=held_out, folder=tmp_path, resume=True)
    assert same(weights(gone_on), weights(uninterrupted))
    assert history == expected


# schedules


def test_a_schedule_of_steps_steps_after_every_step():
    halve = partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.5)
    task = classifier(optimizer=SGD, schedule=lambda optimizer, _: Schedule(halve(optimizer), every="step"))
    assert [row["charts/learning_rate"] for row in fit(task, epochs=2)] == [0.5**7, 0.5**14]


def test_a_schedule_of_epochs_steps_after_every_epoch():
    halve = partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.5)
    task = classifier(optimizer=SGD, schedule=lambda optimizer, _: Schedule(halve(optimizer)))
    assert [row["charts/learning_rate"] for row in fit(task, epochs=4)] == [1, 0.5, 0.25, 0.125]


class Plateau(Scripted):
    monitor = "val/score"

    def configure_schedules(self, optimizers, steps):
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizers["model"], factor=0.5, patience=0)
        return {"model": Schedule(plateau, monitor=self.monitor)}


def test_a_schedule_that_follows_a_metric_steps_with_its_value():
    held_out = BatchLoader(blobs(3).without_labels(), 2)
    history = fit(Plateau([2, 1, 3, 0, 3, 3]), n=4, batch=2, epochs=6, validation=held_out)
    assert [row["charts/learning_rate"] for row in history] == [1, 1, 1, 0.5, 0.5, 0.25]


def test_a_schedule_that_follows_an_unknown_metric_is_an_input_error():
    task = Plateau([1])
    task.monitor = "val/nothing"
    with pytest.raises(InputError, match="'val/nothing'"):
        fit(task, validation=BatchLoader(blobs(3).without_labels(), 2))


@pytest.mark.parametrize(
    ("options", "expected"), [({}, 21), ({"accumulate": 2}, 12), ({"max_steps": 5}, 5), ({"max_steps": 30}, 30)]
)
def test_a_schedule_is_told_how_many_steps_there_will_be(options, expected):
    told = []

    def schedule(optimizer, steps):
        told.append(steps)
        return Schedule(torch.optim.lr_scheduler.ConstantLR(optimizer, total_iters=1))

    assert fit(classifier(schedule=schedule), epochs=3, **options)[-1]["step"] == expected
    assert told == [expected]


# what is written


def test_the_table_on_disk_is_the_history(tmp_path):
    history = fit(gan(), epochs=3, evaluate_every=2, validation=BatchLoader(blobs(5), 5), folder=tmp_path)
    with open(tmp_path / "metrics.csv", newline="") as file:
        table = [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
    assert table == history
    assert "val/D(x)" in table[1]
    assert "val/D(x)" not in table[0]


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit(classifier(), epochs=1, checkpoint_every=1)
    assert not list(tmp_path.iterdir())


# what goes wrong


class Broken(Supervised):
    """Spoils the update of the fifth step."""

    spoil = staticmethod(lambda loss, weight: loss)

    def losses(self, batch):
        for update in super().losses(batch):
            if self.step_info.step == 4:
                update.loss = self.spoil(update.loss, self.model[1].weight)
            yield update


class BrokenGAN(GANTask):
    def losses(self, batch):
        for update in super().losses(batch):
            if self.step_info.step == 4 and update.optimizer == "generator":
                update.loss = update.loss * NAN
            yield update


def broken(spoil) -> Supervised:
    task = classifier(kind=Broken)
    task.spoil = spoil
    return task


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: broken(lambda loss, weight: loss * NAN), "loss .*'model' is nan"),
        (lambda: broken(lambda loss, weight: loss + math.inf), "loss .*'model' is inf"),
        (lambda: broken(lambda loss, weight: loss + (0 * weight.sum()).sqrt()), "grad_norm .*'model' is nan"),
        (lambda: gan(BrokenGAN), "loss .*'generator' is nan"),
    ],
    ids=["nan-loss", "infinite-loss-finite-gradient", "finite-loss-nan-gradient", "generator"],
)
def test_divergence_stops_the_run_names_the_place_and_leaves_the_checkpoint(tmp_path, make, named):
    path, kept, task = tmp_path / CHECKPOINT, [], make()
    saving = AtCheckpoint(lambda: kept.append(path.read_bytes()))
    with pytest.raises(TrainingDiverged, match=rf"{named} at step 5, batch 2 of epoch 2"):
        fit(task, n=12, epochs=3, folder=tmp_path, callbacks=[saving])
    assert len(kept) == 1  # that of the first epoch, of three steps
    assert path.read_bytes() == kept[0]
    assert all(tensor.isfinite().all() for tensor in weights(task).values())


def test_a_divergence_among_accumulated_batches_is_noticed():
    class Once(Supervised):
        def losses(self, batch):
            for update in super().losses(batch):
                if self.step_info[2:] == (1, 8):  # the first batch of the second group
                    update.loss = update.loss + math.inf
                yield update

    with pytest.raises(TrainingDiverged, match="at step 2, batch 3 of epoch 1"):
        fit(classifier(kind=Once), n=16, epochs=2, accumulate=2)


def test_what_is_no_loader_is_an_input_error():
    loader, good = [*BatchLoader(blobs(8), 4)], BatchLoader(blobs(8), 4)
    for loaders in ((loader, None), (good, loader)):
        with pytest.raises(InputError, match=r"BatchLoader.*DataLoader"):
            Trainer(device="cpu").fit(classifier(), *loaders)


@pytest.mark.parametrize(
    "options",
    [
        {"epochs": 0},
        {"seed": -1},
        {"seed": 2**32},
        {"accumulate": 0},
        {"log_every": 0},
        {"evaluate_every": -1},
        {"max_steps": -1},
        {"clip_norm": NAN},
        {"clip_norm": -1.0},
        {"checkpoint_every": -2},
        {"patience": 3},
    ],
)
def test_impossible_options_are_input_errors(options):
    with pytest.raises(InputError, match=next(iter(options))):
        Trainer(**options)


def test_resuming_without_a_folder_is_an_input_error():
    with pytest.raises(InputError, match=r"resume.*folder"):
        fit(classifier(), resume=True)


# precision and compilation


@pytest.mark.parametrize("make", [classifier, gan, partial(gan, loss="wgan_gp")], ids=["classifier", "gan", "wgan_gp"])
def test_bfloat16_trains_on_a_cpu_with_weights_in_float32(make):
    half, full = make(), make()
    history = fit(half, epochs=2, precision="bf16", validation=BatchLoader(blobs(5), 5))
    fit(full, epochs=2)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.float32}
    assert all(math.isfinite(value) for row in history for value in row.values())
    assert not same(weights(half), weights(full))
    assert_close(weights(half), weights(full), 0.05)


def products() -> tuple[str, ...]:
    kinds = torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn
    return tuple(kind.fp32_precision for kind in kinds)


def test_tf32_is_set_for_what_a_gpu_computes_and_is_fp32_on_a_cpu():
    before, tf32 = products(), ("tf32",) * 3
    for device, precision, expected in (("cuda", "tf32", tf32), ("cuda", "fp32", before), ("cpu", "tf32", before)):
        training = SimpleNamespace(options=Trainer(precision=precision), device=torch.device(device))
        with no_warnings(), suppress(KeyError), Fit.arithmetic(training):
            assert products() == expected
            raise KeyError
        assert products() == before != tf32
    full, same_there = classifier(), classifier()
    fit(full, epochs=1)
    fit(same_there, epochs=1, precision="tf32")
    assert same(weights(full), weights(same_there))


def test_a_step_an_evaluation_and_a_preview_have_the_precision_that_is_asked_for(monkeypatch):
    seen, task = set(), gan(real_examples=torch.zeros(2, 1, 4, 4))
    monkeypatch.setattr(Fit, "arithmetic", lambda fit: tf32())

    def noted(name, method):
        return lambda *args: (seen.add((name, products())), method(*args))[1]

    for name in ("losses", "evaluate", "preview"):
        monkeypatch.setattr(task, name, noted(name, getattr(task, name)))
    fit(task, epochs=1, validation=BatchLoader(blobs(5).without_labels(), 5))
    assert seen == {(name, ("tf32",) * 3) for name in ("losses", "evaluate", "preview")}


def test_without_a_compiler_the_trainer_warns_and_trains_without_compiling(monkeypatch, capsys):
    monkeypatch.setattr("torchdl.training.fit.why_not_compile", lambda device: "there is no compiler")
    plain, asked, told = classifier(), classifier(), classifier()
    with no_warnings():
        fit(plain, epochs=1)
    with pytest.warns(UserWarning, match=r"torch\.compile.*there is no compiler"):
        fit(asked, epochs=1, compile=True)
    assert capsys.readouterr().out == ""
    with no_warnings():
        fit(told, epochs=1, compile=True, verbose=True)
    assert re.search(r"torch\.compile.*there is no compiler", capsys.readouterr().out)
    assert same(weights(plain), weights(asked))
    assert same(weights(plain), weights(told))


def test_with_a_compiler_the_task_is_asked_to_compile_its_modules(monkeypatch, capsys):
    monkeypatch.setattr("torchdl.training.fit.why_not_compile", lambda device: "")
    task, asked = classifier(), []
    monkeypatch.setattr(task, "compile_modules", lambda: asked.append(True))
    with no_warnings():
        fit(task, epochs=1, compile=True)
    assert asked == [True]
    assert capsys.readouterr().out == ""


def test_a_line_is_printed_for_every_evaluation_and_only_if_verbose(capsys):
    held_out = BatchLoader(blobs(5), 5)
    fit(classifier(), epochs=3, evaluate_every=2, validation=held_out)
    said = capsys.readouterr()
    assert said.out + said.err == ""
    fit(classifier(), epochs=3, evaluate_every=2, validation=held_out, verbose=True)
    lines = capsys.readouterr().out.splitlines()
    assert [re.match(r"epoch (\d)  step (\d+)  loss .*  val/loss ", line).groups() for line in lines] == [
        ("2", "14"),
        ("3", "21"),
    ]


def test_a_tasks_warnings_are_printed_after_the_epochs_line(capsys):
    task = classifier()
    task.warnings = lambda row: [f"val/loss is {row['val/loss']:.1f}", "second"]
    fit(task, epochs=1, validation=BatchLoader(blobs(5), 5), verbose=True)
    line, *found = capsys.readouterr().out.splitlines()
    assert line.startswith("epoch 1")
    assert [re.fullmatch(r"WARNING: (val/loss is \d\.\d|second)", sentence) is not None for sentence in found] == [
        True,
        True,
    ]


@pytest.mark.parametrize(
    ("error", "reason"),
    [(RuntimeError("no C++ compiler\nlong story"), "no C++ compiler"), (NotImplementedError(), "NotImplementedError")],
)
def test_why_not_compile_gives_the_compilers_reason_in_one_line(monkeypatch, error, reason):
    def fail(function):
        raise error

    monkeypatch.setattr(torch, "compile", fail)
    assert why_not_compile(torch.device("cpu")) == reason


def test_why_not_compile_is_empty_where_compiling_works(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function: function)
    assert why_not_compile(torch.device("cpu")) == ""
