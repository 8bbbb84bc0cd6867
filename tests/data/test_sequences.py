from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from PIL import Image
from scipy import stats
from torch import Tensor

from torchdl import BatchLoader, Digits, InputError, SameNumbers, SortedNumbers, load_digits

KINDS = {"sorted": SortedNumbers, "same": SameNumbers}
COUNTS = torch.tensor([7, 1, 23, 12, 30, 4, 50, 9, 40, 24])  # 200 images
LABELS = torch.repeat_interleave(torch.arange(10), COUNTS)[
    torch.randperm(200, generator=torch.Generator().manual_seed(0))
]


def numbered(seed: int = 0, **kwargs) -> Digits:
    """Make digits whose every image says its own number."""
    images = torch.arange(200, dtype=torch.uint8).view(200, 1, 1).expand(-1, 8, 8).clone()
    return Digits(images, LABELS, 8, **{"color": False, "rescale": False, "seed": seed, **kwargs})


def shown(images: Tensor) -> Tensor:
    """Read the numbers (B, T) that images (B, T, C, 8, 8) of those digits say."""
    assert (images == images[..., :1, :1, :1]).all()
    return (images[..., 0, 0, 0] * 255).round().long()


def everything(data):
    """All sequences of an epoch."""
    return data.__getitems__(torch.arange(len(data)))


def same(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@st.composite
def cases(draw):
    batch_size = draw(st.integers(1, 12))
    settings = {
        "terms": draw(st.integers(1, 6)),
        "predict_terms": draw(st.integers(1, 6)),
        "batch_size": batch_size,
        "positive_samples": draw(st.integers(0, batch_size)),
    }
    kind, seed, epoch = draw(st.sampled_from([*KINDS])), draw(st.integers(-(2**40), 2**40)), draw(st.integers(0, 10**6))
    return kind, settings, seed, epoch


@given(cases())
@settings(max_examples=60, deadline=None)
def test_sequences_are_what_they_say(case):
    kind, options, seed, epoch = case
    data = KINDS[kind](numbered(seed), **options)
    data.set_epoch(epoch)
    terms, steps, size = options["terms"], options["predict_terms"], options["batch_size"]
    assert len(data) == 200 // terms // size * size
    context, future, label, digits, expected = everything(data)
    assert context.shape == (len(data), terms, 3, 8, 8)
    assert future.shape == (len(data), steps, 3, 8, 8)
    assert (label.dtype, digits.dtype, expected.dtype) == (torch.int64,) * 3
    # what is shown is an image of each digit
    assert torch.equal(LABELS[shown(torch.cat([context, future], 1))], digits)
    # the context goes on as it should, and so does what is expected
    stride = {"sorted": 1, "same": 0}[kind]
    true = torch.cat([digits[:, :terms], expected], 1)
    assert torch.equal(true[:, 1:], (true[:, :-1] + stride) % 10)
    # a real future is what is expected at every step, a false one at none
    right = digits[:, terms:] == expected
    assert right[label == 1].all()
    assert not right[label == 0].any()
    assert set(label.tolist()) <= {0, 1}
    assert (label.view(-1, size).sum(1) == options["positive_samples"]).all()


@given(cases(), st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_a_sequence_is_the_same_in_any_batch_and_order(case, shuffle):
    kind, options, seed, epoch = case
    data = KINDS[kind](numbered(seed, color=epoch % 2 == 0), **options)
    data.set_epoch(epoch)
    whole = everything(data)
    order = torch.tensor(shuffle.sample(range(len(data)), len(data)))
    assert same(data.__getitems__(order), [field[order] for field in whole])
    cut = shuffle.randrange(len(data) + 1)
    assert same(data[:cut], [field[:cut] for field in whole])
    one = shuffle.randrange(len(data))
    assert same(data[one], [field[one] for field in whole])
    assert same(data[one - len(data)], [field[one] for field in whole])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_loaders_and_ranks_give_the_parts_of_one_whole(kind, workers):
    def loader(batch_size: int) -> BatchLoader:
        return BatchLoader(KINDS[kind](numbered(5, color=True), terms=3, batch_size=8), batch_size, workers=workers)

    whole = [batch for batch, _ in loader(8).batches(2)]
    assert len(whole) == 200 // 3 // 8
    ranks = [loader(4), loader(4)]
    for rank, part in enumerate(ranks):
        part.shard(rank, 2)
    parts = [[batch for batch, _ in part.batches(2)] for part in ranks]
    for batch, first, second in zip(whole, *parts, strict=True):
        assert same(batch, [torch.cat(pair) for pair in zip(first, second, strict=True)])
    assert same(whole[3], ranks[0].dataset[24:32])  # the epoch is the loader's
    assert all(batch.label.sum() == 4 for batch in whole)


def test_seeds_and_epochs_draw_other_sequences_and_the_same_again():
    def digits(seed: int, epoch: int) -> Tensor:
        data = SortedNumbers(numbered(seed), batch_size=25)
        data.set_epoch(epoch)
        batch = everything(data)
        return torch.cat([batch.digits, batch.label[:, None], shown(batch.context)], 1)

    variants = [digits(seed, epoch) for seed in (0, 1) for epoch in (0, 1, 2)]
    for i, one in enumerate(variants):
        for other in variants[:i]:
            equal = one == other
            assert equal[:, 0].float().mean() < 0.35  # starts, by chance one in ten
            assert equal[:, 9:].float().mean() < 0.35  # images
            assert not equal[:, 8].all()  # labels
    assert torch.equal(digits(1, 2), variants[-1])


# chances; every expected share is told from a false one by some thousand draws


def many(kind: str, color: bool = False, epochs: int = 100, **options) -> list[Tensor]:
    data = KINDS[kind](numbered(7, color=color), **options)
    draws = []
    for epoch in range(epochs):
        data.set_epoch(epoch)
        draws.append(everything(data))
    return [torch.cat(field) for field in zip(*draws, strict=True)]


@pytest.mark.parametrize("kind", KINDS)
def test_starts_and_false_digits_are_uniform_and_tell_nothing_of_each_other(kind):
    _, _, label, digits, expected = many(kind, terms=2, predict_terms=3, batch_size=20, positive_samples=5)
    starts = digits[:, 0]
    assert stats.chisquare(torch.bincount(starts, minlength=10).numpy()).pvalue > 1e-3
    shifts = ((digits[:, 2:] - expected) % 10)[label == 0]
    assert shifts.min() == 1
    for step in range(3):
        counts = torch.bincount(shifts[:, step], minlength=10)
        assert counts[0] == 0
        assert stats.chisquare(counts[1:].numpy()).pvalue > 1e-3
    false_starts = starts[label == 0]
    pairs = {f"start and step {step}": (false_starts, shifts[:, step]) for step in range(3)}
    pairs |= {"steps": (shifts[:, 0], shifts[:, 1]), "start and label": (starts, label)}
    for name, (a, b) in pairs.items():
        table = np.zeros((10, 10), int)
        np.add.at(table, (a.numpy(), b.numpy()), 1)
        table = table[table.any(1)][:, table.any(0)]
        assert stats.chi2_contingency(table).pvalue > 1e-3, name


def test_every_place_in_a_batch_is_as_often_real_and_no_two_batches_are_alike():
    _, _, label, _, _ = many("same", batch_size=10, positive_samples=3)
    places = label.view(-1, 10)
    assert stats.chisquare(places.sum(0).numpy()).pvalue > 1e-3
    assert len(places.unique(dim=0)) > 100  # of the 120 there are, in 500 batches
    both = (places[:, 0] * places[:, 1]).float().mean()
    assert abs(both - 3 / 10 * 2 / 9) < 0.03


def test_images_are_uniform_among_those_of_their_digit_and_independent_within_a_sequence():
    context, future, *_ = many("same", terms=4, batch_size=10)
    images = torch.cat([shown(context), shown(future)], 1)
    for place in (0, 3, 5):
        for digit in (2, 6):
            members = LABELS.eq(digit).nonzero()[:, 0]
            counts = torch.bincount(images[:, place], minlength=200)[members]
            assert stats.chisquare(counts.numpy()).pvalue > 1e-3
    sixes = images[LABELS[images[:, 0]] == 6][:, :2]  # one of 50 images, so the same by chance in 2 %
    assert 0 < (sixes[:, 0] == sixes[:, 1]).float().mean() < 0.06


def test_every_image_of_a_sequence_has_colours_of_its_own():
    context, future, *_ = many("sorted", color=True, epochs=2)
    images = torch.cat([context, future], 1).flatten(0, 1)
    assert len(images.flatten(1).unique(dim=0)) == len(images)
    # on the photographs' average, constants are what differs
    means = images.mean((3, 2)).view(-1, 8, 3)
    assert abs(np.corrcoef(means[:, 0, 0].numpy(), means[:, 1, 0].numpy())[0, 1]) < 5 / np.sqrt(len(means))


@pytest.mark.parametrize("kind", KINDS)
def test_images_are_from_the_subset_alone_in_grey_and_in_colour(kind, tmp_path):
    Image.new("RGB", (40, 40)).save(tmp_path / "black.png")  # on black, exactly the inverted pixels are above 0
    options = {"background": tmp_path / "black.png", "name": "mnist_5k"}
    coloured, other = load_digits("validation", 28, **options), load_digits("train", 28, color=False, name="mnist_5k")
    grey = KINDS[kind](load_digits("validation", 28, color=False, name="mnist_5k"), batch_size=31)[:31]
    numbers = {image.numpy().tobytes(): i for i, image in enumerate(coloured.images)}
    elsewhere = {image.numpy().tobytes() for image in other.images}
    images = torch.cat([grey.context, grey.future], 1)
    assert (images == images[:, :, :1]).all()
    for image, digit in zip(images[:, :, :1].flatten(0, 1), grey.digits.flatten(), strict=True):
        name = ((image + 1) * 127.5).round().to(torch.uint8).numpy().tobytes()
        assert coloured.labels[numbers[name]] == digit
        assert name not in elsewhere
    in_colour = KINDS[kind](coloured, batch_size=31)[:31]
    assert same(in_colour[2:], grey[2:])
    shapes = torch.cat([in_colour.context, in_colour.future], 1) > 0
    assert torch.equal(shapes, images > 0)


# arguments


def test_half_are_real_by_default_and_a_subset_can_be_named(monkeypatch):
    from torchdl.data import sequences

    asked = []
    monkeypatch.setattr(sequences, "load_digits", lambda subset: asked.append(subset) or numbered())
    data = SortedNumbers("validation", batch_size=9)
    assert asked == ["validation"]
    assert (data.terms, data.predict_terms, data.positive_samples) == (4, 4, 4)
    assert data.device == torch.device("cpu")
    assert data.to("cpu") is data


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"terms": 0}, "terms.*0"),
        ({"predict_terms": 0}, "predict_terms.*0"),
        ({"batch_size": 0}, "batch_size.*0"),
        ({"positive_samples": -1}, "positive_samples.*32.*-1"),
        ({"positive_samples": 33}, "positive_samples.*32.*33"),
        ({"batch_size": 51}, "200 images .*51 sequences of 4 terms"),
        ({"terms": 7}, "200 images .*32 sequences of 7 terms"),
    ],
    ids=str,
)
def test_bad_arguments_are_one_sentence(options, named):
    with pytest.raises(InputError, match=named):
        SameNumbers(numbered(), **options)


def test_digits_that_lack_some_are_refused():
    keep = (LABELS != 3) & (LABELS != 8)
    images = torch.zeros(int(keep.sum()), 8, 8, dtype=torch.uint8)
    with pytest.raises(InputError, match="3, 8"):
        SortedNumbers(Digits(images, LABELS[keep], 8, color=False))


@pytest.mark.parametrize("index", [48, -49, 1000])
def test_an_index_beyond_the_end_is_an_index_error(index):
    data = SortedNumbers(numbered(), batch_size=16)
    assert len(data) == 48
    assert len(list(data)) == 48
    with pytest.raises(IndexError):
        data[index]


def test_other_classes_than_ten_go_round_too():
    labels = torch.arange(40) % 4
    digits = Digits(torch.zeros(40, 8, 8, dtype=torch.uint8), labels, 8, color=False, classes="abcd")
    _, _, label, numbers, expected = everything(SortedNumbers(digits, terms=2, predict_terms=5, batch_size=20))
    assert numbers.max() == 3
    true = torch.cat([numbers[:, :2], expected], 1)
    assert torch.equal(true[:, 1:], (true[:, :-1] + 1) % 4)
    assert not (numbers[:, 2:] == expected)[label == 0].any()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"batch_size": 8, "shuffle": True}, "SortedNumbers is in a random order, and shuffle"),
        ({"batch_size": 3}, "the loader has 3 sequences in a batch, and SortedNumbers has 8"),
        ({"batch_size": 4}, "the loader has 4 .* has 8: .*all processes"),
    ],
    ids=str,
)
def test_a_loader_that_would_mix_batches_is_refused(options, named):
    sequences = SortedNumbers(numbered(), batch_size=8)
    for data in (sequences, torch.utils.data.Subset(sequences, range(16))):
        with pytest.raises(InputError, match=named):
            next(iter(BatchLoader(data, **options)))


@pytest.mark.parametrize(("real", "size", "processes"), [(3, 8, 1), (3, 16, 1), (3, 4, 2), (8, 3, 1), (0, 5, 1)])
def test_a_loader_that_keeps_the_share_of_real_futures_is_taken(real, size, processes):
    loader = BatchLoader(SortedNumbers(numbered(), batch_size=8, positive_samples=real), size)
    found = 0
    for rank in range(processes):
        loader.shard(rank, processes)
        found += int(next(loader.batches(0))[0].label.sum())
    assert found * 8 == real * size * processes
