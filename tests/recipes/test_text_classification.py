"""How texts' models are trained and measured, apart from the script."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import gaussian
from sklearn import metrics

from torchdl import InputError
from torchdl.data import Texts
from torchdl.recipes.text_classification import scores, weighted
from torchdl.tasks.supervised import class_probabilities


def test_probabilities_are_those_of_softmax_also_of_one_logit():
    logits = gaussian(6, 3, dtype=torch.float64)
    torch.testing.assert_close(class_probabilities(logits), logits.softmax(1))
    one = torch.tensor([[0.0], [40.0], [-800.0]], dtype=torch.float64)
    both = torch.cat([torch.zeros(3, 1), one], 1)
    torch.testing.assert_close(class_probabilities(one), both.softmax(1))
    assert class_probabilities(one)[1, 0] > 0  # 1 - p would be 0


@pytest.mark.parametrize("classes", [2, 3])
def test_balanced_each_class_counts_as_much_whatever_its_number(classes):
    counts = torch.tensor([9, 3, 2][:classes])
    labels = torch.repeat_interleave(torch.arange(classes), counts)
    if classes == 2:
        loss, output, target = F.binary_cross_entropy_with_logits, gaussian(len(labels), 1), labels[:, None].float()
    else:
        loss, output, target = F.cross_entropy, gaussian(len(labels), classes), labels
    balanced = weighted(loss, counts.sum() / (classes * counts))
    each = loss(output, target, reduction="none").flatten()
    by_class = torch.stack([each[labels == label].mean() for label in range(classes)])
    torch.testing.assert_close(balanced(output, target), by_class.mean())
    torch.testing.assert_close(balanced(output, target, reduction="none").mean(), by_class.mean())


@pytest.mark.parametrize("classes", [2, 4])
def test_scores_are_those_of_scikit_learn(classes):
    rng = np.random.default_rng(0)
    true, found = rng.integers(0, classes, 80), rng.dirichlet(np.ones(classes), 80)
    measured, answers = scores(true, found), found.argmax(1)
    average = "binary" if classes == 2 else "macro"
    assert measured["accuracy"] == pytest.approx(metrics.accuracy_score(true, answers))
    assert measured["F1"] == pytest.approx(metrics.f1_score(true, answers, average=average))
    assert measured["MCC"] == pytest.approx(metrics.matthews_corrcoef(true, answers))
    each = [metrics.average_precision_score(true == k, found[:, k]) for k in range(classes)]
    assert measured["average precision"] == pytest.approx(each[1] if classes == 2 else np.mean(each))


def test_texts_with_a_label_that_is_no_class_are_refused():
    with pytest.raises(InputError, match="labels must be from 0 to 1"):
        Texts(("a", "b"), torch.tensor([0, 2]), ("x", "y"))
    with pytest.raises(InputError, match="one label a text, not 1 for 2"):
        Texts(("a", "b"), torch.tensor([0]), ("x", "y"))
