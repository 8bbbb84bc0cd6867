"""What users hand to public classes on an ordinary day: it works, or one sentence says what to do."""

from __future__ import annotations

from collections import OrderedDict, UserDict, namedtuple
from functools import partial

import numpy as np
import pandas
import pytest
import torch
import torch.nn.functional as F
from helpers import fill_, gaussian
from torch import nn
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, Dataset

import torchdl
from torchdl import (
    ArrayDataset,
    AutoencoderTask,
    BatchLoader,
    CPCTask,
    GANTask,
    ImageDataset,
    InputError,
    Supervised,
    Task,
    Trainer,
    Update,
)
from torchdl.tasks import accuracy
from torchdl.training.device import move
from torchdl.training.logging import Logger

pytestmark = pytest.mark.usefixtures("quick")
X, LABELS = gaussian(11, 4), torch.arange(11) % 3
CLASSES, NUMBERS = ArrayDataset(X, LABELS), ArrayDataset(X, gaussian(11, 3, seed=1))


def linear() -> nn.Module:
    return fill_(nn.Linear(4, 3))


def fit(task: Task, data: Dataset, batch_size: int = 4, **options) -> dict[str, float]:
    loader = BatchLoader(data, batch_size)
    return Trainer(**{"epochs": 1, "device": "cpu", **options}).fit(task, loader, loader)[-1]


class Returning(nn.Module):
    """A model whose output is not a tensor."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.linear, self.kind = linear(), kind

    def forward(self, x: torch.Tensor):
        y = self.linear(x)
        kinds = {"tuple": (y, x), "list": [y, x], "dictionary": {"logits": y, "hidden": x}}
        return kinds.get(self.kind) or namedtuple("Output", "logits hidden")(y, x)


class Rows(Dataset):
    """Items of any form."""

    def __init__(self, form) -> None:
        self.form = form

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, index: int):
        return self.form(X[index], LABELS[index])


# losses

CLASS_WEIGHTS = torch.tensor([1.0, 5.0, 0.1])
LOSSES = {
    "module": (nn.CrossEntropyLoss(), CLASSES),
    "module with class weights": (nn.CrossEntropyLoss(weight=CLASS_WEIGHTS), CLASSES),
    "module that ignores a class": (nn.CrossEntropyLoss(ignore_index=1), CLASSES),
    "module with smoothing and weights": (nn.CrossEntropyLoss(CLASS_WEIGHTS, label_smoothing=0.1), CLASSES),
    "function": (F.cross_entropy, CLASSES),
    "partial function": (partial(F.cross_entropy, weight=CLASS_WEIGHTS), CLASSES),
    "lambda": (lambda output, target: F.cross_entropy(output, target), CLASSES),
    "lambda with keywords": (lambda output, target, **k: F.cross_entropy(output, target, **k), CLASSES),
    "squares": (nn.MSELoss(), NUMBERS),
    "lambda of squares": (lambda output, target: (output - target).square().mean(), NUMBERS),
    "huber": (nn.HuberLoss(), NUMBERS),
    "divergence": (
        lambda output, target, reduction="batchmean": F.kl_div(
            output.log_softmax(1), target.softmax(1), reduction=reduction
        ),
        NUMBERS,
    ),
    "flattened": (lambda output, target, **k: F.mse_loss(output.flatten(), target.flatten(), **k), NUMBERS),
    "one number in a row": (lambda output, target: (output - target).square().mean().view(1), NUMBERS),
}


@pytest.mark.parametrize(("loss", "data"), LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("batch_size", [3, 4, 11])  # the last batch has 2, 3 or all examples
def test_the_validation_loss_is_that_of_all_examples_at_once(loss, data, batch_size):
    class Still(Supervised):
        def configure_optimizers(self):
            return {"model": torch.optim.SGD(self.parameters(), lr=0.0)}

    task = Still(linear(), loss)
    measured = fit(task, data, batch_size)
    with torch.no_grad():
        expected = float(loss(task.model(data.inputs), data.targets))
    assert measured["val/loss"] == pytest.approx(expected, rel=1e-5)


def test_a_batch_without_a_weight_is_no_nan():
    labels = torch.tensor([1, 1, 1, 1, 0, 2, 1, 0])
    task = Supervised(linear(), nn.CrossEntropyLoss(ignore_index=1))
    loader = BatchLoader(ArrayDataset(X[:8], labels), 4)
    row = Trainer(epochs=1, device="cpu", monitor="val/loss").fit(task, BatchLoader(CLASSES, 11), loader)[-1]
    kept = labels != 1
    expected = F.cross_entropy(task.model(X[:8])[kept], labels[kept]).item()
    assert row["val/loss"] == pytest.approx(expected, rel=1e-5)


def test_the_parameters_of_a_loss_are_trained_and_its_weights_are_moved():
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.log_scale = nn.Parameter(torch.zeros(()))

        def forward(self, output, target):
            return (output - target).square().mean() * (-self.log_scale).exp() + self.log_scale

    task = Supervised(linear(), Scaled())
    fit(task, NUMBERS)
    assert task.loss.log_scale.item() != 0
    weighted = Supervised(linear(), nn.CrossEntropyLoss(CLASS_WEIGHTS)).to("meta")
    assert weighted.loss.weight.device.type == "meta"


def test_a_loss_of_many_numbers_is_refused_with_its_shape():
    with pytest.raises(InputError, match=r"^the loss must return one number .* not shape \(4, 3\)$"):
        Trainer(device="cpu").fit(Supervised(linear(), nn.MSELoss(reduction="none")), BatchLoader(NUMBERS, 4))
    with pytest.raises(InputError, match=r"^the loss must return one number .* not float$"):
        Trainer(device="cpu").fit(Supervised(linear(), lambda output, target: 1.0), BatchLoader(NUMBERS, 4))


# metrics


@pytest.mark.parametrize(
    "metric",
    [
        lambda output, target: output.argmax(1) == target,  # booleans
        lambda output, target: (output.argmax(1) == target).long(),
        lambda output, target: (output.argmax(1) == target).double(),
        accuracy,
    ],
)
def test_a_metric_may_be_of_any_type_of_numbers(metric):
    task = Supervised(linear(), F.cross_entropy, {"share": metric})
    measured = fit(task, CLASSES)
    assert measured["val/share"] == pytest.approx(float((task.model(X).argmax(1) == LABELS).double().mean()))
    assert 0 <= measured["train/share"] <= 1


@pytest.mark.parametrize("number", [0.5, True, np.float64(0.5), torch.tensor(0.5), torch.tensor(True)])
def test_a_metric_of_one_number_for_a_batch_trains_and_is_refused_in_a_validation(number):
    task = Supervised(linear(), F.cross_entropy, {"share": lambda output, target: number})
    history = Trainer(epochs=1, device="cpu").fit(task, BatchLoader(CLASSES, 4))
    assert history[-1]["train/share"] == float(number)
    with pytest.raises(InputError, match=r"the metric 'share' must be one number per example, .*: not \(\)$"):
        fit(task, CLASSES)


@pytest.mark.parametrize(("value", "kind"), [(None, "NoneType"), ("high", "str"), ([[1.0], [2.0, 3.0]], "list")])
def test_a_metric_that_is_no_number_is_named(value, kind):
    task = Supervised(linear(), F.cross_entropy, {"f1": lambda output, target: value})
    for run in (lambda: list(task.losses((X, LABELS))), lambda: fit(task, CLASSES)):
        with pytest.raises(InputError, match=f"^the metric 'f1' must be made of numbers, not a {kind}$"):
            run()


def test_a_task_may_measure_floats_booleans_and_lists():
    class Measuring(Supervised):
        def losses(self, batch):
            for update in super().losses(batch):
                yield Update("model", update.loss, {"a": 0.5, "b": True, "c": torch.tensor([1, 2]), "d": np.float32(3)})

        def evaluate(self, batch):
            return {"loss": [1.0] * len(batch[0]), "e": np.arange(len(batch[0]))}

        def summarize(self):
            return {"f": torch.tensor(4.0), "g": np.float64(5)}

    measured = fit(Measuring(linear(), F.cross_entropy), CLASSES, 11)
    names = ("train/a", "train/b", "train/c", "train/d", "val/loss", "val/e", "val/f", "val/g")
    assert [measured[name] for name in names] == [0.5, 1, 1.5, 3, 1, 5, 4, 5]
    assert type(measured["val/f"]) is type(measured["val/g"]) is float


def test_a_metric_or_loss_without_weight_in_the_first_batch_can_be_monitored():
    class Rare(Supervised):
        def evaluate(self, batch):
            late = (batch[0][:, 0] == X[10, 0]).float()  # only the last example
            return {"loss": (late, late), "rare": (2 * late, late)}

    for monitor in ("val/loss", "val/rare"):
        measured = fit(Rare(linear(), F.cross_entropy), CLASSES, monitor=monitor)
        assert (measured["val/loss"], measured["val/rare"]) == (1, 2)
    with pytest.raises(InputError, match=r"no metric 'val/other' to monitor: choose one of val/loss, val/rare"):
        fit(Rare(linear(), F.cross_entropy), CLASSES, monitor="val/other")


# outputs and batches


@pytest.mark.parametrize("kind", ["tuple", "list", "named tuple", "dictionary"])
def test_a_model_may_return_several_things_if_the_loss_chooses(kind):
    def logits(output) -> torch.Tensor:
        return output["logits"] if kind == "dictionary" else output[0]

    task = Supervised(
        Returning(kind),
        lambda output, target: F.cross_entropy(logits(output), target),
        {"accuracy": lambda output, target: accuracy(logits(output), target)},
    )
    measured = fit(task, CLASSES)
    output = task.model.linear(X).detach()
    assert measured["val/loss"] == pytest.approx(float(F.cross_entropy(output, LABELS)), rel=1e-5)
    assert measured["val/accuracy"] == pytest.approx(float(accuracy(output, LABELS).mean()))
    assert not any(value.requires_grad for update in task.losses((X, LABELS)) for value in update.metrics.values())


@pytest.mark.parametrize("kind", ["tuple", "list", "named tuple", "dictionary"])
@pytest.mark.parametrize("loss", [F.cross_entropy, nn.CrossEntropyLoss()])
def test_a_loss_that_cannot_take_several_things_says_how_to_choose(kind, loss):
    returned = "a dictionary of logits, hidden" if kind == "dictionary" else "2 parts"
    with pytest.raises(InputError, match=rf"^the model returns {returned}, which its loss cannot .*output\[0\]"):
        fit(Supervised(Returning(kind), loss), CLASSES)
    chooses = Supervised(Returning(kind), lambda output, target: model_loss(output, target), {"accuracy": accuracy})
    with pytest.raises(InputError, match=rf"^the model returns {returned}, which its accuracy cannot"):
        list(chooses.losses((X, LABELS)))


def model_loss(output, target) -> torch.Tensor:
    return F.cross_entropy(output["logits"] if isinstance(output, dict) else output[0], target)


FORMS = {
    "dictionary of two": (lambda x, y: {"x": x, "y": y}, "a dictionary of x, y"),
    "dictionary of three": (lambda x, y: {"x": x, "y": y, "id": 3}, "a dictionary of x, y, id"),
    "three parts": (lambda x, y: (x, y, y), "3 parts"),
    "no target": (lambda x, y: x, r"a tensor \(2, 4\)"),
}


@pytest.mark.parametrize(("form", "described"), FORMS.values(), ids=FORMS)
def test_other_batches_than_pairs_are_refused_with_what_they_are(form, described):
    with pytest.raises(InputError, match=rf"^Supervised needs batches \(input, target\), not {described}: "):
        Trainer(device="cpu").fit(Supervised(linear(), F.cross_entropy), BatchLoader(Rows(form), 2))


@pytest.mark.parametrize(
    "make",
    [lambda: Supervised(linear(), F.mse_loss), lambda: AutoencoderTask(torchdl.Autoencoder()), lambda: CPCTask(X)],
)
def test_a_loader_is_no_batch(make):
    for loader in (BatchLoader(CLASSES, 2), DataLoader([1])):
        with pytest.raises(
            InputError, match=r"not a \w+Loader: measure all .* torchdl.Trainer\(\).evaluate\(task, loader\)"
        ):
            make().evaluate(loader)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_task_of_ones_own_takes_dictionaries(workers):
    class Own(Task):
        def __init__(self) -> None:
            super().__init__()
            self.model = linear()

        def configure_optimizers(self):
            return {"model": torch.optim.SGD(self.parameters(), lr=0.1)}

        def losses(self, batch):
            yield Update("model", F.cross_entropy(self.model(batch["x"]), batch["y"]["label"]))

        def evaluate(self, batch):
            return {"loss": F.cross_entropy(self.model(batch["x"]), batch["y"]["label"], reduction="none")}

    data = Rows(lambda x, y: {"x": x, "y": {"label": y}, "name": "a"})
    loader = BatchLoader(data, 4, workers=workers)
    assert Trainer(epochs=1, device="cpu").fit(Own(), loader, loader)[-1]["val/loss"] > 0


def test_every_container_of_tensors_is_moved():
    one = torch.zeros(2)
    Pair = namedtuple("Pair", "a b")
    batch = {
        "plain": {"a": one, "b": [one, (one, "text")]},
        "ordered": OrderedDict(a=one),
        "user's": UserDict(a=one),
        "named": Pair(one, 3),
        "packed": nn.utils.rnn.pack_sequence([one]),
    }
    moved = move(batch, torch.device("meta"))
    assert moved["plain"]["a"].is_meta
    assert moved["plain"]["b"][1][0].is_meta
    assert moved["plain"]["b"][1][1] == "text"
    assert moved["ordered"]["a"].is_meta
    assert moved["user's"]["a"].is_meta
    assert isinstance(moved["named"], Pair)
    assert moved["named"].a.is_meta
    assert moved["packed"].data.is_meta
    assert not moved["packed"].batch_sizes.is_meta  # PyTorch needs them on the CPU


# data


@pytest.mark.parametrize(
    ("inputs", "dtype"),
    [
        (np.random.default_rng(0).normal(size=(11, 4)), torch.float32),
        (np.random.default_rng(0).normal(size=(4, 11)).T, torch.float32),
        (np.random.default_rng(0).normal(size=(11, 8))[::-1, ::2], torch.float32),
        (np.arange(44, dtype=">f4").reshape(11, 4), torch.float32),
        (np.arange(44, dtype=np.float16).reshape(11, 4), torch.float32),
        (np.arange(44, dtype=np.int16).reshape(11, 4), torch.int64),
        (np.arange(44, dtype=np.uint8).reshape(11, 4), torch.uint8),
        (np.ones((11, 4), dtype=bool), torch.bool),
        ([[1.5, 2, 3, 4]] * 11, torch.float32),
        ([torch.ones(4)] * 11, torch.float32),
        (torch.ones(11, 4, dtype=torch.float64), torch.float64),
    ],
)
@pytest.mark.parametrize("labels", [np.int64, np.int32, np.uint8, list])
def test_arrays_and_lists_are_data(inputs, dtype, labels):
    targets = [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1]
    data = ArrayDataset(inputs, targets if labels is list else np.array(targets, dtype=labels))
    assert (data.inputs.dtype, data.targets.dtype) == (dtype, torch.int64)
    assert data.inputs.tolist() == pytest.approx(np.array([[float(x) for x in row] for row in inputs]), rel=1e-6)
    assert data.targets.tolist() == targets
    if dtype == torch.float32:
        fit(Supervised(linear(), F.cross_entropy), data)


def test_a_read_only_array_is_copied_without_a_warning(recwarn):
    frozen = np.ones((3, 4))
    frozen.flags.writeable = False
    ArrayDataset(frozen, [0, 1, 2]).inputs[0] = 5
    assert frozen.sum() == 12
    assert not recwarn.list


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ([["a", "b"], ["c", "d"]], "inputs must be numbers, not <U1: encode"),
        (np.array([[1, None], [2, "x"]], dtype=object), "inputs must be numbers, not object: encode"),
        (np.array(["2020-01-01", "2020-01-02"], dtype="M8[D]"), "inputs must be numbers, not datetime64"),
        ([[1.0, 2.0], [3.0]], "the rows of inputs differ in shape: make them equal"),
        ([torch.ones(2), torch.ones(3)], "the rows of inputs differ in shape: make them equal"),
        (3.0, "inputs must have a row for each example"),
        (torch.tensor(3.0), "inputs must have a row for each example"),
        (np.ones((3, 2)), "there are 2 targets for 3 inputs"),
    ],
)
def test_what_is_no_table_of_numbers_is_refused(inputs, sentence):
    with pytest.raises(InputError, match=f"^{sentence}"):
        ArrayDataset(inputs, [0, 1])


def test_images_may_be_arrays():
    pixels = np.arange(36, dtype=np.uint8).reshape(4, 3, 3)
    for labels in ([0, 1, 1, 0], np.array([0, 1, 1, 0], dtype=np.uint8), np.array([0, 1, 1, 0], dtype=np.int32)):
        data = ImageDataset(pixels, labels)
        assert torch.equal(data.images[:, 0], torch.from_numpy(pixels))
        assert data.labels.tolist() == [0, 1, 1, 0]
    with pytest.raises(InputError, match=r"^images must be uint8, from 0 to 255, not torch.float32"):
        ImageDataset(pixels / 255.0)
    with pytest.raises(InputError, match=r"^labels must be int64, the indices of classes, not torch.float32"):
        ImageDataset(pixels, [0.0, 1.0, 1.0, 0.0])


# other tasks


class Sizes(nn.Module):
    """A user's GAN, whose constructor takes nothing."""

    def __init__(self) -> None:
        super().__init__()
        parts = torchdl.simple_gan((1, 2, 2), z_dim=3)
        self.generator, self.discriminator, self.image_shape = parts.generator, parts.discriminator, (1, 2, 2)


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_a_gan_needs_the_attributes_alone(average):
    gan = Sizes()
    task = GANTask(gan, average=average)
    fit(task, ImageDataset(torch.zeros(8, 2, 2, dtype=torch.uint8)))
    assert type(task.trained) is Sizes
    assert task.trained.generator is task.sampler
    assert task.trained.discriminator is gan.discriminator
    assert (task.sampler is gan.generator) == (average == 0)
    assert not any(name.startswith("given") for name in task.state_dict())


def missing(*names: str) -> nn.Module:
    gan = Sizes()
    for name in names:
        owner, _, attribute = name.rpartition(".")
        replaced = nn.Sequential(nn.Linear(3, 4)) if owner else None
        setattr(gan, owner or attribute, replaced)
    return gan


@pytest.mark.parametrize(
    ("gan", "lacks"),
    [
        (missing("generator.z_dim"), "generator.z_dim"),
        (missing("discriminator.logits"), "discriminator.logits"),
        (missing("generator.z_dim", "discriminator.logits", "image_shape"), "generator.z_dim, .*logits, image_shape"),
        (nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1)), "generator, generator.z_dim, discriminator, "),
        ((nn.Linear(3, 4), nn.Linear(4, 1)), "generator, generator.z_dim, discriminator, "),
    ],
)
def test_what_a_gan_lacks_is_named(gan, lacks):
    with pytest.raises(InputError, match=f"^GANTask needs a GAN, and this .* lacks {lacks}.*build a torchdl.GAN"):
        GANTask(gan)


def autoencoder() -> AutoencoderTask:
    return AutoencoderTask(nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.Unflatten(1, (1, 2, 2))), noise=0.1)


IMAGE_TASKS = {"gan": lambda: GANTask(torchdl.simple_gan((1, 2, 2))), "autoencoder": autoencoder}


@pytest.mark.parametrize("make", IMAGE_TASKS.values(), ids=IMAGE_TASKS)
def test_tasks_of_images_take_labelled_ones_and_refuse_dictionaries(make):
    for form in (lambda x, y: x.view(1, 2, 2), lambda x, y: (x.view(1, 2, 2), y)):
        fit(make(), Rows(form))
    with pytest.raises(
        InputError, match=r"needs batches that are tensors, or tuples .* not a dictionary of image, label"
    ):
        fit(make(), Rows(lambda x, y: {"image": x.view(1, 2, 2), "label": y}))


@pytest.mark.parametrize("make", IMAGE_TASKS.values(), ids=IMAGE_TASKS)
def test_images_that_nobody_has_scaled_are_refused(make):
    for run in (lambda task, images: list(task.losses(images)), lambda task, images: task.evaluate(images)):
        with pytest.raises(InputError, match=r"needs images of decimals, not torch.uint8: scale them"):
            run(make(), torch.zeros(4, 1, 2, 2, dtype=torch.uint8))


def test_images_of_another_size_are_named():
    for run in (lambda task, images: list(task.losses(images)), lambda task, images: task.evaluate(images)):
        with pytest.raises(
            InputError, match=r"^the images are \(1, 3, 3\), but the GAN makes \(1, 2, 2\): choose one shape$"
        ):
            run(IMAGE_TASKS["gan"](), torch.zeros(4, 1, 3, 3))


def contrastive(head: str = "infonce") -> CPCTask:
    return CPCTask(Signals(), head)


class Signals(nn.Module):
    """Predicts two terms from the sum of the context."""

    def __init__(self) -> None:
        super().__init__()
        self.predictor = nn.Linear(4, 8)

    def forward(self, context, future):
        return self.predictor(context.sum(1)).view(-1, 1, 2, 4), torch.cat([context, future], 1)


PAIRS = ArrayDataset(gaussian(8, 3, 4), gaussian(8, 2, 4, seed=1))


def test_a_batch_without_labels_has_real_futures_alone():
    class Labelled(Rows):
        def __len__(self) -> int:
            return 8

        def __getitem__(self, index: int):
            return *PAIRS[index], torch.tensor(1)

    rows = []
    for data in (PAIRS, Labelled(None)):
        torch.manual_seed(0)
        rows.append(fit(contrastive(), data))
    assert {name for name in rows[1].keys() - rows[0].keys() if "paired_accuracy" not in name} == set()
    assert rows[0] == {name: value for name, value in rows[1].items() if "paired_accuracy" not in name}
    assert rows[1]["val/paired_accuracy_chance"] == 1
    with pytest.raises(InputError, match=r"^the head paired tells real .* \(context, future, label\)$"):
        fit(contrastive("paired"), PAIRS)


@pytest.mark.parametrize(
    ("form", "described"), [(lambda x, y: {"context": x}, "a dictionary of context"), (lambda x, y: x, "a tensor .*")]
)
def test_other_batches_of_sequences_are_refused(form, described):
    with pytest.raises(InputError, match=rf"^CPCTask needs batches \(context, future\) or .* not {described}: let the"):
        fit(contrastive(), Rows(form))


# the trainer


@pytest.mark.parametrize("device", [torch.device("cpu"), "cpu", torch.device("cpu", 0)])
def test_a_device_may_be_a_device(device):
    trainer = Trainer(epochs=1, device=device)
    assert isinstance(trainer.device, str)
    trainer.fit(Supervised(linear(), F.cross_entropy), BatchLoader(CLASSES, 4))


@pytest.mark.parametrize("device", [torch.device("meta"), "gpu", 0, None])
def test_another_device_is_refused(device):
    with pytest.raises(InputError, match=r"^unknown device .*: choose auto, cpu, cuda"):
        Trainer(device=device).fit(Supervised(linear(), F.cross_entropy), BatchLoader(CLASSES, 4))


# the everyday mistake, as one sentence

SGD = torch.optim.SGD(linear().parameters(), lr=0.1)
VOCABULARY = torchdl.Vocabulary.learn(["a b"])


class Misspelt(torchdl.Callback):
    def on_train_epoch_end(self, training):
        pass


class Keras(torchdl.Callback):
    def on_epoch_end(self, epoch, logs=None):
        pass


class Own(torchdl.Task):
    def __init__(self):
        super().__init__()
        self.model = linear()

    def configure_optimizers(self):
        return {"model": torch.optim.SGD(self.parameters(), lr=0.1)}

    def losses(self, batch):
        yield torchdl.Update("model", F.cross_entropy(self.model(batch[0]), batch[1]))


class ReturnsTensor(Own):
    def evaluate(self, batch):
        return F.cross_entropy(self.model(batch[0]), batch[1], reduction="none")


def trained(task=None, **options):
    loader = BatchLoader(CLASSES, 4)
    return Trainer(epochs=1, device="cpu").fit(task or ReturnsTensor(), loader, loader, **options)


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        return iter(range(3))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: BatchLoader(X, 2.0), "batch_size must be a whole number, at least 1, not 2.0"),
        (lambda: BatchLoader(X, None), "batch_size must be a whole number, at least 1, not None"),
        (lambda: BatchLoader(X, 2, workers=None), "workers must be a whole number, 0 or more, not None"),
        (lambda: BatchLoader(Stream(), 2), "a BatchLoader needs a data set with .* not a Stream: use one with"),
        (lambda: BatchLoader(iter([1]), 2), "a BatchLoader needs a data set with .* not a list_iterator: use one with"),
        (lambda: BatchLoader(DataLoader([1]), 2), "a BatchLoader .* not a DataLoader: give it the loader's data set"),
        (lambda: BatchLoader(pandas.DataFrame({"a": [1]}), 1), "a BatchLoader .* a DataFrame: make an ArrayDataset"),
        (lambda: Trainer(epochs=None), "epochs must be a whole number, 1 or more, not None"),
        (lambda: Trainer(epochs=2.5), "epochs must be a whole number, 1 or more, not 2.5"),
        (lambda: Trainer(max_steps="3"), "max_steps must be a whole number, 0 or more, not '3'"),
        (lambda: Trainer(clip_norm=-0.5), "clip_norm must be 0 or more, not -0.5"),
        (lambda: Trainer(precision="fp16"), "precision must be fp32, tf32, bf16, not 'fp16'"),
        (lambda: Trainer(mode="lowest"), "mode must be auto, min, max, not 'lowest'"),
        (lambda: trained(callbacks=torchdl.Callback()), "callbacks must be a list of .* torchdl.Callback, not"),
        (lambda: trained(callbacks=[Misspelt()]), "no training calls Misspelt.on_train_epoch_end: .* on_epoch_end"),
        (
            lambda: trained(callbacks=[Keras()]),
            r"Keras.on_epoch_end gets .* not \(epoch, logs\): write def on_epoch_end",
        ),
        (lambda: trained(loggers=torchdl.RunLogger()), "loggers must be a list of .* torchdl.RunLogger, not"),
        (lambda: trained(loggers=["mlflow"]), "loggers must be a list of .* torchdl.RunLogger, not .'mlflow'"),
        (lambda: trained(folder=__file__), ".*test_unusual_input.py cannot be a folder, because there is a file"),
        (lambda: torchdl.save(torchdl.MLP(), f"{__file__}/x"), ".*test_unusual_input.py/x cannot be a folder"),
        (lambda: trained(Own()), r"Own does not define evaluate\(self, batch\): .* without validation data"),
        (lambda: trained(ReturnsTensor()), r"ReturnsTensor.evaluate must return metrics by name, not a tensor \(4,\)"),
        (lambda: Supervised(linear(), F.mse_loss, schedule="cosine"), "schedule must be a function .* not 'cosine'"),
        (lambda: GANTask(torchdl.simple_gan(), schedule=1), "schedule must be a function .* not 1"),
        (lambda: Supervised(linear(), F.mse_loss, schedule=StepLR(SGD, 1)), "schedule must be a function .*StepLR"),
        (lambda: Logger(None).picture("x", X), r"a picture is a figure, or .* not torch.float32 \(11, 4\)"),
        (lambda: Logger(None).picture("x", [1]), "a picture is a figure, or .* not a list"),
        (lambda: torchdl.load("nowhere", torchdl.LenetLike), "device must be .*: name the model's class by kind="),
        (lambda: torchdl.predict.load_as("images", "nowhere"), "name the class of a predictor, .* not 'images'"),
        (lambda: Trainer(shard=True).fit(Own(), BatchLoader(X, 4)), "shard shares .* by torchrun, or .* shard=False"),
        (lambda: torchdl.load("nowhere", kind="LenetLike"), "kind must be a class, .* not 'LenetLike'"),
        (lambda: torchdl.Windows(torchdl.sine(), 3), "values must be numbers, not a Series"),
        (lambda: Trainer(seed=1.5), "seed must be from 0 to .*, not 1.5"),
        (lambda: Trainer().fit(linear(), BatchLoader(CLASSES, 2)), r"the trainer needs a Task, such .* a Linear"),
        (lambda: Trainer().fit(linear(), CLASSES), r"the trainer needs a BatchLoader, .*: BatchLoader\(data_set"),
        (lambda: Trainer().fit(linear(), None), r"the trainer needs a BatchLoader, .* not a NoneType"),
        (lambda: Supervised(lambda x: x, F.mse_loss), "Supervised trains a torch.nn.Module, not a function"),
        (lambda: Supervised(linear(), "mse"), r"loss must be a function of \(output, target\), not 'mse'"),
        (lambda: Supervised(linear(), nn.MSELoss), r"loss is the class MSELoss: give an instance, MSELoss\(\)"),
        (lambda: Supervised(linear(), F.mse_loss, {"f1": nn.L1Loss}), "f1 is the class L1Loss: give an instance"),
        (lambda: torchdl.WeightAverage(0.9, linear()), "WeightAverage averages a torch.nn.Module, not a float"),
        (lambda: torchdl.simple_gan().generate_samples(torch.zeros(3, 64)), r"generate_samples\(n\) .* gan\(noise\)"),
        (lambda: GANTask(torchdl.simple_gan()).generate(torch.zeros(3, 64)), r"generate\(n\) .* task.sampler\(noise"),
        (lambda: Supervised(linear(), F.mse_loss, accuracy), "metrics must be functions by name"),
        (lambda: Supervised(linear(), F.mse_loss, [accuracy]), "metrics must be functions by name"),
        (lambda: Supervised(linear(), F.mse_loss, {"a": 1}), "metrics must be functions by name"),
        (lambda: Supervised(linear(), F.mse_loss, optimizer=SGD), "optimizer must build one from parameters"),
        (lambda: Supervised(linear(), F.mse_loss, optimizer="adam"), "optimizer must build one from parameters"),
        (lambda: torchdl.ShiftedImages(torch.zeros(3, 4, 4)), "ShiftedImages changes an ImageDataset or .* a Tensor"),
    ],
)
def test_a_mistake_is_one_sentence(make, sentence):
    with pytest.raises(InputError, match=f"^{sentence}") as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("loss", [F.mse_loss, nn.L1Loss(), partial(F.huber_loss, delta=2.0)])
def test_each_output_is_never_compared_with_each_target(loss):
    data = ArrayDataset(X, X[:, 0])  # the outputs are (B, 1), the targets (B,)
    task = Supervised(fill_(nn.Linear(4, 1)), loss)
    for run in (lambda: list(task.losses(data[:3])), lambda: task.evaluate(data[:3])):
        with pytest.raises(InputError, match=r"^outputs \(3, 1\) and targets \(3,\) must have the same shape"):
            run()


SILENT = {"one output", "signs"}  # PyTorch computes these, so that they are looked at in the first step alone
BYTES, ONE_HOT = X.abs().to(torch.uint8), F.one_hot(LABELS, 3)
BINARY, ONES = F.binary_cross_entropy_with_logits, LABELS[:, None] % 2
MISFITS = {
    "bytes": (3, F.mse_loss, BYTES, X[:, :3], r"the model cannot take inputs of torch.uint8: .*\.float32\) / 255, or"),
    "integers": (3, F.mse_loss, BYTES.long(), X[:, :3], r"the model .* torch.int64: .* inputs.to\(torch.float32\)$"),
    "decimals for words": (
        0,
        F.cross_entropy,
        X,
        LABELS,
        r".* its embedding takes whole numbers: give inputs.long\(\)",
    ),
    "from 1": (3, F.cross_entropy, X, LABELS + 1, "these .* must be 0 to 2, for 3 outputs, but are 1 to 3: number the"),
    "ignored": (3, nn.CrossEntropyLoss(ignore_index=9), X, LABELS * 9, r".* must be 0 to 2, .* but are 0 to 18"),
    "decimals": (3, nn.CrossEntropyLoss(), X, LABELS.float(), r"these .* not torch.float32: give target.long\(\)"),
    "columns": (3, F.cross_entropy, X, LABELS[:, None], r"these .* \(11,\), not \(11, 1\): give target\[:, 0\]"),
    "classes last": (3, F.cross_entropy, X[None], LABELS[None], r"these .* \(1, 3\), not \(1, 11\): .* classes second"),
    "one-hot": (3, partial(F.cross_entropy), X, ONE_HOT, r"these .* one-hot labels \(11, 3\) of torch.int64: give the"),
    "one-hot, measured": (
        3,
        F.cross_entropy,
        X,
        ONE_HOT.float(),
        r"accuracy compares .* one-hot .* target.argmax\(1\)",
    ),
    "one output": (1, F.cross_entropy, X, LABELS * 0, "these .* one output is no choice of classes"),
    "one logit, measured": (
        1,
        BINARY,
        X,
        ONES.float(),
        r"accuracy compares .* for one logit, choose .*binary_accuracy",
    ),
    "integers for one logit": (1, BINARY, X, ONES, r"these .* not torch.int64: give target.float\(\)"),
    "a row for one logit": (1, BINARY, X, ONES[:, 0].float(), r"outputs \(11, 1\) and targets \(11,\) must have"),
    "signs": (
        1,
        nn.BCEWithLogitsLoss(),
        X,
        2.0 * ONES - 1,
        "these .* labels must be from 0 to 1, but are from -1 to 1",
    ),
}


@pytest.mark.parametrize(("name", "step"), [*((n, 0) for n in MISFITS), *((n, 1) for n in MISFITS if n not in SILENT)])
def test_inputs_and_targets_that_do_not_fit_are_named(name, step):
    outputs, loss, x, y, sentence = MISFITS[name]
    task = Supervised(nn.Linear(4, outputs) if outputs else nn.Embedding(4, 4), loss, {"accuracy": accuracy})
    task.step_info = task.step_info._replace(step=step)
    for run in (lambda: list(task.losses((x, y))), lambda: task.evaluate((x, y))):
        with pytest.raises(InputError, match=f"^{sentence}"):
            run()


@pytest.mark.parametrize("labels", [LABELS, LABELS.to(torch.uint8), F.one_hot(LABELS, 3).float()])
def test_a_cross_entropy_takes_classes_and_probabilities(labels):
    (update,) = Supervised(linear(), F.cross_entropy).losses((X, labels))
    assert update.loss.item() == pytest.approx(F.cross_entropy(linear()(X), LABELS).item())


def test_a_metric_of_a_matrix_is_refused_in_training_too():
    task = Supervised(linear(), F.cross_entropy, {"share": lambda output, target: output.argmax(1) == target[:, None]})
    for run in (lambda: list(task.losses((X, LABELS))), lambda: fit(task, CLASSES, 11)):
        with pytest.raises(InputError, match=r"^the metric 'share' must be one number per example, .*: not \(11, 11\)"):
            run()
    with pytest.raises(InputError, match=r"^binary_accuracy compares logits .* not \(11, 1\) and \(11,\): reshape"):
        torchdl.tasks.binary_accuracy(X[:, :1], X[:, 0])


@pytest.mark.parametrize("make", [np.array, list, torch.tensor])
def test_texts_windows_and_digits_take_arrays(make):
    labels = [0, 1, 1]
    _, classes = torchdl.TextDataset(["a", "b", "a b"], make(labels), VOCABULARY)[:]
    assert classes.tolist() == labels
    rows = [[float(i)] for i in range(8)]
    assert torchdl.Windows(make(rows), 3)[0][0].tolist() == rows[:3]
    pixels = np.zeros((10, 8, 8), dtype=np.uint8)
    digits = torchdl.Digits(
        torch.from_numpy(pixels) if make is torch.tensor else pixels, make(list(range(10))), 8, False
    )
    assert digits[3][1] == 3


def test_numpy_numbers_are_numbers():
    loader = BatchLoader(CLASSES, np.int64(4), shuffle=True, seed=np.int64(3), workers=np.int8(0))
    assert all(type(value) in (int, float, str) for value in loader.order_settings().values())
    assert torch.equal(loader.order(0), BatchLoader(CLASSES, 4, shuffle=True, seed=3).order(0))


# everyday slips

IMAGES = ImageDataset(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.arange(4))
SLIPS = {
    "a width in place of widths": (lambda: torchdl.MLP(784, 128, 10), r"MLP: hidden must be a tuple or list.*\(128,\)"),
    "one width": (lambda: torchdl.Generator(3, 4, hidden=8), "Generator: hidden must be a tuple or list.*, not 8"),
    "a side in place of a shape": (lambda: torchdl.LenetLike(28, 10), "LenetLike: in_shape must be a tuple or list"),
    "widths in place of a width": (lambda: torchdl.SequenceModel(hidden=(8,)), r"hidden must be a number.* not \(8,\)"),
    "an array of inputs": (lambda: torchdl.MLP()(np.zeros((2, 784))), "takes tensors, not a ndarray: .*float32"),
    "an array of images": (lambda: torchdl.LenetLike((1, 8, 8), 3)(np.zeros((2, 1, 8, 8))), "takes tensors"),
    "a list of words": (lambda: torchdl.TextLSTM(5)([[1, 2]]), "takes tensors, not a list: .*int64"),
    "an array of pairs": (lambda: torchdl.RatingModel(5, 5)(np.ones((2, 2))), "takes tensors"),
    "an array of terms": (lambda: torchdl.SequenceModel()(np.zeros((2, 3, 1))), "takes tensors"),
    "inputs and targets": (lambda: BatchLoader(X, LABELS, 64), "batch_size .*ArrayDataset"),
    "arrays of inputs and targets": (lambda: BatchLoader(X.numpy(), LABELS.numpy(), 64), "batch_size .*ArrayDataset"),
    "a list of sizes": (lambda: BatchLoader(CLASSES, [4]), "batch_size must be a whole number, at least 1, not a list"),
    "half a worker": (lambda: BatchLoader(CLASSES, 4, workers=0.5), "workers must be .*, 0 or more, not 0.5"),
    "an array of terms to order": (lambda: torchdl.OrderedSequences(X, np.arange(3)), "terms must be .*not a ndarray"),
    "an array to split": (lambda: torchdl.Split(np.zeros(9), 2, 3), "needs a torchdl.Series, not a ndarray"),
    "a size of a vocabulary": (lambda: torchdl.Vocabulary(2000), "list of words, not 2000: .*Vocabulary.learn"),
    "a text of a vocabulary": (lambda: torchdl.Vocabulary("see you"), "list of words, not 'see you'"),
    "several texts": (lambda: torchdl.Vocabulary(["you"]).encode(["see you", "you"]), "one text .*not a list"),
    "a pair of sides": (lambda: torchdl.load_images("tests", image_size=(32, 32)), r"image_size .*, not \(32, 32\)"),
    "sides of digits": (lambda: torchdl.Digits(IMAGES.images[:, 0], LABELS[:4], (8, 8)), r"image_size .*not \(8, 8\)"),
    "a model of Keras": (lambda: torchdl.keras.from_keras(nn.Sequential()), "by its path, not by a Sequential: save"),
    "a dictionary of changes": (
        lambda: torchdl.AugmentedImages(IMAGES, {"zoom_range": 0.1}),
        r"needs an Augmentation, not a dict: write Augmentation\(\*\*options\)",
    ),
}


@pytest.mark.parametrize(("slip", "named"), SLIPS.values(), ids=SLIPS)
def test_an_everyday_slip_is_one_sentence(slip, named):
    with pytest.raises(InputError, match=named):
        slip()


def test_numbers_of_other_types_are_as_good():
    assert torchdl.MLP(np.int64(4), 3, hidden=np.array([5])).hidden == (5,)
    assert len(BatchLoader(CLASSES, np.int64(4))) == len(BatchLoader(CLASSES, torch.tensor(4))) == 3
    assert torchdl.Series(np.arange(3)[:, None], ["x"]).returns is not None
    assert torchdl.Series([[1], [2]], ["x"]).values.dtype == torch.float64
