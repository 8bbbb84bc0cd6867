from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings, strategies as st
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Subset

from torchdl import ArrayDataset, BatchLoader, ImageDataset, InputError, OrderedSequences


class Numbered(Dataset):
    """Items one by one that say their own number, beside a label."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.full((2,), float(index)), index % 3


def places(data, epoch: int = 0) -> Tensor:
    """The numbers (N, P) that the items of an epoch's sequences say."""
    data.set_epoch(epoch)
    context, future = data.__getitems__(torch.arange(len(data)))[:2]
    items = torch.cat([context, future], 1)
    return items.reshape(*items.shape[:2], -1)[..., 0].long()


@st.composite
def cases(draw):
    options = {name: draw(st.integers(1, 4)) for name in ("terms", "predict_terms", "step")}
    span = (options["terms"] + options["predict_terms"] - 1) * options["step"] + 1
    lengths = draw(st.lists(st.integers(span, 6 * span), min_size=1, max_size=5))
    return options, span, lengths, draw(st.integers(0, 2**40)), draw(st.integers(0, 10**6))


@given(cases())
@settings(max_examples=60, deadline=None)
def test_sequences_are_in_order_within_a_recording_and_share_no_item(case):
    options, span, lengths, seed, epoch = case
    data = OrderedSequences(torch.arange(float(sum(lengths)))[:, None], **options, lengths=lengths, seed=seed)
    found = places(data, epoch)
    assert found.shape == (len(data), options["terms"] + options["predict_terms"])
    assert (found.diff(dim=1) == options["step"]).all()
    ends = torch.tensor(lengths).cumsum(0)
    recording = torch.bucketize(found, ends, right=True)
    assert (recording == recording[:, :1]).all()
    starts = found[:, 0].sort().values
    assert (starts.diff() >= span).all()
    for number, length in enumerate(lengths):  # at most one and a half sequences' length is left over
        count = int((recording[:, 0] == number).sum())
        assert count >= 1
        assert length - count * span < 1.5 * span
    assert torch.equal(found, places(data, epoch))


def test_every_place_is_seen_and_epochs_and_seeds_differ():
    data = OrderedSequences(torch.arange(100.0), terms=3, predict_terms=2)
    epochs = [places(data, epoch) for epoch in range(60)]
    assert len(data) == 19
    assert set(torch.cat(epochs).flatten().tolist()) == set(range(100))
    assert not torch.equal(epochs[0], epochs[1])
    assert not torch.equal(epochs[0].sort(0).values, epochs[1].sort(0).values)  # not only in another order
    other = OrderedSequences(torch.arange(100.0), terms=3, predict_terms=2, seed=1)
    assert not torch.equal(places(other), epochs[0])


def test_batches_mix_recordings_at_random():
    data = OrderedSequences(torch.arange(2000.0), 3, 2, lengths=[1000, 1000])
    share = torch.stack([(places(data, epoch)[:100, 0] < 1000).float().mean() for epoch in range(20)])
    assert 0.45 < share.mean() < 0.55
    assert share.max() < 0.75


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_sequence_is_the_same_alone_in_any_batch_and_by_any_loader(workers):
    data = OrderedSequences(Numbered(60), 2, 2, lengths=[25, 35])
    data.set_epoch(3)
    whole = data.__getitems__(range(len(data)))
    assert all(torch.equal(x[:, None], y[5:6].transpose(0, 1)) for x, y in zip(data[5], whole, strict=True))
    loaded = [batch for batch, _ in BatchLoader(data, 4, drop_last=True, workers=workers).batches(3)]
    size = len(data) // 4 * 4
    for number, part in enumerate(whole):
        assert torch.equal(torch.cat([batch[number] for batch in loaded]), part[:size])


@pytest.mark.parametrize(
    "items",
    [
        torch.arange(40.0).view(40, 1).repeat(1, 2),
        torch.arange(40.0).view(40, 1).repeat(1, 2).numpy(),
        ArrayDataset(torch.arange(40.0).view(40, 1).repeat(1, 2), torch.zeros(40)),
        Subset(Numbered(50), range(40)),
        [torch.full((2,), float(number)) for number in range(40)],
    ],
    ids=["tensor", "array", "pairs", "subset", "list"],
)
def test_items_may_be_any_data_set(items):
    expected, data = OrderedSequences(Numbered(40), 3, 1), OrderedSequences(items, 3, 1)
    for one, other in zip(data[:4], expected[:4], strict=True):
        assert torch.equal(one, other)


def test_a_class_for_each_recording_or_item_is_that_of_every_term():
    items, lengths = torch.arange(60.0), [30, 30]
    for labels in (torch.tensor([4, 7]), torch.tensor([4] * 30 + [7] * 30)):
        data = OrderedSequences(items, 2, 1, lengths=lengths, labels=labels)
        context, _, classes = data.__getitems__(range(len(data)))
        assert classes.shape == (len(data), 3)
        assert torch.equal(classes[:, 0] == 7, context[:, 0] >= 30)
        assert (classes == classes[:, :1]).all()


def test_what_determines_the_items_is_recorded():
    items = torch.arange(40.0)
    data = OrderedSequences(items, 3, 1, step=2, lengths=[10, 30], seed=5)
    assert BatchLoader(data, 2).order_settings().items() >= {"terms": 3, "predict_terms": 1, "step": 2}.items()
    prints = [data.fingerprint()]
    prints += [OrderedSequences(items, 3, 1, lengths=lengths).fingerprint() for lengths in ([20, 20], [40])]
    prints += [OrderedSequences(items + 1, 3, 1).fingerprint()]
    prints += [OrderedSequences(items, 3, 1, labels=torch.zeros(40).long()).fingerprint()]
    assert len(set(prints)) == 5
    assert data.fingerprint() == OrderedSequences(items.clone(), 3, 1, step=2, lengths=[10, 30]).fingerprint()
    assert data.origin == "40 items in 2 recordings from memory"
    with pytest.raises(InputError, match=r"Numbered.*fingerprint"):
        OrderedSequences(Numbered(40)).fingerprint()


@pytest.mark.parametrize(
    ("items", "options", "sentence"),
    [
        (torch.zeros(30), {"terms": 0}, "terms .*0"),
        (torch.zeros(30), {"step": 0}, "step .*0"),
        (torch.zeros(7), {}, r"recording 1 has 7 items.* 4 \+ 4 .*takes 8"),
        (torch.zeros(30), {"lengths": [10, 5, 8, 7]}, "recording 2 has 5 items, and 1 more"),
        (torch.zeros(30), {"lengths": [10, 10]}, "add up to the 30 items"),
        (torch.zeros(30), {"lengths": [10.5, 19.5]}, "must be whole"),
        (torch.zeros(30), {"lengths": "ab"}, "lengths must be numbers"),
        (torch.zeros(30), {"terms": 2.5}, "terms must be a whole number.* 2.5"),
        (torch.zeros(30), {"labels": [1, 2]}, r"labels .* 1 recordings or the 30 items"),
        (torch.zeros(30), {"labels": [0.5]}, "labels must be whole numbers"),
        (torch.zeros(30).long(), {}, "decimals, not torch.int64"),
        (torch.tensor([0.0] * 25 + [float("nan")] + [0.0] * 4), {"lengths": [20, 10]}, "recording 2 .*NaN.*index 5"),
        (iter([]), {}, "list_iterator|items with a length"),
    ],
)
def test_a_mistake_is_one_sentence(items, options, sentence):
    with pytest.raises(InputError, match=sentence):
        OrderedSequences(items, **options)


def test_items_that_are_not_decimals_are_refused_when_they_are_read():
    with pytest.raises(InputError, match=r"tensors of decimals.*not of torch.uint8: scale"):
        OrderedSequences([torch.zeros(3, dtype=torch.uint8)] * 20)[0]
    with pytest.raises(InputError, match=r"tensors.*not of .*Image.*: convert"):
        OrderedSequences([Image.new("L", (4, 4))] * 20)[0]
    with pytest.raises(InputError, match="differ in shape"):
        OrderedSequences([torch.zeros(number) for number in range(20)])[0]
    with pytest.raises(InputError, match=r"tensors of decimals.*not a str"):
        OrderedSequences(["text"] * 20)[0]


def test_the_trainer_moves_what_can_be_moved_in_place():
    images = ImageDataset(torch.zeros(20, 1, 4, 4, dtype=torch.uint8))
    data = OrderedSequences(images, 2, 1)
    assert data.to("cpu") is data
    assert data.device == images.device == torch.device("cpu")
