"""Distances between sets of samples: closed forms, slow references, and what must not matter."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import scipy.linalg
import torch
from helpers import gaussian
from hypothesis import given, settings, strategies as st

from torchdl import InputError
from torchdl.metrics import (
    Moments,
    SampleSet,
    class_shares,
    compare_sets,
    frechet_deviation,
    frechet_distance,
    inception_score,
    kernel_distance,
    neighbour_scores,
)


def moments(features: torch.Tensor, size: int = 1000) -> Moments:
    return Moments(features.split(size))


def correlated(count: int, dim: int, seed: int) -> torch.Tensor:
    return gaussian(count, dim, seed=seed) @ gaussian(dim, dim, seed=seed + 100) + gaussian(dim, seed=seed + 200)


# moments


@given(st.lists(st.integers(0, 7), min_size=1, max_size=6), st.integers(0, 1000))
@settings(deadline=None, max_examples=40)
def test_moments_do_not_depend_on_how_they_come(sizes, offset):
    features = gaussian(sum(sizes) + 2, 3) + offset
    found = Moments([*features[:-2].split(sizes), features[-2:]])
    assert found.count == len(features)
    np.testing.assert_allclose(found.mean, features.double().mean(0), rtol=1e-12)
    expected = np.cov(features.double().numpy().T)
    # a one-pass sum of squares would have lost it all at an offset of 1000 in float32
    np.testing.assert_allclose(found.covariance, expected, rtol=1e-8, atol=1e-10)


# Fréchet


def test_of_equal_sets_the_frechet_distance_is_0():
    features = correlated(500, 8, 0)
    assert frechet_distance(moments(features), moments(features[torch.randperm(500)], 7)) < 1e-9


def test_the_frechet_distance_of_two_normal_distributions_is_the_formula():
    one, other = correlated(300, 6, 0), correlated(200, 6, 1)
    means = (one.double().mean(0) - other.double().mean(0)).numpy()
    a, b = (np.cov(x.double().numpy().T) for x in (one, other))
    root = scipy.linalg.sqrtm(a @ b)
    expected = means @ means + np.trace(a + b - 2 * root.real)
    assert frechet_distance(moments(one), moments(other)) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(moments(other), moments(one)) == pytest.approx(expected, rel=1e-6)


def test_the_frechet_distance_in_one_dimension_is_that_of_means_and_deviations():
    one, other = Moments(), Moments()
    one.count, one.mean, one.scatter = 11, torch.tensor([3.0]).double(), torch.tensor([[40.0]]).double()
    other.count, other.mean, other.scatter = 6, torch.tensor([-1.0]).double(), torch.tensor([[45.0]]).double()
    assert frechet_distance(one, other) == pytest.approx(4**2 + (2 - 3) ** 2)


def test_a_singular_covariance_does_no_harm():
    features = gaussian(20, 50)  # fewer samples than features
    features[:, 3] = 1.0
    assert frechet_distance(moments(features), moments(features)) < 1e-6
    assert frechet_distance(moments(features), moments(features + 1)) == pytest.approx(50, rel=1e-6)


def test_more_samples_lower_the_bias():
    def distance(count: int) -> float:
        pairs = [(gaussian(count, 16, seed=2 * s), gaussian(count, 16, seed=2 * s + 1)) for s in range(5)]
        return float(np.mean([frechet_distance(moments(a), moments(b)) for a, b in pairs]))

    found = [distance(count) for count in (50, 200, 800)]
    assert found[0] > 2 * found[1] > 4 * found[2] > 0


# the kernel


def test_the_kernel_distance_is_a_double_loop():
    x, y = gaussian(7, 3).double(), gaussian(5, 3, seed=1).double() + 0.5

    def kernel(a, b) -> float:
        return (float(a @ b) / 3 + 1) ** 3

    within = [np.mean([kernel(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j]) for z in (x, y)]
    between = np.mean([kernel(a, b) for a in x for b in y])
    assert kernel_distance(x, y) == pytest.approx(within[0] + within[1] - 2 * between, rel=1e-10)


def test_the_kernel_distance_has_no_bias():
    found = [kernel_distance(gaussian(30, 4, seed=2 * s), gaussian(30, 4, seed=2 * s + 1)) for s in range(200)]
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(200)
    assert min(found) < 0
    shifted = [kernel_distance(gaussian(30, 4, seed=2 * s), gaussian(30, 4, seed=2 * s + 1) + 1) for s in range(50)]
    assert np.mean(shifted) > 10 * np.std(found) / np.sqrt(50)


# what a classifier says


def test_the_inception_score_is_from_1_to_the_number_of_classes():
    sure = torch.eye(4)
    assert inception_score(sure.repeat(5, 1)) == pytest.approx(4)
    assert inception_score(sure[:1].repeat(9, 1)) == pytest.approx(1)  # all collapsed on one class
    assert inception_score(torch.full((9, 4), 0.25)) == pytest.approx(1)  # never sure
    p = torch.rand(50, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).softmax(1)
    divergences = (p * (p / p.mean(0)).log()).sum(1)
    assert inception_score(p) == pytest.approx(float(divergences.mean().exp()))


def test_class_shares_are_counted():
    assert class_shares(torch.tensor([2, 0, 2, 2]), 4).tolist() == [0.25, 0, 0.75, 0]


# neighbours


def slow_scores(real: np.ndarray, made: np.ndarray, k: int) -> tuple[float, float, float, float]:
    def distances(a, b):
        return np.array([[np.sqrt(((p - q) ** 2).sum()) for q in b] for p in a])

    real_reach = np.sort(distances(real, real), 1)[:, k]
    made_reach = np.sort(distances(made, made), 1)[:, k]
    between = distances(real, made)
    inside = between <= real_reach[:, None]
    return (
        inside.any(0).mean(),
        (between <= made_reach).any(1).mean(),
        inside.sum() / (k * len(made)),
        inside.any(1).mean(),
    )


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("shift", [0.0, 1.5, 100.0])
def test_neighbour_scores_are_a_slow_loop(k, shift, monkeypatch):
    monkeypatch.setattr("torchdl.metrics.samples.BLOCK", 7)
    real, made = gaussian(30, 3).double(), gaussian(20, 3, seed=1).double() * 0.7 + shift
    expected = slow_scores(real.numpy(), made.numpy(), k)
    assert tuple(neighbour_scores(real, made, k)) == pytest.approx(expected)


@pytest.mark.parametrize("block", [3, 13, 1024])
def test_one_pass_gives_what_loops_over_all_pairs_give(block, monkeypatch):
    monkeypatch.setattr("torchdl.metrics.samples.BLOCK", block)
    real, made = correlated(40, 3, 0), correlated(26, 3, 1)
    kernel, neighbours = compare_sets(SampleSet(real, 4), SampleSet(made, 4))
    x, y = real.double().numpy(), made.double().numpy()
    within = [((z @ z.T / 3 + 1) ** 3)[~np.eye(len(z), dtype=bool)].mean() for z in (x, y)]
    assert kernel == pytest.approx(sum(within) - 2 * ((x @ y.T / 3 + 1) ** 3).mean(), rel=1e-9)
    assert tuple(neighbours) == pytest.approx(slow_scores(x, y, 4))
    assert kernel == pytest.approx(kernel_distance(real, made), rel=1e-12)
    assert neighbours == neighbour_scores(real, made, 4)


def test_a_set_is_compared_with_several_others_as_if_it_were_new():
    real, sets = SampleSet(gaussian(50, 4)), [SampleSet(gaussian(30, 4, seed=s) + s) for s in (1, 2)]
    first = [compare_sets(real, other) for other in sets]
    assert [compare_sets(real, other) for other in sets] == first
    assert first[0] != first[1]


@pytest.mark.parametrize("dim", [17, 100, 512])
def test_samples_that_are_equal_reach_one_another(dim):
    # each has more equals than it has neighbours to look for, so that it reaches no further than itself, while the
    # products of two equals are rounded differently, by where in a matrix they stand
    kinds = gaussian(3, dim) * 1000
    numbers = torch.arange(41) % 3, torch.arange(17).flip(0) % 3
    found = neighbour_scores(*(kinds[number] for number in numbers), k=4)
    pairs = int((numbers[0][:, None] == numbers[1]).sum())
    assert tuple(found) == pytest.approx((1, 1, pairs / (4 * 17), 1))


def test_equal_sets_share_all_and_distant_ones_nothing():
    features = gaussian(60, 5)
    same = neighbour_scores(features, features.clone())
    assert (same.precision, same.recall, same.coverage) == (1, 1, 1)
    assert tuple(neighbour_scores(features, features + 100)) == (0, 0, 0, 0)


def test_a_collapsed_generator_is_precise_and_covers_little():
    real = gaussian(400, 5)
    collapsed = real[:1] + 0.01 * gaussian(400, 5, seed=1)
    found = neighbour_scores(real, collapsed)
    assert found.precision > 0.9
    assert found.recall < 0.05
    assert found.coverage < 0.1


# what must not matter


@pytest.mark.parametrize("mean", [1e2, 1e5, 1e8])
def test_a_large_common_mean_costs_no_digits(mean):
    # whole numbers, so that the shift itself rounds nothing
    real, made = ((100 * gaussian(size, 4, seed=size)).round().double() for size in (60, 50))
    made = made * 2 + 30
    assert neighbour_scores(real + mean, made + mean) == neighbour_scores(real, made)
    deviations = [frechet_deviation(made + m, moments(real + m)) for m in (mean, 0)]
    assert deviations[0] == pytest.approx(deviations[1], rel=1e-6)
    distances = [frechet_distance(moments(real + m), moments(made + m)) for m in (mean, 0)]
    assert distances[0] == pytest.approx(distances[1], rel=1e-6)
    kernel = exact_kernel_distance(real + mean, made + mean)  # it does depend on the mean
    assert kernel_distance(real + mean, made + mean) == pytest.approx(kernel, rel=1e-9)


def exact_kernel_distance(one: torch.Tensor, other: torch.Tensor) -> float:
    x, y = (np.array([[int(number) for number in row] for row in rows.tolist()], object) for rows in (one, other))

    def total(a: np.ndarray, b: np.ndarray) -> int:
        return ((a @ b.T + a.shape[1]) ** 3).sum()

    within = [Fraction(total(z, z) - ((z * z).sum(1) + 4).__pow__(3).sum(), len(z) * (len(z) - 1)) for z in (x, y)]
    return float((sum(within) - 2 * Fraction(total(x, y), len(x) * len(y))) / 4**3)


def test_a_set_that_has_the_others_centre_compares_the_same():
    one, other = gaussian(30, 3) + 7, gaussian(20, 3, seed=1) + 7
    real = SampleSet(one)
    kernel, neighbours = compare_sets(real, SampleSet(other, centre=real.centre))
    again = compare_sets(real, SampleSet(other))
    assert again == (kernel, neighbours)


@given(st.integers(0, 5))
@settings(deadline=None, max_examples=6)
def test_order_does_not_matter(seed):
    real, made = correlated(50, 4, 0), correlated(40, 4, 1)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(seed))
    assert kernel_distance(real[order], made) == pytest.approx(kernel_distance(real, made), rel=1e-9)
    assert tuple(neighbour_scores(real[order], made)) == pytest.approx(tuple(neighbour_scores(real, made)))
    one, other = (frechet_distance(moments(x, size), moments(made)) for x, size in ((real, 50), (real[order], 3)))
    assert one == pytest.approx(other, rel=1e-9)


# error bars


def bootstrapped(features: torch.Tensor, other: Moments, times: int) -> float:
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randint(len(features), (len(features),), generator=generator) for _ in range(times)]
    return float(np.std([frechet_distance(Moments([features[r]]), other) for r in rows]))


def test_the_deviation_of_the_frechet_distance_is_that_of_the_bootstrap():
    features, other = correlated(2000, 6, 0), moments(correlated(2000, 6, 1))
    assert frechet_deviation(features, other) == pytest.approx(bootstrapped(features, other, 200), rel=0.15)


def test_the_deviation_of_the_frechet_distance_is_that_of_new_samples():
    other = moments(gaussian(5000, 6, seed=99) * 2 + 1)
    drawn = [gaussian(1000, 6, seed=seed) for seed in range(200)]
    found = np.std([frechet_distance(moments(features), other) for features in drawn])
    assert frechet_deviation(drawn[0], other) == pytest.approx(found, rel=0.15)


def test_in_one_dimension_the_deviation_is_a_derivative():
    x = gaussian(50, 1, seed=3).double()
    other = Moments([gaussian(60, 1, seed=4) * 3 + 2])
    weights = torch.full((50,), 1 / 50, dtype=torch.float64, requires_grad=True)
    mean = (weights[:, None] * x).sum() / weights.sum()
    # the variance with N - 1 in place of N, which weights do not change
    variance = (weights * (x[:, 0] - mean) ** 2).sum() / weights.sum() * 50 / 49
    distance = (mean - other.mean) ** 2 + (variance.sqrt() - other.covariance[0, 0].sqrt()) ** 2
    (slopes,) = torch.autograd.grad(distance.sum(), weights)
    assert frechet_deviation(x, other) == pytest.approx(float(slopes.std()) / 50**0.5, rel=0.02)


def test_units_that_are_silent_do_not_spoil_the_deviation():
    features, other = correlated(300, 4, 0), correlated(300, 4, 1)
    silent = torch.zeros(300, 3)
    found = frechet_deviation(torch.cat([features, silent], 1), moments(torch.cat([other, silent], 1)))
    assert found == pytest.approx(frechet_deviation(features, moments(other)), rel=1e-6)


def test_with_few_samples_the_bootstrap_is_farther_from_new_samples_than_the_deviation():
    other = moments(gaussian(500, 48, seed=99))
    drawn = [gaussian(30, 48, seed=seed) for seed in range(40)]
    found = np.std([frechet_distance(moments(features), other) for features in drawn], ddof=1)
    assert found < frechet_deviation(drawn[0], other) < bootstrapped(drawn[0], other, 40) / 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Moments([torch.zeros(3)]), r"\(samples, features\)"),
        (lambda: Moments([torch.zeros(3, 2), torch.zeros(3, 4)]), "2 features, not 4"),
        (lambda: Moments([torch.zeros(1, 2)]).covariance, "2 samples.*1"),
        (lambda: frechet_distance(moments(gaussian(5, 2)), moments(gaussian(5, 3))), "features.*2 and 3"),
        (lambda: kernel_distance(gaussian(5, 2), gaussian(5, 3)), "features"),
        (lambda: kernel_distance(gaussian(1, 2), gaussian(5, 2)), "2 samples.*1"),
        (lambda: neighbour_scores(gaussian(5, 2), gaussian(9, 2), 5), "k .*4.*5"),
        (lambda: neighbour_scores(gaussian(5, 2), gaussian(9, 3), 2), "features"),
        (lambda: inception_score(torch.zeros(3)), r"\(samples, classes\)"),
        (lambda: inception_score(gaussian(5, 3)), r"5 of 5 samples' do not.*softmax\(1\)"),
        (lambda: inception_score(torch.full((5, 3), torch.nan)), "5 of 5 samples' do not"),
        (lambda: class_shares(torch.zeros(0, dtype=torch.int64), 3), "predictions .*not 0"),
        (lambda: class_shares(torch.tensor([0, 3]), 3), "from 0 to 2, not 3"),
        (lambda: class_shares(torch.zeros(3), 3), "whole numbers"),
        (lambda: compare_sets(gaussian(5, 2), gaussian(5, 2)), r"not a Tensor: SampleSet\(features\)"),
        (lambda: neighbour_scores(["a", "b"], gaussian(5, 2), 1), "array of numbers, not a list"),
        (lambda: frechet_deviation(gaussian(5, 2), moments(gaussian(5, 3))), "3 features, not 2"),
        (lambda: SampleSet(torch.zeros(3)), r"\(samples, features\)"),
    ],
)
def test_what_cannot_be_measured_is_one_sentence(make, message):
    with pytest.raises(InputError, match=message):
        make()


TWO_SETS = [frechet_distance, kernel_distance, neighbour_scores, frechet_deviation]


@pytest.mark.parametrize("metric", TWO_SETS)
def test_two_sets_may_be_arrays_and_must_be_finite(metric):
    one, other = gaussian(20, 3), gaussian(30, 3, seed=1)
    expected = metric(one, other)
    assert metric(one.numpy(), other.tolist()) == expected
    if metric in (frechet_distance, frechet_deviation):
        assert metric(one, Moments([other])) == metric(one, Moments(other.numpy())) == expected
    for number in (torch.nan, torch.inf):
        spoilt = one.clone()
        spoilt[4, 1] = number
        for pair in ((spoilt, other), (other, spoilt)):
            with pytest.raises(InputError, match="those of 1 samples have NaN"):
                metric(*pair)


def test_classes_and_probabilities_may_be_arrays():
    assert class_shares(np.array([2, 0, 2, 2], "uint8"), 4).tolist() == [0.25, 0, 0.75, 0]
    assert inception_score(np.eye(4)) == pytest.approx(4)
    half = torch.rand(50, 100, generator=torch.Generator().manual_seed(0)).softmax(1).bfloat16()
    assert 1 <= inception_score(half) < 1.1
