"""Made-up sequences: their rules against the lecture's and the papers', and what an item depends on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from torchdl import AddingProblem, BatchLoader, InputError, long_distance
from torchdl.data.synthetic import DISTANCES, deciding_terms, odd_negatives


def get_label(x, i1, i2, i3):
    """Lecture 48's."""
    if x[i1] < 0 and x[i2] < 0 and x[i3] < 0:
        return 1
    if x[i1] < 0 and x[i2] > 0 and x[i3] > 0:
        return 1
    if x[i1] > 0 and x[i2] < 0 and x[i3] > 0:
        return 1
    if x[i1] > 0 and x[i2] > 0 and x[i3] < 0:
        return 1
    return 0


# three deciding terms


@settings(max_examples=200, deadline=None)
@given(
    x=st.lists(st.sampled_from([-2.0, -1e-30, -0.0, 0.0, 1e-30, 0.5, 3.0]), min_size=3, max_size=9),
    places=st.permutations(range(-3, 3)),
)
def test_the_label_is_the_lectures(x, places):
    got = odd_negatives(torch.tensor([x]), places[:3])
    assert got.dtype == torch.bool
    assert got.tolist() == [bool(get_label(x, *places[:3]))]


@pytest.mark.parametrize(("distance", "places"), [("short", (-1, -2, -3)), ("long", (0, 1, 2)), ("spread", (0, 5, 10))])
def test_the_deciding_terms_are_where_the_distance_says(distance, places):
    data = long_distance(300, 11, distance, seed=4)
    x, labels = data[:]
    assert (x.shape, labels.shape, x.dtype, labels.dtype) == ((300, 11, 1), (300, 1), torch.float32, torch.float32)
    assert labels[:, 0].tolist() == [get_label(sequence, *places) for sequence in x[:, :, 0].tolist()]
    negated = x.clone()
    negated[:, places[1]] *= -1  # one sign turned round turns every label round
    assert torch.equal(odd_negatives(negated[:, :, 0], places).float(), 1 - labels[:, 0])


@pytest.mark.parametrize("terms", [3, 4, 10])
@pytest.mark.parametrize("distance", DISTANCES)
def test_three_different_terms_decide(distance, terms):
    places = deciding_terms(distance, terms)
    assert len({*places}) == 3
    assert all(0 <= place < terms for place in places)


def test_the_numbers_are_normal_and_nothing_less_than_all_three_signs_tells_the_label():
    x, labels = long_distance(20_000, 6, "long", seed=1)[:]
    x, labels = x[:, :, 0], labels[:, 0]
    error = 1 / len(x) ** 0.5
    assert x.mean(0).abs().max() < 4 * error
    assert (x.std(0) - 1).abs().max() < 4 * error
    assert abs(labels.mean() - 0.5) < 4 * 0.5 * error
    centred, signs = 2 * labels - 1, x.sign()
    for i in range(6):
        assert (centred * signs[:, i]).mean().abs() < 4 * error
        for j in range(i):
            assert (centred * signs[:, i] * signs[:, j]).mean().abs() < 4 * error
    assert (centred * signs[:, :3].prod(1)).mean() == -1


def test_a_sequence_depends_on_the_seed_and_its_number_alone():
    few, many, other = (long_distance(n, 10, seed=seed)[:] for n, seed in ((20, 3), (500, 3), (500, 4)))
    assert torch.equal(few[0], many[0][:20])
    assert torch.equal(few[1], many[1][:20])
    assert not torch.equal(other[0], many[0])
    assert len(many[0].unique(dim=0)) == 500
    assert torch.equal(long_distance(20, 10, "short", seed=3)[:][0], few[0])  # the same numbers, another rule
    assert not torch.equal(long_distance(20, 10, "short", seed=3)[:][1], few[1])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [({"count": 0}, "count.*0"), ({"terms": 2}, "terms.*2"), ({"distance": "far"}, "'far'.*short, long, spread")],
)
def test_what_cannot_be_made_is_said(arguments, named):
    with pytest.raises(InputError, match=named):
        long_distance(**arguments)


# two numbers to be added


@pytest.mark.parametrize("terms", [2, 3, 9, 100])
@pytest.mark.parametrize("low", [0.0, -1.0])
def test_the_target_is_the_sum_of_a_number_of_each_half(terms, low):
    x, target = AddingProblem(500, terms, low, seed=2)[:]
    assert (x.shape, target.shape, x.dtype) == ((500, terms, 2), (500, 1), torch.float32)
    for (numbers, markers), (total,) in zip(x.mT.numpy(), target.numpy(), strict=True):
        (first, second) = np.flatnonzero(markers)
        assert first < terms // 2 <= second
        assert set(markers) <= {0.0, 1.0}
        assert total == np.float32(numbers[first] + numbers[second])
    assert low <= x[:, :, 0].min() < low + 0.02
    assert 0.98 < x[:, :, 0].max() < 1


def test_numbers_and_places_are_uniform_and_independent():
    n, terms = 20_000, 7
    x, _ = AddingProblem(n, terms, seed=5)[:]
    numbers, markers = x.unbind(2)
    marked = markers.mean(0)
    assert marked[:3].sum() == marked[3:].sum() == pytest.approx(1, abs=1e-6)
    expected = torch.tensor([1 / 3] * 3 + [1 / 4] * 4)
    assert (marked - expected).abs().max() < 4 * (0.25 / n) ** 0.5
    first, second = markers[:, :3].argmax(1), markers[:, 3:].argmax(1)
    joint = torch.bincount(first * 4 + second, minlength=12) / n
    assert (joint - 1 / 12).abs().max() < 4 * (1 / 12 / n) ** 0.5
    for column in (*numbers.unbind(1), *(numbers[torch.arange(n), place] for place in (first, second + 3))):
        cumulated = column.sort().values - (torch.arange(n) + 0.5) / n
        assert cumulated.abs().max() < 1.95 / n**0.5  # Kolmogorov and Smirnov's bound for one in a thousand
    assert np.abs(np.corrcoef(numbers.T.numpy()) - np.eye(terms)).max() < 5 / n**0.5


@pytest.mark.parametrize(("low", "known"), [(0.0, 1 / 6), (-1.0, 2 / 3)])
def test_always_saying_the_mean_errs_by_the_papers_error(low, known):
    data = AddingProblem(50_000, 4, low, seed=6)
    assert data.baseline == pytest.approx(known)
    _, target = data[:]
    assert (target - (1 + low)).square().mean().item() == pytest.approx(known, rel=0.02)


def test_both_ranges_are_the_same_numbers_in_another_scale():
    (x, target), (wide, wide_target) = (AddingProblem(50, 8, low, seed=1)[:] for low in (0.0, -1.0))
    torch.testing.assert_close(2 * x[:, :, 0] - 1, wide[:, :, 0])
    assert torch.equal(x[:, :, 1], wide[:, :, 1])
    torch.testing.assert_close(2 * target - 2, wide_target)


def test_a_sum_depends_on_the_seed_the_epoch_and_its_number_alone():
    data, same = AddingProblem(60, 10, seed=3), AddingProblem(600, 10, seed=3)
    first = data[:]
    indices = [59, 0, 7]
    for got, want in zip(data.__getitems__(indices), first, strict=True):
        assert torch.equal(got, want[indices])
    for got, want in zip(data[-1], first, strict=True):
        assert torch.equal(got, want[59])
    assert torch.equal(same[:60][0], first[0])
    data.set_epoch(1)
    assert not torch.equal(data[:][0], first[0])
    same.set_epoch(1)
    assert torch.equal(same[:60][0], data[:][0])
    data.set_epoch(0)
    assert torch.equal(data[:][0], first[0])
    assert not torch.equal(AddingProblem(60, 10, seed=4)[:][0], first[0])
    with pytest.raises(IndexError):
        data[60]


def test_a_loader_gets_new_sums_in_every_epoch_and_the_same_again_from_any_batch_on():
    data = AddingProblem(70, 10, seed=3)
    loader = BatchLoader(data, 32)
    epochs = [[batch for batch, _ in loader.batches(epoch)] for epoch in (0, 1)]
    assert not torch.equal(epochs[0][0][0], epochs[1][0][0])
    assert [len(target) for _, target in epochs[0]] == [32, 32, 6]
    again = [batch for batch, _ in loader.batches(1, 1)]
    for one, other in zip(epochs[1][1:], again, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    by_workers = next(BatchLoader(data, 32, workers=1).batches(1))[0]
    assert all(torch.equal(a, b) for a, b in zip(epochs[1][0], by_workers, strict=True))


def test_what_decides_on_the_numbers_is_told_to_a_checkpoint_and_to_a_record():
    one = AddingProblem(60, 10, 0.0, seed=3)
    others = [AddingProblem(60, 11, 0.0, 3), AddingProblem(60, 10, -1.0, 3), AddingProblem(60, 10, 0.0, 4)]
    assert one.order_settings() == {"terms": 10, "least number": 0.0, "numbers' seed": 3}
    prints = {data.fingerprint() for data in (one, *others, AddingProblem(61, 10, 0.0, 3))}
    assert len(prints) == 5
    assert all(data.order_settings() != one.order_settings() for data in others)
    before = one.fingerprint()
    one.set_epoch(7)
    assert one.fingerprint() == before
    assert one.epoch == 7


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"count": 0}, "count.*0"),
        ({"terms": 1}, "terms.*1"),
        ({"low": 1.0}, "low.*1.0"),
        ({"low": float("nan")}, "low.*nan"),
        ({"low": -float("inf")}, "low.*-inf"),
    ],
)
def test_what_cannot_be_added_is_said(arguments, named):
    with pytest.raises(InputError, match=named):
        AddingProblem(**arguments)
