from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from torchdl import InputError
from torchdl.metrics import clustering_accuracy, forecast_errors

PAIRS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40)


@given(PAIRS, st.permutations(range(4)), st.permutations(range(4)))
@settings(max_examples=80, deadline=None)
def test_clustering_accuracy_is_the_best_over_all_namings(pairs, names, other_names):
    clusters, labels = torch.tensor(pairs).T
    shares = [(torch.tensor(p)[clusters] == labels).float().mean().item() for p in itertools.permutations(range(4))]
    found = clustering_accuracy(clusters, labels, 4)
    assert found == pytest.approx(max(shares))
    renamed = clustering_accuracy(torch.tensor(names)[clusters], torch.tensor(other_names)[labels], 4)
    assert renamed == pytest.approx(found)


def test_clusters_that_are_the_labels_renamed_are_correct():
    labels = torch.arange(50) % 10
    names = torch.tensor([3, 0, 9, 1, 8, 2, 7, 4, 6, 5])
    assert clustering_accuracy(names[labels], labels, 10) == 1


def test_two_clusters_cannot_have_one_name():
    # by majority both would be called 0, and all but one example would be correct
    clusters, labels = torch.tensor([0, 0, 0, 1, 1, 1]), torch.tensor([0, 0, 0, 0, 0, 1])
    assert clustering_accuracy(clusters, labels, 2) == pytest.approx(4 / 6)


def test_one_label_an_example_is_needed():
    with pytest.raises(InputError, match=r"3 labels.*2"):
        clustering_accuracy(torch.zeros(3).long(), torch.zeros(2).long(), 2)
    assert clustering_accuracy(np.array([0, 1]), [1, 0], 2) == 1
    with pytest.raises(InputError, match="labels must be from 0 to 1, not 2"):
        clustering_accuracy([0, 1], [0, 2], 2)


def test_forecasts_and_actual_terms_of_other_shapes_are_not_broadcast():
    assert forecast_errors(np.ones((3, 2)), np.zeros((3, 2)), [0, 0, 0], 2.0)["mase"] == 0.5
    for shapes in (((3, 1), (3, 2), (3,)), ((3,), (3,), (3,)), ((3, 2), (3, 2), (3, 1))):
        with pytest.raises(InputError, match=r"must be \(N, H\), and last \(N,\)"):
            forecast_errors(*map(torch.ones, shapes), 2.0)
