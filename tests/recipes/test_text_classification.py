"""Training, evaluating and saving text classifiers; the script is tested apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import gaussian
from sklearn import metrics

from torchdl import InputError, TextCNN, Trainer
from torchdl.data import Texts, Vocabulary
from torchdl.predict import TextClassifier, load_predictor
from torchdl.recipes.text_classification import (
    TextLearning,
    evaluate_texts,
    find_mistakes,
    scores,
    text_training,
    typical_words,
    weighted,
)
from torchdl.tasks.supervised import class_probabilities


def test_probabilities_are_those_of_softmax_even_for_one_logit():
    logits = gaussian(6, 3, dtype=torch.float64)
    torch.testing.assert_close(class_probabilities(logits), logits.softmax(1))
    one = torch.tensor([[0.0], [40.0], [-800.0]], dtype=torch.float64)
    both = torch.cat([torch.zeros(3, 1), one], 1)
    torch.testing.assert_close(class_probabilities(one), both.softmax(1))
    assert class_probabilities(one)[1, 0] > 0  # 1 - p would be 0


@pytest.mark.parametrize("classes", [2, 3])
def test_a_balanced_loss_weighs_all_classes_equally(classes):
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


def test_typical_words_are_in_a_larger_share_of_their_classes_texts():
    texts = ["hi you you", "hi me", "hi you", "buy hi now", "buy it"]
    train = Texts(texts, torch.tensor([0, 0, 0, 1, 1]), ("ham", "spam"))
    vocabulary = Vocabulary.learn(texts, unknown=True)
    # you: (2 + 1) / (3 + 1) of ham, (0 + 1) / (2 + 1) of spam; buy: 3 / 3 of spam, 1 / 4 of ham
    assert typical_words(train, vocabulary, 1) == ["you", "buy"]
    assert typical_words(train, vocabulary, 2) == ["you", "hi", "buy", "now"]


@pytest.mark.parametrize("classes", [2, 4])
def test_scores_are_those_of_scikit_learn(classes):
    rng = np.random.default_rng(0)
    true, found = rng.integers(0, classes, 80), rng.dirichlet(np.ones(classes), 80)
    measured, predicted = scores(true, found), found.argmax(1)
    average = "binary" if classes == 2 else "macro"
    assert measured["accuracy"] == pytest.approx(metrics.accuracy_score(true, predicted))
    assert measured["F1"] == pytest.approx(metrics.f1_score(true, predicted, average=average))
    assert measured["MCC"] == pytest.approx(metrics.matthews_corrcoef(true, predicted))
    each = [metrics.average_precision_score(true == k, found[:, k]) for k in range(classes)]
    assert measured["average precision"] == pytest.approx(each[1] if classes == 2 else np.mean(each))


def test_texts_with_labels_that_are_not_classes_are_refused():
    with pytest.raises(InputError, match="from 0 to 1"):
        Texts(("a", "b"), torch.tensor([0, 2]), ("x", "y"))
    with pytest.raises(InputError, match=r"1 .*2"):
        Texts(("a", "b"), torch.tensor([0]), ("x", "y"))


# a training


@pytest.fixture(scope="module")
def texts() -> Texts:
    """Return short texts whose first word tells the class."""
    words = [f"{('cheap', 'dear')[label]} word{number % 7} again" for number in range(60) for label in (0, 1)]
    return Texts(tuple(words), torch.tensor([0, 1] * 60), ("spam", "ham"))


@pytest.fixture(scope="module")
def trained(texts, one_thread) -> tuple[TextClassifier, Texts, Texts]:
    train, test = texts.split(0.25, 0)
    vocabulary = Vocabulary.learn(train.texts)
    data, test_data = (part.numbered(vocabulary) for part in (train, test))
    torch.manual_seed(0)
    model = TextCNN(len(vocabulary), 1, 4, dropout=0.0)
    training = text_training(model, train, data, test_data, TextLearning(batch_size=10))
    Trainer(epochs=5, device="cpu").fit(*training)
    settings = TextClassifier.Settings(vocabulary.settings, train.classes, 20)
    return TextClassifier(model, settings, "cpu"), train, test


def test_an_evaluation_has_the_scores_of_the_model_and_of_the_baselines(trained, capsys):
    classifier, train, test = trained
    report = evaluate_texts(classifier, train, test)
    measured = report.results["scores"]
    assert list(measured) == ["this model", "TF-IDF, logistic regression", "the most frequent class"]
    assert measured["this model"] == scores(test.labels.numpy(), classifier.probabilities(test.texts).numpy())
    assert measured["this model"]["accuracy"] == measured["TF-IDF, logistic regression"]["accuracy"] == 1
    assert set(report.figures) == {"confusion", "precision_recall"}
    assert report.tables["mistakes"].empty
    assert f"{len(test.texts)} test texts" in report.summary
    assert not capsys.readouterr().out


def test_scores_without_the_test_texts_that_are_in_training_are_reported(trained):
    classifier, train, test = trained
    places = np.array([train.texts.index(text) for text in dict.fromkeys(train.texts)][:3])
    new = Texts(("cheap thing", "dear thing", "dear cheap word1"), torch.tensor([0, 1, 0]), test.classes)
    both = Texts(new.texts + train[places].texts, torch.cat([new.labels, train[places].labels]), test.classes)
    report, expected = (evaluate_texts(classifier, train, part) for part in (both, new))
    assert "3 of 6 test texts are in the training part, too" in report.summary
    without = report.results["without duplicates"]
    assert without == {"texts": 3, "scores": expected.results["scores"]}
    assert f"without them: accuracy {without['scores']['this model']['accuracy']:.2%}" in report.summary
    assert without["scores"] != report.results["scores"]
    assert "without duplicates" not in expected.results
    assert "training part" not in expected.summary
    known = evaluate_texts(classifier, train, train)  # nothing is left
    assert "without duplicates" not in known.results
    assert f"{len(train)} of {len(train)} test texts" in known.summary


def test_mistakes_are_sorted_by_confidence():
    texts = Texts(("a", "b", "c", "d"), torch.tensor([0, 1, 0, 1]), ("x", "y"))
    mistakes = find_mistakes(texts, np.array([[0.4, 0.6], [0.9, 0.1], [0.8, 0.2], [0.7, 0.3]]))
    assert mistakes["text"].tolist() == ["b", "d", "a"]
    assert mistakes["class"].tolist() == ["y", "y", "x"]
    assert mistakes["probability"].tolist() == [0.9, 0.7, 0.6]


def test_a_saved_classifier_has_the_scores_of_its_evaluation(trained, tmp_path):
    classifier, train, test = trained
    classifier.save(tmp_path)
    answers = load_predictor(tmp_path, "cpu").predict(test.texts)
    measured = evaluate_texts(classifier, train, test).results["scores"]["this model"]
    assert scores(test.labels.numpy(), answers.probabilities.numpy()) == measured
