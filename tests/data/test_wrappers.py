"""Data sets within others: PyTorch's subsets and concatenations, and wrappers of users."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import ConcatDataset, Dataset, StackDataset, Subset, TensorDataset, random_split

from torchdl import (
    AddingProblem,
    ArrayDataset,
    BatchLoader,
    ImageDataset,
    InputError,
    ShiftedImages,
    Supervised,
    TextDataset,
    Trainer,
    Vocabulary,
)
from torchdl.data.wrappers import View, look_through

PIXELS = torch.arange(24 * 9).view(24, 3, 3).to(torch.uint8)


def shifted(first: int = 0, count: int = 24, seed: int = 0) -> ShiftedImages:
    return ShiftedImages(
        ImageDataset(PIXELS[first : first + count], torch.arange(first, first + count)), 0.5, seed=seed
    )


class Wrapper(Dataset):
    """A user's own: it knows nothing of epochs."""

    def __init__(self, data: Dataset) -> None:
        self.inside = data

    def __len__(self) -> int:
        return len(self.inside)

    def __getitem__(self, index: int):
        return self.inside[index]


class Doubled(Subset):
    """A user's own, which changes the items."""

    def __getitem__(self, index: int):
        image, label = self.dataset[self.indices[index]]
        return 2 * image, label

    def __getitems__(self, indices):
        return [self[index] for index in indices]


def split(data: Dataset) -> Dataset:
    return random_split(data, [0.75, 0.25], torch.Generator().manual_seed(1))[0]


WRAPPED = {
    "subset": lambda: Subset(shifted(), range(2, 20, 3)),
    "subset by a tensor": lambda: Subset(shifted(), torch.tensor([5, 1, -1, 7])),
    "random split": lambda: split(shifted()),
    "concatenation": lambda: ConcatDataset([shifted(0, 10), shifted(10, 14)]),
    "nested": lambda: Subset(
        ConcatDataset([split(shifted(0, 10)), Subset(shifted(10, 9), [8, 2, 2])]), [9, 0, 8, 3, 1]
    ),
    "wrapper": lambda: Wrapper(shifted()),
    "wrapper of a subset": lambda: Wrapper(Subset(shifted(), [3, 1, 2])),
    "subset of a wrapper": lambda: Subset(Wrapper(shifted()), [3, 1, 2]),
    "wrappers in a list": lambda: ConcatDataset([Wrapper(shifted(0, 9)), shifted(9, 9)]),
    "a subset's subclass": lambda: Doubled(shifted(), [3, 1, 2]),
    "stacked": lambda: Wrapper(StackDataset(shifted(), torch.arange(24))),
}


def epoch_of(data: Dataset, epoch: int, **options) -> list:
    return [batch for batch, _ in BatchLoader(data, 4, shuffle=True, **options).batches(epoch)]


def flat(batch) -> list[torch.Tensor]:
    return [batch] if isinstance(batch, torch.Tensor) else [tensor for part in batch for tensor in flat(part)]


def equal(one: list, other: list) -> bool:
    return all(torch.equal(*pair) for pair in zip(flat(one), flat(other), strict=True))


@pytest.mark.parametrize("make", WRAPPED.values(), ids=WRAPPED)
def test_every_epoch_is_augmented_in_its_own_way_wherever_the_augmentation_is(make):
    epochs = [BatchLoader(make(), 4) for _ in range(2)]
    first, second = ([batch for batch, _ in loader.batches(epoch)] for epoch, loader in enumerate(epochs))
    assert not equal(first, second)


@pytest.mark.parametrize("make", WRAPPED.values(), ids=WRAPPED)
def test_the_items_are_those_that_pytorch_finds_one_by_one(make):
    data = make()
    loader = BatchLoader(data, 4)
    found = [batch for batch, _ in loader.batches(1)]
    assert equal(found, [torch.utils.data.default_collate([data[i] for i in part]) for part in cut(len(data), 4)])
    assert equal(found, [batch for batch, _ in BatchLoader(make(), 4, workers=2).batches(1)])


def cut(count: int, size: int) -> list[range]:
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


@pytest.mark.parametrize("name", ["subset", "random split", "concatenation", "nested"])
def test_whole_batches_are_made_at_once(name, monkeypatch):
    monkeypatch.setattr("torchdl.data.arrays.BatchDataset.__getitem__", None)  # of single items
    assert epoch_of(WRAPPED[name](), 0)


@pytest.mark.parametrize("make", WRAPPED.values(), ids=WRAPPED)
def test_the_settings_of_the_augmentation_are_among_those_that_a_resume_compares(make):
    assert BatchLoader(make(), 2).order_settings()["flips in %"] == 50


def test_another_choice_of_examples_is_another_order():
    def settings(indices) -> dict:
        return BatchLoader(Subset(shifted(), indices), 2).order_settings()

    assert settings([1, 2, 3]) == settings(torch.tensor([1, 2, 3])) == settings(range(1, 4))
    assert settings([1, 2, 3]) != settings([1, 2, 4])


def test_lengths_are_those_of_the_chosen_texts():
    texts = ["a", "a b", "a b c", "a b c d"] * 3
    data = TextDataset(texts, torch.arange(12), Vocabulary.learn(texts))
    for chosen in (Subset(data, range(1, 12)), ConcatDataset([Subset(data, [0, 1, 5]), Subset(data, [3, 4, 8])])):
        loader = BatchLoader(chosen, 3, by_length=True)
        assert [(words > 0).sum(1).tolist() for words, _ in loader] == [
            sorted(loader.source.lengths.tolist())[start : start + 3] for start in range(0, len(chosen), 3)
        ]


def test_the_data_within_is_moved():
    data = ArrayDataset(torch.ones(4, 1), torch.ones(4))
    for chosen in (Subset(data, [1, 2]), ConcatDataset([data, data])):
        loader = BatchLoader(chosen, 2)
        loader.to(torch.device("meta"))
        assert data.device.type == loader.order(0).device.type == "meta"
        data.inputs, data.targets = torch.ones(4, 1), torch.ones(4)
    BatchLoader(ConcatDataset([data, Wrapper(data)]), 2).to(torch.device("meta"))
    assert data.device.type == "cpu"  # the wrapper's items would stay on the CPU


def test_a_view_tells_its_origin_and_identifies_its_data():
    numbers = ArrayDataset(torch.arange(6.0), torch.arange(6), origin="numbers")
    others = ArrayDataset(torch.ones(6), torch.arange(6), origin="ones", fallback=True)
    subset, both = look_through(Subset(numbers, [1, 2])), look_through(ConcatDataset([numbers, others]))
    assert isinstance(subset, View)
    assert (subset.origin, subset.fallback) == ("2 examples of numbers", False)
    assert (both.origin, both.fallback) == ("12 examples of numbers and of ones", True)
    prints = {look_through(Subset(data, rows)).fingerprint() for data in (numbers, others) for rows in ([1, 2], [2, 1])}
    assert len({*prints, both.fingerprint(), numbers.fingerprint()}) == 6
    with pytest.raises(InputError, match="TensorDataset has no method fingerprint"):
        look_through(Subset(TensorDataset(torch.ones(3)), [1])).fingerprint()


def test_parts_of_one_data_set_do_not_disturb_each_others_epochs():
    data = shifted()
    alone = epoch_of(Subset(data, range(12)), 5)
    train = BatchLoader(Subset(data, range(12)), 4, shuffle=True).batches(5)
    found = []
    for batch, _ in train:
        found.append(batch)
        next(BatchLoader(Subset(data, range(12, 24)), 4).batches(0))  # an evaluation in between
    assert equal(found, alone)


def test_a_data_set_that_shows_another_epoch_is_told_its_epoch_once():
    class Odd(Wrapper):
        epoch, told = 7, 0

        def set_epoch(self, epoch: int) -> None:
            self.told += 1

    data = Odd(shifted())
    list(BatchLoader(data, 4).batches(3))
    assert (data.told, data.inside.epoch) == (1, 3)


def test_items_with_texts_are_collated_across_data_sets():
    class Named(Dataset):
        def __len__(self):
            return 3

        def __getitem__(self, index):
            return {"x": torch.tensor(index), "name": str(index)}

    loader = BatchLoader(ConcatDataset([Named(), Named()]), 4)
    assert [batch["name"] for batch in loader] == [["0", "1", "2", "0"], ["1", "2"]]
    assert [batch["x"].tolist() for batch in loader] == [[0, 1, 2, 0], [1, 2]]


def test_items_of_different_shapes_cannot_be_batched():
    data = ConcatDataset([ArrayDataset(torch.ones(2, 3), torch.ones(2)), ArrayDataset(torch.ones(2, 4), torch.ones(2))])
    with pytest.raises(InputError, match="different kinds or shapes"):
        list(BatchLoader(data, 4))


@pytest.mark.parametrize("indices", [[1, 24], [-25, 1]])
def test_an_index_outside_the_data_is_one_sentence(indices):
    with pytest.raises(InputError, match=r"^the indices .* from -24 to 23, for .* ShiftedImages$"):
        BatchLoader(Subset(shifted(), indices), 2)


def test_keys_instead_of_indices_stay_as_they_are():
    class Named(Dataset):
        def __getitem__(self, name: str) -> float:
            return {"a": 1.0, "b": 2.0}[name]

    assert [batch.tolist() for batch in BatchLoader(Subset(Named(), ["b", "a", "b"]), 2)] == [[2.0, 1.0], [2.0]]


def test_training_on_a_subset_is_resumed_with_the_same_subset_alone(tmp_path):
    data = AddingProblem(count=12, terms=2)

    def train(chosen: Dataset, steps: int, resume: bool, folder=tmp_path) -> nn.Module:
        model = nn.Sequential(nn.Flatten(), nn.Linear(4, 1))
        nn.init.constant_(model[1].weight, 0.1)
        nn.init.constant_(model[1].bias, 0.1)
        trainer = Trainer(max_steps=steps, device="cpu")
        trainer.fit(Supervised(model, F.mse_loss), BatchLoader(chosen, 3), folder=folder, resume=resume)
        return model

    train(Subset(data, range(8)), 4, resume=False)
    with pytest.raises(InputError, match="cannot be resumed with choice of examples"):
        train(Subset(data, range(1, 9)), 8, resume=True)
    resumed = train(Subset(data, range(8)), 8, resume=True)
    whole = train(Subset(data, range(8)), 8, resume=False, folder=None)
    assert equal(list(resumed.parameters()), list(whole.parameters()))


def test_a_plain_list_is_a_data_set():
    rows = [(torch.ones(2), index) for index in range(5)]
    assert [labels.tolist() for _, labels in BatchLoader(rows, 2)] == [[0, 1], [2, 3], [4]]
