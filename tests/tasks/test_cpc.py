from __future__ import annotations

import copy
import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from helpers import fill_, gaussian
from torch import Tensor, nn

from torchdl import (
    CPC,
    BatchLoader,
    ContextNetwork,
    CPCTask,
    Digits,
    InputError,
    Predictors,
    SameNumbers,
    SortedNumbers,
    Trainer,
    TrainingDiverged,
    image_cpc,
)
from torchdl.data.sequences import Sequences
from torchdl.models import SignalEncoder
from torchdl.models.cpc import Prediction
from torchdl.tasks import Update, plateau
from torchdl.training.evaluation import evaluate

B, T, K, D, CLASSES = 8, 4, 3, 5, 10
HEADS = ("infonce", "paired")
CPU = torch.device("cpu")


pytestmark = pytest.mark.usefixtures("quick")


def network(every_term: bool = False) -> CPC:
    parts = nn.Linear(6, D), ContextNetwork(D, 7), Predictors(7, D, K)
    return fill_(CPC(*parts, every_term), 3).double()


def sequences(count: int = B, seed: int = 0, label: Tensor | None = None) -> Sequences:
    """Draw sequences of vectors, half of them with a false future."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.arange(count) % 3 % 2 if label is None else label
    digits = torch.randint(CLASSES, (count, T + K), generator=generator)
    shift = torch.randint(1, CLASSES, (count, K), generator=generator)
    expected = torch.where(label[:, None] == 1, digits[:, T:], (digits[:, T:] + shift) % CLASSES)
    x = 3 * gaussian(count, T + K, 6, seed=seed, dtype=torch.float64)
    return Sequences(x[:, :T], x[:, T:], label, digits, expected)


def run(task: CPCTask, batch) -> tuple[np.ndarray, np.ndarray]:
    with torch.no_grad():
        predicted, codes = task.model(batch[0], batch[1])
    return predicted.numpy(), codes.numpy()


# the loss


def slow_loss(predicted, codes, label, head="infonce", other_steps=False, temperature=1.0) -> float:
    """Go through every prediction of every sequence by itself."""
    count, terms, steps, size = predicted.shape
    known = codes.shape[1] - steps
    losses = []
    for i in range(count):
        products = []
        for t in range(known - terms, known):  # the term whose context predicts
            for k in range(steps):
                aim = t + 1 + k
                p = predicted[i, t - (known - terms), k]
                if head == "paired":
                    if aim >= known:
                        products.append(float(p @ codes[i, aim]) / size)
                    continue
                if aim >= known and label[i] == 0:
                    continue
                positions = range(known - terms + 1, codes.shape[1]) if other_steps else [aim]
                scores = [float(p @ codes[j, at]) / temperature for j in range(count) for at in positions]
                own = float(p @ codes[i, aim]) / temperature
                losses.append(math.log(sum(math.exp(score - own) for score in scores)))
        if head == "paired":
            probability = 1 / (1 + math.exp(-sum(products) / len(products)))
            losses.append(-math.log(probability if label[i] == 1 else 1 - probability))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("temperature", [1.0, 0.3])
@pytest.mark.parametrize("other_steps", [False, True])
@pytest.mark.parametrize("every_term", [False, True])
@pytest.mark.parametrize("head", HEADS)
def test_the_loss_is_that_of_one_prediction_after_another(head, every_term, other_steps, temperature):
    task = CPCTask(network(every_term), head, other_steps=other_steps, temperature=temperature)
    batch = sequences()
    expected = slow_loss(*run(task, batch), batch.label, head, other_steps, temperature)
    (update,) = task.losses(batch)
    assert update.optimizer == "model"
    assert update.loss.item() == pytest.approx(expected, rel=1e-9)
    # held-out means are the same, though each example has a value and a weight of its own
    loader = BatchLoader(Held(batch), B)
    assert evaluate(task, loader, CPU, nullcontext)["val/loss"] == pytest.approx(expected, rel=1e-9)


class Held(torch.utils.data.Dataset):
    """A batch as a data set."""

    def __init__(self, batch) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return len(self.batch[0])

    def __getitems__(self, index):
        parts = [part[index] for part in self.batch]
        return type(self.batch)(*parts) if isinstance(self.batch, Sequences) else tuple(parts)


class Given(nn.Module):
    """Predictions and codes as they are wanted."""

    def __init__(self, predicted: Tensor, codes: Tensor) -> None:
        super().__init__()
        self.predicted, self.codes = nn.Parameter(predicted), nn.Parameter(codes)

    def forward(self, _context, _future):
        return Prediction(self.predicted, self.codes)


@pytest.mark.parametrize("every_term", [False, True])
@pytest.mark.parametrize("other_steps", [False, True])
def test_what_is_no_anchor_gets_no_gradient_and_every_candidate_does(every_term, other_steps):
    label = torch.tensor([1, 0, 1, 0])
    model = Given(gaussian(4, T if every_term else 1, K, D), gaussian(4, T + K, D, seed=1))
    task = CPCTask(model, other_steps=other_steps)
    next(task.losses((torch.zeros(4, T), torch.zeros(4, K), label))).loss.backward()
    is_anchor = model.predicted.grad.abs().amax(3) > 0  # (4, T or 1, K)
    aims = torch.arange(T - is_anchor.shape[1], T)[:, None] + 1 + torch.arange(K)
    assert torch.equal(is_anchor, ((aims < T) | (label == 1)[:, None, None]).expand_as(is_anchor))
    is_candidate = model.codes.grad.abs().amax(2) > 0  # (4, T + K), of false futures, too
    assert is_candidate[:, T:].all()
    assert bool(is_candidate[:, 1:T].all()) is every_term
    assert not is_candidate[:, 1 if every_term else T :].logical_not().any()
    assert not is_candidate[:, 0].any()


@pytest.mark.parametrize("every_term", [False, True])
@pytest.mark.parametrize("other_steps", [False, True])
def test_the_own_code_is_among_the_candidates_once(every_term, other_steps):
    # equal scores: the loss is the logarithm of the number of candidates
    model = Given(torch.zeros(B, T if every_term else 1, K, D), gaussian(B, T + K, D))
    task = CPCTask(model, other_steps=other_steps)
    batch = torch.zeros(B, T), torch.zeros(B, K), torch.ones(B, dtype=torch.int64)
    steps = (T - 1 if every_term else 0) + K if other_steps else 1
    assert next(task.losses(batch)).loss.item() == pytest.approx(math.log(B * steps), rel=1e-6)
    # codes beyond doubt: no other candidate is the own one, so the loss is zero
    codes = 20 * torch.eye(B * (T + K), dtype=torch.float64).unflatten(0, (B, T + K))
    terms = range(T) if every_term else [T - 1]
    predicted = torch.stack([codes[:, t + 1 : t + 1 + K] for t in terms], dim=1)
    task.model = Given(predicted, codes)
    assert next(task.losses(batch)).loss.item() == 0
    # two candidates as good as each other, of which one is the own: log 2
    twice = torch.arange(B) // 2 * 2
    task.model = Given(predicted[twice], codes[twice])
    assert next(task.losses(batch)).loss.item() == pytest.approx(math.log(2))


def test_infonce_of_one_sequence_is_an_input_error_and_a_paired_loss_of_one_is_not():
    batch = sequences(1, label=torch.ones(1, dtype=torch.int64))
    with pytest.raises(InputError, match=r"batch_size must be 2.*drop_last"):
        next(CPCTask(network()).losses(batch))
    assert next(CPCTask(network(), "paired").losses(batch)).loss.isfinite()


def test_a_future_that_is_not_as_long_as_the_predictions_is_an_input_error():
    batch = sequences()
    with pytest.raises(InputError, match=r"3 terms.*not 2"):
        next(CPCTask(network()).losses((batch.context, batch.future[:, :2], batch.label)))


def test_a_batch_without_a_real_future_teaches_infonce_nothing_from_the_last_term():
    task = CPCTask(network())
    loss = next(task.losses(sequences(label=torch.zeros(B, dtype=torch.int64)))).loss
    loss.backward()
    assert loss.item() == 0
    assert all(parameter.grad.abs().sum() == 0 for parameter in task.parameters())


# what is measured


def slow_metrics(predicted, codes, batch: Sequences, head: str, temperature: float) -> dict[str, float]:
    count, _, steps, size = predicted.shape
    label, digits, expected = batch.label.tolist(), batch.digits.tolist(), batch.expected.tolist()
    known, last = codes.shape[1] - steps, predicted[:, -1]
    names = ("paired_accuracy", "top1", "top1_ceiling", "information", "chance", "ceiling")
    found: dict[str, list[float]] = {name: [] for name in names}
    per_step: list[list[float]] = [[] for _ in range(steps)]
    for i in range(count):
        believed = []
        for k in range(steps):
            scores = [float(last[i, k] @ codes[j, known + k]) / temperature for j in range(count)]
            best = max(range(count), key=scores.__getitem__)
            information = math.log(count) - math.log(sum(math.exp(score - scores[i]) for score in scores))
            shown = [digits[j][known + k] for j in range(count)]
            right = [j for j in range(count) if shown[j] == expected[i][k]]
            per_step[k].append(float(best in right))
            found["chance"].append(len(right) / count)
            found["ceiling"].append(float(len(right) > 0))
            believed.append(float(last[i, k] @ codes[i, known + k]) / size if head == "paired" else information)
            if label[i]:
                found["top1"].append(float(best == i))
                found["top1_ceiling"].append(1 / len(right))
                found["information"].append(information)
        found["paired_accuracy"].append(float((sum(believed) > 0) == bool(label[i])))
    means = {name: sum(values) / len(values) for name, values in found.items()}
    renamed = {"chance": "digit_accuracy_chance", "ceiling": "digit_accuracy_ceiling"}
    metrics = {renamed.get(name, name): value for name, value in means.items()}
    metrics |= {f"digit_accuracy_step_{k + 1}": sum(values) / count for k, values in enumerate(per_step)}
    metrics["digit_accuracy"] = sum(sum(values) for values in per_step) / (count * steps)
    metrics["top1_chance"] = 1 / count
    metrics["paired_accuracy_chance"] = max(sum(label), count - sum(label)) / count
    metrics["information_ceiling"] = math.log(10)
    if head == "paired":
        del metrics["information"], metrics["information_ceiling"]
    return metrics


@pytest.mark.parametrize("every_term", [False, True])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("seed", range(3))
def test_metrics_are_those_of_one_sequence_after_another(head, every_term, seed):
    task = CPCTask(network(every_term), head, temperature=1.5, classes=CLASSES)
    batch = sequences(30, seed)
    measured = evaluate(task, BatchLoader(Held(batch), 30), CPU, nullcontext)
    expected = slow_metrics(*run(task, batch), batch, head, 1.5)
    at_chance = {"val/steps_at_chance"} if head == "paired" else set()
    assert measured.keys() == {"val/loss", *at_chance} | {f"val/{name}" for name in expected}
    for name, value in expected.items():
        assert measured[f"val/{name}"] == pytest.approx(value, rel=1e-6, abs=1e-9), name
    # the steps differ, so that one step's accuracy is not that of all
    steps = {expected[f"digit_accuracy_step_{k + 1}"] for k in range(K)}
    assert len(steps) > 1


def solved(count: int = 12, right: tuple[bool, ...] = (True,) * K) -> tuple[CPCTask, Sequences]:
    """Build a batch whose digits are all predicted in the steps that ``right`` says, and in no other."""
    generator = torch.Generator().manual_seed(1)
    digits = torch.randint(CLASSES, (count, T + K), generator=generator)
    digits[:CLASSES, T:] = torch.arange(CLASSES)[:, None]  # so that there is a candidate of every digit
    codes = 30 * torch.eye(CLASSES)[digits]
    aims = [digits[:, T + k] if right[k] else (digits[:, T + k] + 1) % CLASSES for k in range(K)]
    predicted = torch.stack([torch.eye(CLASSES)[aim] for aim in aims], dim=1)[:, None]
    label = torch.ones(count, dtype=torch.int64)
    batch = Sequences(torch.zeros(count, T), torch.zeros(count, K), label, digits, digits[:, T:])
    return CPCTask(Given(predicted, codes), classes=CLASSES), batch


@pytest.mark.parametrize("right", [(True, True, True), (False, False, True), (True, False, False)])
def test_all_steps_count_alike(right):
    task, batch = solved(right=right)
    measured = evaluate(task, BatchLoader(Held(batch), 12), CPU, nullcontext)
    assert [measured[f"val/digit_accuracy_step_{k + 1}"] for k in range(K)] == [float(r) for r in right]
    assert measured["val/digit_accuracy"] == pytest.approx(sum(right) / K)
    assert 0 < measured["val/top1"] < sum(right) / K + 1e-9


@pytest.mark.slow
def test_a_perfect_predictor_reaches_every_ceiling():
    task, batch = solved(2000)
    measured = evaluate(task, BatchLoader(Held(batch), 2000), CPU, nullcontext)
    assert measured["val/digit_accuracy"] == measured["val/digit_accuracy_ceiling"] == 1
    assert measured["val/paired_accuracy"] == 1
    assert measured["val/top1_ceiling"] == pytest.approx(1 / 200, rel=0.05)
    assert measured["val/top1"] == pytest.approx(measured["val/top1_ceiling"], rel=0.05)
    # log 10 is what a number of ten, all as frequent, can tell
    assert measured["val/information_ceiling"] == pytest.approx(math.log(10))
    assert measured["val/information"] == pytest.approx(math.log(10), abs=0.01)


@pytest.mark.parametrize("count", [2, 8, 32])
def test_the_ceiling_of_finding_the_own_one_among_random_digits(count):
    generator = torch.Generator().manual_seed(0)
    ceilings = []
    task = CPCTask(Given(torch.zeros(count, 1, K, D), torch.zeros(count, T + K, D)))
    for _ in range(300):
        digits = torch.randint(CLASSES, (count, T + K), generator=generator)
        label = torch.ones(count, dtype=torch.int64)
        value, weight = task.evaluate((torch.zeros(count, T), torch.zeros(count, K), label, digits, digits[:, T:]))[
            "top1_ceiling"
        ]
        assert torch.equal(weight, torch.ones_like(weight))
        ceilings.append(value.mean().item())
    assert np.mean(ceilings) == pytest.approx((1 - 0.9**count) / (0.1 * count), rel=0.03)


def test_one_positive_in_32_is_told_apart_by_chance_in_31_of_32():
    task = CPCTask(network(), "paired")
    with torch.no_grad():
        for linear in task.model.predictors.linear:  # says always that a future is false, and knows nothing
            linear.weight.zero_()
            linear.bias.fill_(1.0)
        task.model.encoder.weight.zero_()
        task.model.encoder.bias.fill_(-1.0)
    label = torch.zeros(32, dtype=torch.int64)
    label[5] = 1
    batch = sequences(32, label=label)
    measured = evaluate(task, BatchLoader(Held(batch), 32), CPU, nullcontext)
    assert measured["val/paired_accuracy"] == measured["val/paired_accuracy_chance"] == 31 / 32
    (update,) = task.losses(batch)
    assert update.metrics["paired_accuracy"].item() == 31 / 32
    half = sequences(32, label=torch.arange(32) % 2)
    measured = evaluate(task, BatchLoader(Held(half), 32), CPU, nullcontext)
    assert measured["val/paired_accuracy"] == measured["val/paired_accuracy_chance"] == 1 / 2


def test_means_over_batches_weigh_what_only_positives_have_by_them():
    task = CPCTask(network())
    label = torch.tensor([1, 1, 1, 0, 0, 0, 0, 1])
    batch = sequences(8, label=label)
    measured = evaluate(task, BatchLoader(Held(batch), 4), CPU, nullcontext)
    parts = [Sequences(*(part[rows] for part in batch)) for rows in (slice(0, 4), slice(4, 8))]
    of_parts = [slow_metrics(*run(task, part), part, "infonce", 1.0) for part in parts]
    for name in ("top1", "information", "top1_ceiling"):
        expected = (3 * of_parts[0][name] + of_parts[1][name]) / 4
        assert measured[f"val/{name}"] == pytest.approx(expected, rel=1e-6), name
    losses = [slow_loss(*run(task, part), part.label) for part in parts]
    assert measured["val/loss"] == pytest.approx((3 * losses[0] + losses[1]) / 4)


def test_without_any_positive_there_is_no_loss_to_find_among_the_held_out():
    measured = evaluate(
        CPCTask(network()),
        BatchLoader(Held(sequences(4, label=torch.zeros(4, dtype=torch.int64))), 4),
        CPU,
        nullcontext,
    )
    assert not {"val/loss", "val/top1", "val/information"} & measured.keys()
    assert measured["val/paired_accuracy_chance"] == 1


@pytest.mark.parametrize("head", HEADS)
def test_batches_without_digits_have_every_metric_that_needs_none(head):
    task, batch = CPCTask(network(), head, classes=0), sequences()
    with_digits = evaluate(task, BatchLoader(Held(batch), B), CPU, nullcontext)
    without = evaluate(task, BatchLoader(Held(tuple(batch[:3])), B), CPU, nullcontext)
    dropped = {name for name in with_digits if "digit" in name} | {"val/top1_ceiling"}
    assert without == {name: value for name, value in with_digits.items() if name not in dropped}
    assert "val/information_ceiling" not in without
    assert ("val/information" in without) is (head == "infonce")


def test_batches_of_real_futures_with_classes_have_no_ceiling_of_what_classes_do_not_tell():
    task = CPCTask(network(), classes=0)
    batch = sequences(label=torch.ones(B, dtype=torch.int64))
    real = batch._replace(expected=batch.digits[:, -batch.expected.shape[1] :])
    of_digits = evaluate(task, BatchLoader(Held(real), B), CPU, nullcontext)
    of_classes = evaluate(task, BatchLoader(Held((real.context, real.future, real.digits)), B), CPU, nullcontext)
    kept = {name: value for name, value in of_digits.items() if "paired" not in name and name != "val/top1_ceiling"}
    assert of_classes == {name.replace("digit", "class"): value for name, value in kept.items()}
    bare = evaluate(task, BatchLoader(Held((real.context, real.future)), B), CPU, nullcontext)
    assert bare == {name: value for name, value in kept.items() if "digit" not in name}


def test_the_bound_on_the_information_is_left_out_where_it_does_not_hold():
    assert "information" not in CPCTask(network(), other_steps=True).evaluate(sequences())


# training


def prototypes(count: int, size: int = 15) -> Digits:
    """Make images of ten classes, each noise around its own pattern."""
    labels = torch.arange(count) % CLASSES
    patterns = 128 + 100 * gaussian(CLASSES, size, size, seed=9).sign()
    pixels = patterns[labels] + 30 * gaussian(count, size, size, seed=count)  # other noise in another number of them
    return Digits(pixels.clamp(0, 255).to(torch.uint8), labels, size, color=False)


def digits_cpc(every_term: bool = False) -> CPC:
    torch.manual_seed(0)
    return image_cpc(15, 3, 16, 32, 2, every_term=every_term)


def images(batch_size: int = 16, kind: type = SortedNumbers, count: int = 400) -> SortedNumbers:
    return kind(prototypes(count), terms=3, predict_terms=2, batch_size=batch_size)


@pytest.mark.parametrize("every_term", [False, True])
@pytest.mark.parametrize("head", HEADS)
def test_every_parameter_moves_in_the_first_step(head, every_term):
    task = CPCTask(digits_cpc(every_term), head, monitor="train/loss")
    before = copy.deepcopy(dict(task.named_parameters()))
    Trainer(max_steps=1, device="cpu").fit(task, BatchLoader(images(), 16))
    # a bias before a batch norm cancels out: what moves it is rounding
    still = [name for name, p in task.named_parameters() if torch.equal(p, before[name])]
    assert not [name for name in still if not ("encoder" in name and name.endswith("bias"))]


@pytest.mark.parametrize("head", HEADS)
def test_the_optimizer_has_every_parameter(head):
    task = CPCTask(digits_cpc(), head)
    (group,) = task.configure_optimizers()["model"].param_groups
    assert {id(p) for p in group["params"]} == {id(p) for p in task.model.parameters()}
    assert group["lr"] == 1e-3
    assert group["betas"] == (0.9, 0.999)


@pytest.mark.parametrize("head", HEADS)
def test_evaluation_leaves_the_statistics_and_weights_alone(head):
    task, loader = CPCTask(digits_cpc(), head), BatchLoader(images(), 16)
    before = copy.deepcopy(task.state_dict())
    first = evaluate(task, loader, CPU, nullcontext)
    assert all(torch.equal(value, before[name]) for name, value in task.state_dict().items())
    assert evaluate(task, loader, CPU, nullcontext) == first
    often, never = CPCTask(digits_cpc(), head), CPCTask(digits_cpc(), head, monitor="train/loss")
    Trainer(epochs=2, device="cpu").fit(often, BatchLoader(images(), 16), loader)
    Trainer(epochs=2, device="cpu").fit(never, BatchLoader(images(), 16))
    assert all(torch.equal(value, never.state_dict()[name]) for name, value in often.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("every_term", [False, True])
def test_one_batch_is_overfitted(head, every_term):
    task = CPCTask(digits_cpc(every_term), head, lr=3e-3)
    batch = images()[:16]
    optimizer = task.configure_optimizers()["model"]
    losses = []
    for _ in range(70):
        (update,) = task.losses(batch)
        update.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(update.loss.item())
    assert losses[-1] < (1.0 if head == "infonce" else 0.1)
    assert losses[0] > (2.0 if head == "infonce" else 0.5)


@pytest.mark.slow
@pytest.mark.parametrize(("head", "kind"), [("infonce", SortedNumbers), ("paired", SameNumbers)])
def test_sequences_not_seen_are_predicted(head, kind):
    task = CPCTask(digits_cpc(), head, lr=3e-3)
    train, held_out = images(32, kind, count=2000), images(32, kind, count=500)
    held_out.images.seed = 1
    assert not torch.equal(train.images.images[:500], held_out.images.images)
    row = Trainer(epochs=6, device="cpu").fit(task, BatchLoader(train, 32), BatchLoader(held_out, 32))[-1]
    assert row["val/paired_accuracy_chance"] == 0.5
    assert row["val/paired_accuracy"] > 0.9
    if head == "infonce":
        assert row["val/digit_accuracy"] > 0.8 > 0.2 > row["val/digit_accuracy_chance"]
        assert 1.0 < row["val/information"] < math.log(32)


class Sines(torch.utils.data.Dataset):
    """Windows of a sine of a frequency of its own, whose future is the real one or another's."""

    def __init__(self, count: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        frequency = torch.tensor([0.02, 0.05, 0.11, 0.23])[torch.randint(4, (count,), generator=generator)]
        phase = torch.rand(count, 1, generator=generator)
        x = torch.sin(2 * math.pi * (frequency[:, None] * torch.arange(6 * 32) + phase)).view(count, 6, 1, 32)
        x = x + 0.1 * torch.randn(x.shape, generator=generator)
        self.label = torch.arange(count) % 2
        other = torch.stack([(frequency != f).float().multinomial(1, generator=generator)[0] for f in frequency])
        which = torch.where(self.label == 1, torch.arange(count), other)
        self.context, self.future = x[:, :4], x[which, 4:]

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, index: int):
        return self.context[index], self.future[index], self.label[index]


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
def test_signals_are_predicted(head):
    torch.manual_seed(0)
    encoder = SignalEncoder(1, 16, kernels=(8, 4), strides=(4, 2))
    task = CPCTask(CPC(encoder, ContextNetwork(16, 16), Predictors(16, 16, 2)), head, lr=1e-2, classes=4)
    loaders = [BatchLoader(Sines(count, seed), 32) for count, seed in ((640, 0), (128, 1))]
    row = Trainer(epochs=8, device="cpu").fit(task, *loaders)[-1]
    assert row["val/paired_accuracy_chance"] == 0.5
    assert row["val/paired_accuracy"] > 0.9
    assert "val/digit_accuracy" not in row
    if head == "infonce":
        assert row["val/information"] > 0.8


def test_the_learning_rate_falls_when_keras_would_let_it_fall():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1e-3)
    schedule = plateau(optimizer)
    rates = []
    for loss in (1.0, 0.99995, 1.0, 1.0, 1.0, 1.0, 1.0):  # the second is not lower by 1e-4
        schedule.scheduler.step(loss)
        rates.append(optimizer.param_groups[0]["lr"])
    # keras.callbacks.ReduceLROnPlateau(factor=1/3, patience=2, min_lr=1e-4), after each epoch
    assert rates == pytest.approx([1e-3, 1e-3, 1e-3 / 3, 1e-3 / 3, 1e-3 / 9, 1e-3 / 9, 1e-4])


def test_the_learning_rate_follows_the_held_out_loss_or_the_training_loss():
    data = images()
    with pytest.raises(InputError, match="'val/loss'"):
        Trainer(epochs=1, device="cpu").fit(CPCTask(digits_cpc()), BatchLoader(data, 16))
    task = CPCTask(digits_cpc(), monitor="train/loss", lr=1e-3)
    seen = []
    schedules = task.configure_schedules

    def configured(optimizers, steps):
        made = schedules(optimizers, steps)
        step = made["model"].scheduler.step
        made["model"].scheduler.step = lambda value: (seen.append(value), step(value))
        return made

    task.configure_schedules = configured
    history = Trainer(epochs=2, device="cpu").fit(task, BatchLoader(data, 16))
    assert seen == [row["train/loss"] for row in history]
    assert all(math.isfinite(loss) for loss in seen)


class SpoiledAt(nn.Module):
    """Spoils the code of the inputs that begin with a number."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder(x).masked_fill((x[:, :1] == 99), math.nan)


@pytest.mark.parametrize("spoiled", ["context of a false future", "context of a real one", "false future"])
@pytest.mark.parametrize("every_term", [False, True])
@pytest.mark.parametrize("head", HEADS)
def test_a_nan_in_the_network_stops_the_run_whoever_has_it(head, every_term, spoiled):
    model = network(every_term)
    model.encoder = SpoiledAt(model.encoder)
    batch = sequences(8, label=torch.arange(8) % 2)
    part, row = {"context of a false future": (0, 2), "context of a real one": (0, 3), "false future": (1, 4)}[spoiled]
    batch[part][row, 1, 0] = 99
    task = CPCTask(model, head, monitor="train/loss")
    with pytest.raises(TrainingDiverged, match="'model' is nan at step 1"):
        Trainer(epochs=1, device="cpu").fit(task, BatchLoader(Held(batch), 8))


def test_previews_show_the_images_of_the_best_candidates():
    batch = images()[:14]
    model = digits_cpc().eval()
    task = CPCTask(model, examples=batch[:2])
    with torch.no_grad():
        shown = task.preview()
        predicted, codes = model(*batch[:2])
    assert {name: x.shape[:2] for name, x in shown.items()} == {
        "context": (12, 3),
        "future": (12, 2),
        "best candidates": (12, 2),
    }
    torch.testing.assert_close(shown["future"], (batch.future[:12] + 1) / 2)
    for i in range(12):
        for k in range(2):
            best = int((codes[:, 3 + k] @ predicted[i, 0, k]).argmax())
            torch.testing.assert_close(shown["best candidates"][i, k], (batch.future[best, k] + 1) / 2)
    assert not any("example" in name for name in task.state_dict())
    assert CPCTask(model).preview() == {}
    assert CPCTask(model, examples=(torch.zeros(2, 3, 1, 32), torch.zeros(2, 2, 1, 32))).preview() == {}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"head": "ours"}, "'ours'.*infonce, paired"),
        ({"temperature": 0.0}, "temperature.*0.0"),
        ({"temperature": math.inf}, "temperature.*inf"),
        ({"lr": 0.0}, "learning rate.*0.0"),
        ({"classes": -1}, "classes.*-1"),
    ],
)
def test_bad_arguments_are_input_errors(options, named):
    with pytest.raises(InputError, match=named):
        CPCTask(network(), **options)


# leaving chance


class Losses(CPCTask):
    """A paired head that learns nothing and whose losses are given."""

    def __init__(self, values, **settings) -> None:
        super().__init__(nn.Linear(1, 1), "paired", lr=1e-9, **settings)
        self.values = values

    def losses(self, batch):
        loss = self.values[self.step_info.step]
        self.watch(torch.tensor(loss), batch)
        yield Update("model", self.model.weight.sum() * 0 + loss)

    def evaluate(self, batch):
        return {"loss": torch.zeros(len(batch))}


def stand(values, labels=(0, 1), steps=None, **fitting):
    data = BatchLoader(torch.tensor(labels * 300), len(labels))
    return Trainer(max_steps=steps or len(values)).fit(Losses(values), data, data, **fitting)


LEAVING = [0.69] * 130 + [0.5] * 60


def test_a_paired_loss_leaves_chance_when_the_mean_of_40_steps_falls_below_060():
    # after n low losses the mean is 0.69 - n * 0.19 / 40, below 0.60 from n = 19 on
    assert stand(LEAVING)[-1]["val/steps_at_chance"] == 130 + 19
    assert stand([0.69] * 90)[-1]["val/steps_at_chance"] == 90  # so far
    assert stand([0.5] * 90)[-1]["val/steps_at_chance"] < 40
    # with one real future in eight, guessing has a loss of 0.377 and chance ends at 0.326
    assert stand([0.376] * 90, (1, 0, 0, 0, 0, 0, 0, 0))[-1]["val/steps_at_chance"] == 90
    assert stand([0.30] * 90, (1, 0, 0, 0, 0, 0, 0, 0))[-1]["val/steps_at_chance"] < 90
    assert stand([0.10] * 90, (1, 1))[-1]["val/steps_at_chance"] == 90  # there is nothing to guess


def test_a_resumed_run_knows_how_long_the_loss_stood(tmp_path):
    stand(LEAVING, steps=140, folder=tmp_path)  # within the low losses
    assert stand(LEAVING, folder=tmp_path, resume=True)[-1]["val/steps_at_chance"] == 149


def test_a_checkpoint_that_does_not_know_how_long_the_loss_stood_can_be_loaded():
    task = CPCTask(network(), "paired")
    state = {name: value for name, value in task.state_dict().items() if "chance" not in name and "recent" not in name}
    assert len(state) == len(task.state_dict()) - 2
    task.load_state_dict(state)


def test_a_paired_loss_that_stands_at_chance_is_warned_of_once(capsys):
    stand([0.693] * 590, verbose=True)
    stand([0.693] * 470 + [0.5] * 90, verbose=True)
    lines = [line for line in capsys.readouterr().out.splitlines() if "WARNING: step" in line]
    assert len(lines) == 1
    assert lines[0].startswith("WARNING: step 500: the loss has been that of guessing for 500 steps")
    assert "center_images" in lines[0]
