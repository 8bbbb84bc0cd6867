from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy import stats

from torchdl import random

WORD = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15
COUNTERS = st.integers(-(2**70), 2**70)
INDICES = st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20)
DRAWS = {
    "bits": random.bits,
    "uniform": random.uniform,
    "normal": random.normal,
    "integers": lambda *args: random.integers(1000, *args),
}

# a run's record is worth nothing if these change: a new version that changes them must say so
PINNED_KEYS = (8147104208329303767, 1434657543605386066, 8896874652956843868)
PINNED_BITS = [[2904376621296341692, 3465867739397067203], [1582780135630853576, 1162293521713760889]]
PINNED_UNIFORM = [[0.1842041015625, 0.24489814043045044], [0.21753549575805664, 0.6214191317558289]]
PINNED_INTEGERS = [[184, 244, 905, 570], [217, 621, 949, 837]]
PINNED_NORMAL = [[0.5443132, 1.2407731], [0.1727449, 0.8350918]]


def mix(x: int) -> int:
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & WORD
    return x ^ (x >> 31)


def splitmix(state: int, count: int) -> list[int]:
    return [mix((state + k * GOLDEN) & WORD) for k in range(1, count + 1)]


def test_the_reference_is_splitmix64_by_its_published_outputs():
    assert splitmix(1234567, 3) == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@given(COUNTERS, COUNTERS, INDICES, st.integers(1, 5), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_bits_are_the_integer_arithmetic_of_an_independent_reference(seed, epoch, indices, count, stream):
    start = random.key(seed, epoch, stream)
    expected = [splitmix(mix((i * GOLDEN + start) & WORD), count) for i in indices]
    drawn = random.bits(seed, epoch, torch.tensor(indices), count, stream)
    assert [[x & WORD for x in row] for row in drawn.tolist()] == expected


@pytest.mark.parametrize("name", DRAWS)
@given(seed=COUNTERS, epoch=COUNTERS, indices=INDICES, cut=st.integers(0, 20), shuffle=st.randoms())
@settings(max_examples=25, deadline=None)
def test_an_item_is_the_same_whatever_the_grouping_and_order(name, seed, epoch, indices, cut, shuffle):
    draw, index = DRAWS[name], torch.tensor(indices)
    whole = draw(seed, epoch, index, 3)
    parts = torch.cat([draw(seed, epoch, part, 3) for part in (index[:cut], index[cut:])])
    order = torch.tensor(shuffle.sample(range(len(indices)), len(indices)))
    assert torch.equal(parts, whole)
    assert torch.equal(draw(seed, epoch, index[order], 3), whole[order])


@pytest.mark.parametrize("name", DRAWS)
def test_large_draws_hold_the_same_items_as_single_ones(name):
    # sizes at which torch uses several threads and whole vectors, against ones at which it does not
    index = torch.arange(40_000)
    whole = DRAWS[name](5, 6, index, 7)
    for first, last in ((0, 1), (17, 20), (12_345, 23_456), (39_999, 40_000)):
        assert torch.equal(DRAWS[name](5, 6, index[first:last], 7), whole[first:last])


@pytest.mark.parametrize("name", DRAWS)
def test_drawing_neither_reads_nor_moves_the_global_generator_nor_the_index(name):
    index = torch.arange(10)
    before = torch.get_rng_state()
    first = DRAWS[name](1, 2, index, 3)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(index, torch.arange(10))
    torch.rand(1)
    assert torch.equal(DRAWS[name](1, 2, index, 3), first)


def test_keys_are_pinned():
    assert random.key() == 0
    assert random.key(0) == PINNED_KEYS[0]
    assert random.key(1, 2, 3) == PINNED_KEYS[1]
    assert random.key(-1, -(2**40)) == PINNED_KEYS[2]


def test_first_values_are_pinned():
    index = torch.tensor([0, 1])
    assert random.bits(0, 0, index, 2).tolist() == PINNED_BITS
    assert random.uniform(7, 3, index, 2).tolist() == PINNED_UNIFORM
    assert random.integers(1000, 7, 3, index, 4).tolist() == PINNED_INTEGERS
    # the last bits of a logarithm and a cosine may differ between processors
    torch.testing.assert_close(random.normal(7, 3, index, 2), torch.tensor(PINNED_NORMAL), rtol=1e-5, atol=1e-6)


@given(st.lists(COUNTERS, max_size=4))
@settings(deadline=None)
def test_any_integers_give_a_key_that_torch_takes_as_a_seed(counters):
    key = random.key(*counters)
    assert 0 <= key < 2**63
    assert torch.Generator().manual_seed(key).initial_seed() == key


def test_keys_tell_the_order_the_number_and_the_sign_of_counters_apart():
    keys = [random.key(*c) for c in ((1, 2), (2, 1), (1,), (1, 2, 0), (-1, 2), (1, -2), (0,), (0, 0), (0, 0, 0))]
    assert len(set(keys)) == len(keys)


def test_no_two_lists_of_small_counters_have_the_same_key():
    counters = [c for count in range(5) for c in product(range(-3, 4), repeat=count)]
    assert len({random.key(*c) for c in counters}) == len(counters)


def test_every_purpose_has_a_stream_of_its_own():
    index = torch.arange(50)
    draws = [random.bits(0, 0, index, 2, stream) for stream in random.Stream]
    assert len(torch.stack(draws).unique()) == len(random.Stream) * 50 * 2


def test_neighbouring_seeds_epochs_streams_items_and_columns_share_no_word():
    index = torch.arange(50)
    draws = [random.bits(s, e, index, 4, k) for s in range(5) for e in range(5) for k in range(4)]
    assert len(torch.stack(draws).unique()) == 5 * 5 * 4 * 50 * 4


@pytest.mark.parametrize("other", [dict(seed=1), dict(epoch=1), dict(stream=1)], ids=["seed", "epoch", "stream"])
def test_draws_of_another_seed_epoch_or_stream_are_uncorrelated(other):
    index = torch.arange(20_000)
    call = dict(seed=0, epoch=0, stream=0)
    a, b = (random.normal(index=index, count=1, **kind)[:, 0].numpy() for kind in (call, call | other))
    assert stats.pearsonr(a, b).pvalue > 1e-3
    assert stats.pearsonr(a[:-1], b[1:]).pvalue > 1e-3


def test_columns_and_neighbouring_items_are_uncorrelated():
    x = random.normal(3, 0, torch.arange(20_000), 4).numpy()
    columns = np.corrcoef(x.T) - np.eye(4)
    lagged = np.corrcoef(x[:-1].T, x[1:].T)[:4, 4:]
    assert max(abs(columns).max(), abs(lagged).max()) < 5 / np.sqrt(20_000)


@pytest.mark.parametrize("seed", [0, 1, -5])
def test_uniform_is_uniform_by_kolmogorov_and_smirnov(seed):
    x = random.uniform(seed, 0, torch.arange(20_000), 2)
    assert 0 <= x.min() <= x.max() < 1
    assert stats.kstest(x.flatten().numpy(), "uniform").pvalue > 1e-3


@pytest.mark.parametrize("high", [1, 2, 10, 1000])
def test_integers_are_uniform_by_chi_square(high):
    x = random.integers(high, 0, 1, torch.arange(20_000), 2)
    counts = torch.bincount(x.flatten(), minlength=high)
    assert len(counts) == high
    assert high == 1 or stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_integers_reach_the_highest_range_without_overflow():
    x = random.integers(2**31, 0, 1, torch.arange(20_000), 2)
    assert 0 <= x.min() < 2**31 * 0.001
    assert 2**31 * 0.999 < x.max() < 2**31


def test_every_bit_is_set_half_of_the_time():
    words = random.bits(0, 0, torch.arange(20_000), 1)
    ones = torch.stack([(words >> k & 1).sum() for k in range(64)]).numpy()
    assert abs(ones - 10_000).max() < 5 * np.sqrt(20_000) / 2


@pytest.mark.parametrize("count", [1, 2, 3])  # cosines alone, cosines and sines, and an odd number
def test_normal_is_normal_by_kolmogorov_and_smirnov(count):
    x = random.normal(0, 0, torch.arange(20_000), count)
    assert x.shape == (20_000, count)
    for column in x.T:
        assert stats.kstest(column.numpy(), "norm").pvalue > 1e-3


def test_normal_is_finite_for_the_extreme_words(monkeypatch):
    for word in (0, -1, 0xFFFFFFFF, -(2**63), 2**63 - 1):
        monkeypatch.setattr(random, "bits", lambda *a, word=word: torch.full((1, 1), word))
        assert random.normal(0, 0, torch.zeros(1), 2).isfinite().all()


BOUNDS = st.lists(st.lists(st.integers(1, 2**31), min_size=3, max_size=3), min_size=1, max_size=6)


@given(COUNTERS, BOUNDS)
@settings(max_examples=60, deadline=None)
def test_integers_below_bounds_of_their_own_are_those_below_each_bound_alone(seed, bounds):
    high, index = torch.tensor(bounds), torch.arange(len(bounds))
    drawn = random.integers(high, seed, 1, index, 3)
    assert (drawn >= 0).all()
    assert (drawn < high).all()
    for i, j in np.ndindex(*drawn.shape):
        assert drawn[i, j] == random.integers(bounds[i][j], seed, 1, index, 3)[i, j]


def test_one_bound_a_column_or_an_item_is_broadcast():
    index = torch.arange(20_000)
    x = random.integers(torch.tensor([2, 10, 1]), 0, 3, index, 3)
    for column, high in zip(x.T, (2, 10, 1), strict=True):
        counts = torch.bincount(column)
        assert len(counts) == high
        assert high == 1 or stats.chisquare(counts.numpy()).pvalue > 1e-3
    high = 1 + index[:, None] % 7
    y = random.integers(high, 0, 3, index, 2)
    assert y.shape == (20_000, 2)
    assert (y < high).all()
    assert stats.chisquare(torch.bincount(y[high[:, 0] == 7].flatten()).numpy()).pvalue > 1e-3


def test_the_library_seeds_global_generators_in_one_place_and_for_good_in_programs_alone():
    """Everything else uses :func:`random.seeded`, which restores them."""
    package = Path(random.__file__).parent
    seeds = re.compile(r"torch\.(cuda\.|mps\.)?manual_seed|default_generator|np\.random\.seed|[^.\w]random\.seed\(")
    texts = {path.relative_to(package).as_posix(): path.read_text("utf-8") for path in package.rglob("*.py")}
    assert {name for name, text in texts.items() if seeds.search(text)} == {"random.py"}
    for_good = {name for name, text in texts.items() if "seed_generators(" in text}
    assert {name.split("/")[0] for name in for_good - {"training/device.py"}} == {"cli"}
