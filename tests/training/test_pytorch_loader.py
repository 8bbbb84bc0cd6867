"""Train with loaders of PyTorch."""

from __future__ import annotations

import random as python_random
import warnings
from contextlib import contextmanager, nullcontext
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import fill_, gaussian
from torch import nn
from torch.utils.data import (
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Subset,
    TensorDataset,
)

import torchdl
from torchdl import ArrayDataset, BatchLoader, Callback, InputError, Supervised, Trainer
from torchdl.training.pytorch_loader import PyTorchLoader

pytestmark = pytest.mark.usefixtures("quick")

X, Y = gaussian(22, 3), gaussian(22, 1, seed=1)
DATA = TensorDataset(X, Y)
SIZE, EPOCH = 4, 6  # examples in a batch, batches in an epoch, the last one ragged


class Drawing(Dataset):
    """Items with noise from every global generator."""

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, index: int):
        noise = float(torch.rand(())) + np.random.random() + python_random.random()  # noqa: NPY002
        return X[index] + noise, Y[index]


class Stream(IterableDataset):
    """The same rows in every epoch; how many is not known."""

    def __init__(self, rows: int = len(X)) -> None:
        self.rows, self.read = rows, 0

    def __iter__(self):
        for index in range(self.rows):
            self.read += 1
            yield X[index], Y[index]


class WholeBatches(Dataset):
    """A data set whose items are batches."""

    def __len__(self) -> int:
        return EPOCH

    def __getitem__(self, index: int):
        place = slice(SIZE * index, SIZE * (index + 1))
        return X[place] + torch.rand(()), Y[place]


class StreamOfBatches(IterableDataset):
    """A stream whose items are batches."""

    def __iter__(self):
        yield from DataLoader(DATA, SIZE)


class Batches:
    """A batch sampler whose order depends on the epoch that it is told."""

    epoch = 0

    def __len__(self) -> int:
        return EPOCH

    def __iter__(self):
        order = torch.randperm(len(X), generator=torch.Generator().manual_seed(self.epoch)).tolist()
        yield from (order[start : start + SIZE] for start in range(0, len(X), SIZE))

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


LOADERS = {
    "shuffled": lambda: DataLoader(Drawing(), SIZE, shuffle=True),
    "generator": lambda: DataLoader(Drawing(), SIZE, shuffle=True, generator=generator()),
    "sampler": lambda: DataLoader(Drawing(), SIZE, sampler=RandomSampler(Drawing(), generator=generator())),
    "batch sampler": lambda: DataLoader(Drawing(), batch_sampler=Batches()),
    "stream": lambda: DataLoader(Stream(), SIZE),
    "whole batches": lambda: DataLoader(WholeBatches(), None),
    "stream of batches": lambda: DataLoader(StreamOfBatches(), None),
    "workers": lambda: DataLoader(Drawing(), SIZE, shuffle=True, num_workers=2),
    "workers that stay": lambda: DataLoader(DATA, SIZE, shuffle=True, num_workers=1, persistent_workers=True),
}


@contextmanager
def no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", ".*set_vital")  # of torchdata
        warnings.filterwarnings("ignore", ".*suggested max number of worker")  # on one core
        yield


def regression() -> Supervised:
    return Supervised(fill_(nn.Linear(3, 1)), F.mse_loss, optimizer=partial(torch.optim.SGD, lr=0.1))


def fit(task, train, folder=None, resume=False, validation=None, callbacks=(), **options):
    options = {"max_steps": 3 * EPOCH, "device": "cpu", **options}
    return Trainer(**options).fit(task, train, validation, folder, resume, callbacks=callbacks)


def test_the_order_depends_on_the_seed_of_the_loaders_generator_and_the_epoch_alone():
    def orders(own: torch.Generator | None, seed: int, epoch: int) -> list[float]:
        loader = PyTorchLoader(DataLoader(TensorDataset(torch.arange(22)), SIZE, shuffle=True, generator=own), seed)
        torch.rand(3)
        return torch.cat([batch for (batch,), _ in loader.batches(epoch)]).tolist()

    mine = generator()
    torch.rand(9, generator=mine)
    first = orders(mine, 0, epoch=0)
    assert first == orders(generator(), 1, epoch=0) == orders(mine, 2, epoch=0)
    assert sorted(first) == list(range(22)) != first
    assert first != orders(generator(), 0, epoch=1)
    assert orders(None, 0, epoch=0) == orders(None, 0, epoch=0) != orders(None, 1, epoch=0)


@pytest.mark.parametrize("kind", LOADERS)
@pytest.mark.parametrize("steps", [EPOCH, EPOCH + 2])
def test_a_resumed_training_ends_as_one_that_was_not_stopped(kind, steps, tmp_path):
    whole, part, rest = regression(), regression(), regression()
    history = fit(whole, LOADERS[kind]())
    assert [row["step"] for row in history] == [EPOCH, 2 * EPOCH, 3 * EPOCH]
    fit(part, LOADERS[kind](), tmp_path, max_steps=steps, checkpoint_every=1)
    torch.rand(7), np.random.random(), python_random.random()  # noqa: NPY002
    known = steps == EPOCH and kind not in ("stream", "stream of batches", "workers that stay")
    sentence = "other numbers after a resume" if kind == "workers that stay" else "batches .* read again"
    with no_warning() if known else pytest.warns(UserWarning, match=sentence):
        assert fit(rest, LOADERS[kind](), tmp_path, resume=True) == history
    assert torch.equal(rest.model.weight, whole.model.weight)


@pytest.mark.parametrize("options", [{}, {"num_workers": 1}, {"num_workers": 2, "persistent_workers": True}])
def test_a_stateful_loader_goes_on_without_reading_again(options, tmp_path):
    stateful = pytest.importorskip("torchdata.stateful_dataloader")
    whole, rest = regression(), regression()

    def make():
        return stateful.StatefulDataLoader(DATA, SIZE, shuffle=True, generator=generator(), **options)

    history = fit(whole, make())
    fit(regression(), make(), tmp_path, max_steps=EPOCH + 2)  # it is asked for its state as the training ends
    with nullcontext() if "persistent_workers" in options else no_warning():
        assert fit(rest, make(), tmp_path, resume=True) == history
    assert torch.equal(rest.model.weight, whole.model.weight)


def test_a_stateful_loader_of_whole_batches_goes_on_at_their_positions():
    stateful = pytest.importorskip("torchdata.stateful_dataloader")
    first, second = (PyTorchLoader(stateful.StatefulDataLoader(WholeBatches(), None), 0) for _ in range(2))
    begun = first.batches(0)
    next(begun), next(begun)
    second.load_state_dict(first.state_dict())
    assert [tuple(part) for _, part in second.batches(0, 2)] == [tuple(part) for _, part in begun]


def test_another_loader_is_refused_on_a_resume(tmp_path):
    fit(regression(), LOADERS["generator"](), tmp_path, max_steps=EPOCH)
    with pytest.raises(InputError, match="batch size 3 instead of 4"):
        fit(regression(), DataLoader(Drawing(), 3, shuffle=True, generator=generator()), tmp_path, resume=True)
    with pytest.raises(InputError, match="loader's seed 0 instead of 5"):
        fit(regression(), LOADERS["shuffled"](), tmp_path, resume=True)
    workers = DataLoader(Drawing(), SIZE, shuffle=True, generator=generator(), num_workers=1)
    with pytest.raises(InputError, match="num_workers 1 instead of 0"):
        fit(regression(), workers, tmp_path, resume=True)
    in_order = DataLoader(DATA, SIZE, generator=generator())
    with pytest.raises(InputError, match=r"samplers .*, SequentialSampler instead of .*, RandomSampler"):
        fit(regression(), in_order, tmp_path, resume=True)


def test_a_stream_needs_a_number_of_steps_and_is_read_as_far_as_that():
    with pytest.raises(InputError, match="not known: set max_steps"):
        fit(regression(), DataLoader(Stream(), SIZE), max_steps=0)
    data = Stream(10**6)
    (row,) = fit(regression(), DataLoader(data, SIZE), max_steps=5)
    assert (row["epoch"], row["step"]) == (1, 5)
    assert data.read <= 6 * SIZE


def test_a_stream_that_can_be_read_only_once_is_named():
    class Once(IterableDataset):
        rows = iter(list(zip(X, Y, strict=True)))

        def __iter__(self):
            return self.rows

    with pytest.raises(InputError, match=r"yields no batches: .* anew in each epoch"):
        fit(regression(), DataLoader(Once(), SIZE))


def test_batches_that_a_step_accumulates_and_validation_data_may_come_from_it():
    steps = []

    class Steps(Callback):
        def on_epoch_end(self, training):
            steps.append((training.step, training.batches, training.epochs))

    validation = DataLoader(DATA, 5)
    task, same = regression(), regression()
    options = {"max_steps": 0, "epochs": 2, "accumulate": 4}
    history = fit(task, DataLoader(DATA, SIZE), validation=validation, callbacks=[Steps()], **options)
    expected = fit(same, BatchLoader(DATA, SIZE), validation=BatchLoader(DATA, 5), **options)
    assert steps == [(2, EPOCH, 2), (4, EPOCH, 2)]
    assert torch.equal(task.model.weight, same.model.weight)
    assert history == expected


def test_positions_are_those_of_the_examples_in_the_epoch():
    loader = PyTorchLoader(DataLoader(DATA, SIZE), seed=0)
    ranges = [tuple(part) for _, part in loader.batches(0)]
    assert ranges == [(start, min(SIZE, 22 - start), min(SIZE, 22 - start)) for start in range(0, 22, SIZE)]
    assert [tuple(part) for _, part in loader.batches(0, 4)] == ranges[4:]


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        (lambda: [X], "needs a BatchLoader.* or a PyTorch DataLoader, not a list"),
        (lambda: DataLoader(["a", "b"], 2), "batches without tensors"),
        (lambda: DataLoader(Subset(ArrayDataset(X, X), [0, 1]), 2), "give the DataLoader collate_fn=.*whole_batch"),
        (lambda: DataLoader(DATA, 2, collate_fn=lambda rows: torch.zeros(0, 3)), "without examples"),
        (lambda: DataLoader(DATA, 23, drop_last=True), "yields no batches: .* smaller than a batch"),
    ],
    ids=["list", "texts", "whole batches", "empty", "no batches"],
)
def test_what_cannot_be_trained_on_is_one_sentence(loader, message):
    with pytest.raises(InputError, match=message):
        fit(regression(), loader())


def test_validation_data_without_batches_are_refused():
    with pytest.raises(InputError, match="of validation data yields no batches"):
        fit(regression(), DataLoader(DATA, SIZE), validation=DataLoader(Stream(0), SIZE))


def test_the_sampler_that_the_advice_names_can_be_made_before_the_processes_join(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match=r"rank, size = torchdl.collective.rank_and_size\(\)") as caught:
        PyTorchLoader(DataLoader(DATA, SIZE), 0).shard(1, 2)
    assert "DistributedSampler(data_set, size, rank)" in str(caught.value)
    rank, size = torchdl.collective.rank_and_size()
    PyTorchLoader(DataLoader(DATA, SIZE, sampler=DistributedSampler(DATA, size, rank)), 0).shard(1, 2)


# data sets of other libraries


def resumed_is_whole(make, tmp_path) -> None:
    whole, rest = regression(), regression()
    history = fit(whole, make())
    fit(regression(), make(), tmp_path / "run", max_steps=EPOCH + 2, checkpoint_every=1)
    with pytest.warns(UserWarning, match="read again"):
        assert fit(rest, make(), tmp_path / "run", resume=True) == history
    assert torch.equal(rest.model.weight, whole.model.weight)


def test_shards_of_webdataset_are_streamed(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    for shard in range(2):
        with webdataset.TarWriter(str(tmp_path / f"{shard}.tar")) as tar:
            for index in range(11 * shard, 11 * shard + 11):
                tar.write({"__key__": str(index), "x.npy": X[index].numpy(), "y.npy": Y[index].numpy()})

    def make():
        shards = [str(tmp_path / f"{shard}.tar") for shard in range(2)]
        data = webdataset.WebDataset(shards, shardshuffle=False).decode().to_tuple("x.npy", "y.npy")
        return DataLoader(data, SIZE)

    resumed_is_whole(make, tmp_path)
    task, same = regression(), regression()
    fit(task, make(), max_steps=EPOCH)
    fit(same, DataLoader(DATA, SIZE), max_steps=EPOCH)
    torch.testing.assert_close(task.model.weight, same.model.weight)


def test_a_data_set_of_hugging_face_is_shuffled_and_collated(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_dict({"x": X.tolist(), "y": Y.tolist()}).with_format("torch")

    def pairs(items):
        return torch.stack([item["x"] for item in items]), torch.stack([item["y"] for item in items])

    resumed_is_whole(lambda: DataLoader(rows, SIZE, shuffle=True, collate_fn=pairs), tmp_path)
