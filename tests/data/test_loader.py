from __future__ import annotations

import os
import signal
from multiprocessing.connection import Client

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch.utils.data import Dataset, Subset, TensorDataset

from torchdl import ArrayDataset, BatchLoader, ImageDataset, InputError, Supervised, Trainer
from torchdl.data.loader import explaining_lost_workers


class Numbers(Dataset):
    """Each item is its own index, so a batch shows which examples it holds."""

    def __init__(self, n: int) -> None:
        self.n, self.epochs = n, []

    def __len__(self) -> int:
        return self.n

    def __getitems__(self, indices):
        return torch.as_tensor(indices)

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)


def epoch_of(loader: BatchLoader, epoch: int, start: int = 0) -> list[list[int]]:
    return [batch.tolist() for batch, _ in loader.batches(epoch, start)]


def flat(batches: list[list[int]]) -> list[int]:
    return [i for batch in batches for i in batch]


def test_every_epoch_is_a_permutation_of_its_own():
    loader = BatchLoader(Numbers(50), 8, shuffle=True)
    orders = [flat(epoch_of(loader, epoch)) for epoch in range(4)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in [*orders, range(50)]}) == 5
    assert [len(batch) for batch in epoch_of(loader, 0)] == [8] * 6 + [2]


def test_the_order_is_that_of_the_seed_whatever_else_was_drawn():
    first = epoch_of(BatchLoader(Numbers(50), 8, shuffle=True, seed=3), 2)
    torch.rand(5)
    assert epoch_of(BatchLoader(Numbers(50), 8, shuffle=True, seed=3), 2) == first
    assert epoch_of(BatchLoader(Numbers(50), 8, shuffle=True, seed=4), 2) != first
    # the batch size cuts the same order
    assert flat(epoch_of(BatchLoader(Numbers(50), 7, shuffle=True, seed=3), 2)) == flat(first)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_global_generator_is_left_alone(workers):
    before = torch.get_rng_state()
    list(BatchLoader(Numbers(10), 3, shuffle=True, workers=workers))
    assert torch.equal(torch.get_rng_state(), before)


def test_without_shuffling_the_order_is_the_datas():
    assert flat(epoch_of(BatchLoader(Numbers(10), 3), 5)) == list(range(10))


def test_iterating_twice_gives_the_first_epoch_then_the_second():
    data = Numbers(20)
    loader = BatchLoader(data, 6, shuffle=True)
    passes = [[batch.tolist() for batch in loader] for _ in range(2)]
    assert data.epochs == [0, 1]
    assert passes == [epoch_of(loader, 0), epoch_of(loader, 1)]
    assert passes[0] != passes[1]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("start", [0, 1, 3, 4])
def test_resuming_at_a_batch_gives_the_rest_of_the_epoch(workers, start):
    whole = list(BatchLoader(Numbers(17), 5, shuffle=True, seed=1).batches(3))
    rest = list(BatchLoader(Numbers(17), 5, shuffle=True, seed=1, workers=workers).batches(3, start))
    assert [(b.tolist(), s) for b, s in rest] == [(b.tolist(), s) for b, s in whole[start:]]


@given(
    examples=st.integers(1, 40),
    batch_size=st.integers(1, 9),
    world=st.integers(1, 4),
    drop_last=st.booleans(),
    shuffle=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_the_shards_of_every_batch_make_up_the_global_batch_in_order(examples, batch_size, world, drop_last, shuffle):
    size = batch_size * world
    if drop_last and examples < size:
        return
    order = epoch_of(BatchLoader(Numbers(examples), examples, shuffle=shuffle, seed=9), 1)[0]
    expected = [order[i : i + size] for i in range(0, examples, size)]
    expected = [batch for batch in expected if len(batch) == size or not drop_last]
    ranks = []
    for rank in range(world):
        loader = BatchLoader(Numbers(examples), min(batch_size, examples), shuffle, seed=9, drop_last=drop_last)
        loader.batch_size = batch_size
        loader.shard(rank, world)
        assert len(loader) == len(expected)
        ranks.append(list(loader.batches(1)))
        assert len(ranks[-1]) == len(expected)
    for number, whole in enumerate(expected):
        together, position = [], number * size
        for batch, span in (rank[number] for rank in ranks):
            assert span.total == len(whole)
            assert span.start == position
            assert len(batch) == max(span.size, 1)  # nothing to do is one example that weighs nothing
            assert batch.tolist() == order[span.start : span.start + max(span.size, 1)]
            position += span.size
            together += batch.tolist()[: span.size]
        assert together == whole


def test_ranks_share_a_ragged_last_batch_as_evenly_as_it_goes():
    spans = []
    for rank in range(4):
        loader = BatchLoader(Numbers(10), 2)
        loader.shard(rank, 4)
        spans.append(list(loader.batches(0))[-1][1])
    assert [tuple(span) for span in spans] == [(8, 0, 2), (8, 1, 2), (9, 0, 2), (9, 1, 2)]


def test_drop_last_leaves_out_a_smaller_batch_alone():
    loader = BatchLoader(Numbers(10), 4, drop_last=True)
    assert len(loader) == 2
    assert epoch_of(loader, 0) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert len(BatchLoader(Numbers(8), 4, drop_last=True)) == len(BatchLoader(Numbers(8), 4)) == 2


@pytest.mark.parametrize("labelled", [True, False])
def test_workers_give_the_same_batches(labelled):
    images = torch.arange(11 * 4, dtype=torch.uint8).view(11, 1, 2, 2)
    data = ImageDataset(images, torch.arange(11) if labelled else None, -1, 1)
    here, there = (BatchLoader(data, 4, shuffle=True, seed=2, workers=workers) for workers in (0, 2))
    for a, b in zip(here, there, strict=True):
        for x, y in zip(a, b, strict=True) if labelled else [(a, b)]:
            assert torch.equal(x, y)
            assert x.dtype == y.dtype


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_set_of_pytorchs_own_is_collated(workers):
    data = TensorDataset(torch.arange(10.0).view(10, 1), torch.arange(10))
    assert not hasattr(data, "__getitems__")
    batches = list(BatchLoader(data, 4, workers=workers))
    assert [x.shape for x, _ in batches] == [(4, 1), (4, 1), (2, 1)]
    assert torch.cat([y for _, y in batches]).tolist() == list(range(10))
    assert torch.equal(torch.cat([x for x, _ in batches])[:, 0], torch.arange(10.0))


def test_a_subset_of_images_gives_whole_batches():
    images = torch.arange(40, dtype=torch.uint8).view(10, 1, 2, 2)
    whole = ImageDataset(images, torch.arange(10))
    batch, labels = next(iter(BatchLoader(Subset(whole, [7, 2, 5]), 2)))
    assert labels.tolist() == [7, 2]
    assert torch.equal(batch, whole.__getitems__([7, 2])[0])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_subset_of_a_data_set_of_pytorchs_own_is_collated(workers):
    data = Subset(TensorDataset(torch.arange(10.0), torch.arange(10)), range(5, 10))
    x, y = next(iter(BatchLoader(data, 3, workers=workers)))
    assert x.tolist() == [5.0, 6.0, 7.0]
    assert y.tolist() == [5, 6, 7]


def test_everything_the_order_depends_on_is_told():
    told = BatchLoader(Numbers(10), 4).order_settings()
    others = [
        BatchLoader(Numbers(11), 4),
        BatchLoader(Numbers(10), 3),
        BatchLoader(Numbers(10), 4, shuffle=True),
        BatchLoader(Numbers(10), 4, seed=1),
        BatchLoader(Numbers(10), 4, drop_last=True),
        BatchLoader(Numbers(10), 4),
    ]
    others[-1].shard(1, 2)
    for other in others:
        assert [told[name] == value for name, value in other.order_settings().items()].count(False) == 1
    assert BatchLoader(Numbers(10), 4, workers=2).order_settings() == told


@pytest.mark.parametrize("workers", [0, 2])
def test_data_in_memory_moves_to_the_device_unless_workers_read_it(workers):
    data = ImageDataset(torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64))
    loader = BatchLoader(data, 2, workers=workers)
    loader.to(torch.device("meta"))
    assert data.device.type == data.labels.device.type == ("cpu" if workers else "meta")
    assert loader.order(0).device == data.device
    BatchLoader(Numbers(3), 2).to(torch.device("meta"))  # which cannot move, and need not


@pytest.mark.parametrize(
    ("kwargs", "examples", "named"),
    [
        (dict(batch_size=0), 5, "batch_size.*0"),
        (dict(batch_size=2, workers=-1), 5, "workers.*-1"),
        (dict(batch_size=2), 0, "empty"),
        (dict(batch_size=6, drop_last=True), 5, "batch_size 6 .*5 examples"),
    ],
)
def test_what_gives_no_batches_is_refused(kwargs, examples, named):
    with pytest.raises(InputError, match=named):
        BatchLoader(Numbers(examples), **kwargs)


def test_more_processes_than_a_batch_has_examples_for_are_refused():
    with pytest.raises(InputError, match=r"4 processes .*batch_size 2 .*5 examples"):
        BatchLoader(Numbers(5), 2, drop_last=True).shard(0, 4)


class Failing(Dataset):
    """One of its items ends the worker that makes it, in the way that is named."""

    def __init__(self, way: str) -> None:
        self.way = way

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> int:
        if index == 5 and self.way == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if index == 5 and self.way == "memory":
            raise RuntimeError("unable to allocate shared memory(shm) for file </torch_12_3>: No space left on device")
        if index == 5 and self.way == "input":
            raise InputError("picture 5 is damaged: mend it")
        if index == 5 and self.way == "mistake":
            raise RuntimeError("a mistake of the user's")
        return index


@pytest.mark.parametrize(
    ("way", "error", "sentence"),
    [
        (
            "kill",
            InputError,
            r"^a process .* was lost \(DataLoader worker .*\): .*/dev/shm\); use fewer .*\(workers=0 .*$",
        ),
        (
            "memory",
            InputError,
            r"^a process .* was lost \(.*No space left on device\): .*/dev/shm\); use .*workers=0.*$",
        ),
        ("input", InputError, r"^picture 5 is damaged: mend it$"),
        ("mistake", RuntimeError, r"a mistake of the user's"),
    ],
)
def test_an_error_of_a_worker_is_one_sentence_unless_it_is_a_mistake_of_the_users(way, error, sentence):
    with pytest.raises(error, match=sentence) as caught:
        list(BatchLoader(Failing(way), 2, workers=2))
    assert caught.type is error
    assert "\n" not in str(caught.value) or way == "mistake"


def test_a_worker_lost_while_its_batch_was_fetched_is_a_sentence_and_a_connection_of_the_users_is_not(tmp_path):
    with pytest.raises(InputError, match=r"lost \(DataLoader worker: .*\).*workers=0"), explaining_lost_workers():
        Client(str(tmp_path / "gone"))
    with pytest.raises(ConnectionResetError, match="of the user's"), explaining_lost_workers():
        raise ConnectionResetError("of the user's own data set")


def test_a_lost_worker_that_pytorch_reports_during_a_step_is_a_sentence_too():
    def loss(output, target):
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. ")

    data = ArrayDataset(torch.ones(4, 1), torch.ones(4, 1))
    with pytest.raises(InputError, match="workers=0"):
        Trainer(device="cpu").fit(Supervised(torch.nn.Linear(1, 1), loss), BatchLoader(data, 2))
