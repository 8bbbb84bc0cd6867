"""Train a text classifier, and compare it with TF-IDF.

Shapes: N texts, T words of the longest text, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from torchdl.data import BatchLoader, Texts, Vocabulary
from torchdl.data.duplicates import duplicates_note, in_training
from torchdl.data.text import TextDataset
from torchdl.data.vocabulary import UNKNOWN
from torchdl.field_docs import with_field_docs
from torchdl.plots import plot_confusion, plot_precision_recall
from torchdl.predict import TextClassifier
from torchdl.recipes.learning import Learning, Training
from torchdl.recipes.report import Embedding, Report
from torchdl.tasks import OptimizerName, ScheduleName
from torchdl.tasks.supervised import Loss, loss_for

if TYPE_CHECKING:
    import pandas
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import Pipeline

SHOWN = 5  # mistakes in the summary
NEAREST = 5  # words beside each word
LISTED = 1000  # words in the table of nearest words
POINTS = 10_000  # that TensorBoard's projector draws without delay


@with_field_docs
@dataclass(frozen=True)
class TextLearning(Learning):
    """How a text classifier learns."""

    lr: float = 6e-3
    schedule: ScheduleName = "cosine"
    optimizer: OptimizerName = "adamw"
    weight_decay: float = 0.01
    balanced: bool = False
    """Weigh each class by the inverse of its number of texts, so that all classes count equally."""
    by_length: bool = True
    """Batch texts of similar length, which need little padding."""


def weighted(loss: Loss, weights: Tensor) -> Loss:
    """Return a loss that weighs each example by that of its class in ``weights`` (K,)."""

    def weigh(output: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
        nonlocal weights
        weights = weights.to(output.device)  # moved once
        losses = loss(output, target, reduction="none") * weights[target.long()]  # of the target's shape
        return losses.mean() if reduction == "mean" else losses

    return weigh


def text_training(
    model: nn.Module, train: Texts, data: TextDataset, test_data: TextDataset, learning: TextLearning, seed: int = 0
) -> Training:
    """Build a text classifier's task and batches.

    Args:
        model: Maps word indices (N, T) to logits: (N, 1) for two classes, else (N, K).
        train: The training texts.
        data: ``train`` as indices of a vocabulary that was learnt from it alone.
        test_data: The test texts as indices of the same vocabulary.
        learning: How the model learns.
        seed: Seed of the order of the texts.
    """
    number = len(train.classes)
    loss, correct = loss_for(number)
    if learning.balanced:
        counts = torch.tensor(list(train.counts.values()))
        loss = weighted(loss, counts.sum() / (number * counts))
    task = learning.task(model, loss, {"accuracy": correct})
    batches = BatchLoader(data, learning.batch_size, shuffle=True, seed=seed, by_length=learning.by_length)
    return Training(task, batches, BatchLoader(test_data, 256, by_length=learning.by_length))


def scores(true: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Return accuracy, F1, Matthews correlation and average precision of probabilities (N, K) for true classes (N,).

    F1 and average precision are those of class 1 if there are two classes, else the mean over the classes.
    """
    from sklearn import metrics  # imported late: it takes a second

    predicted, binary = probabilities.argmax(1), probabilities.shape[1] == 2
    targets, ranked = (true, probabilities[:, 1]) if binary else (np.eye(probabilities.shape[1])[true], probabilities)
    average = "binary" if binary else "macro"
    return {
        "accuracy": float((predicted == true).mean()),
        "F1": float(metrics.f1_score(true, predicted, average=average, zero_division=0)),
        "MCC": float(metrics.matthews_corrcoef(true, predicted)),
        "average precision": float(metrics.average_precision_score(targets, ranked)),
    }


def tfidf(train: Texts, vocabulary: Vocabulary) -> Pipeline | GridSearchCV:
    """Fit logistic regression on the TF-IDF of all words of ``train``; ``vocabulary`` splits texts into words.

    Cross-validation chooses C if all classes have two texts.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline

    pipeline = make_pipeline(TfidfVectorizer(analyzer=vocabulary.tokenize), LogisticRegression(max_iter=1000, C=100.0))
    smallest = min(train.counts.values())  # number of texts of the rarest class
    grid = {"logisticregression__C": [1.0, 10.0, 100.0, 1000.0]}
    model = pipeline if smallest < 2 else GridSearchCV(pipeline, grid, cv=min(5, smallest))
    return model.fit(train.texts, train.labels.numpy())


def evaluate_texts(classifier: TextClassifier, train: Texts, test: Texts) -> Report:
    """Compare a classifier with TF-IDF and with the most frequent class on test texts; these two learn from ``train``.

    The scores without the test texts that are in the training part, too, word for word, are included.

    The table ``mistakes`` has the misclassified texts, the most confident mistakes first; the table ``words`` has the
    nearest words of the most frequent ones, by their vectors.
    """
    from sklearn import metrics  # imported late: it takes a second
    from sklearn.dummy import DummyClassifier

    true, classes = test.labels.numpy(), test.classes
    trivial = DummyClassifier(strategy="prior").fit(train.texts, train.labels.numpy())
    probabilities = {
        "this model": classifier.probabilities(test.texts).numpy(),
        "TF-IDF, logistic regression": tfidf(train, classifier.vocabulary).predict_proba(test.texts),
        "the most frequent class": trivial.predict_proba(test.texts),
    }
    measured = {name: scores(true, values) for name, values in probabilities.items()}
    results = {
        "texts": {"train": train.counts, "held out": test.counts},
        "words": len(classifier.vocabulary),
        "scores": measured,
        "parameters": sum(p.numel() for p in classifier.model.parameters()),
    }
    averaged = repr(classes[1]) if len(classes) == 2 else "all classes, averaged"
    lines = [
        f"{len(true):,} test texts; F1 and average precision of {averaged}",
        f"{'':28} accuracy      F1     MCC  average precision",
    ]
    for name, row in measured.items():
        accuracy, f1, mcc, precision = row.values()
        lines.append(f"{name:28} {accuracy:8.2%}  {f1:6.3f}  {mcc:6.3f}  {precision:17.3f}")
    known = in_training(train.texts, test.texts)
    new, score = ~known.numpy(), ""
    if known.any() and len(np.unique(true[new])) == len(classes):  # average precision needs all classes
        others = {name: scores(true[new], values[new]) for name, values in probabilities.items()}
        results["without duplicates"] = {"texts": int(new.sum()), "scores": others}
        score = f"accuracy {others['this model']['accuracy']:.2%}"
    if note := duplicates_note(known, "texts", score):
        lines.append(note)
    mistakes = find_mistakes(test, probabilities["this model"])
    for actual, predicted, probability, text in mistakes.head(SHOWN).itertuples(index=False):
        short = text if len(text) < 80 else text[:79] + "…"
        lines.append(f"{actual}, predicted {predicted} ({probability:.1%}): {short}")
    matrix = metrics.confusion_matrix(true, probabilities["this model"].argmax(1), labels=range(len(classes)))
    figures = {"confusion": plot_confusion(matrix, classes)}
    if len(classes) == 2:
        curves = {
            f"{name}, {measured[name]['average precision']:.4f}": metrics.precision_recall_curve(true, values[:, 1])[:2]
            for name, values in probabilities.items()
            if name != "the most frequent class"
        }
        figures["precision_recall"] = plot_precision_recall(curves, classes[1], float(true.mean()))
    tables, embedding = {"mistakes": mistakes}, None
    words = classifier.word_embeddings()
    if len(words) > 1:
        lines.append("nearest words, by the cosines of their vectors:")
        for word in typical_words(train, classifier.vocabulary):
            near = ", ".join(f"{name} {cosine:.2f}" for name, cosine in classifier.similar(word, NEAREST))
            lines.append(f"  {word}: {near}")
        tables["words"] = words.to_frame(NEAREST, range(min(len(words), LISTED)))
        embedding = Embedding(words.embeddings[:POINTS], words.inputs[:POINTS])
    return Report(results, "\n".join(lines), figures, tables, embedding)


def typical_words(train: Texts, vocabulary: Vocabulary, count: int = 3) -> list[str]:
    """Return, for each class, the ``count`` words that occur in a larger share of its texts than of all others.

    Shares are compared by their ratio, as if each word were in one more text of both; ``train`` are the texts, and the
    words are those of ``vocabulary``.
    """
    texts = torch.zeros(len(train.classes), len(vocabulary) + 1)  # with each word
    for text, label in zip(train.texts, train.labels.tolist(), strict=True):
        texts[label, sorted(set(vocabulary.encode(text)))] += 1
    sizes = torch.tensor(list(train.counts.values()))[:, None]
    share, other = (texts + 1) / (sizes + 1), (texts.sum(0) - texts + 1) / (sizes.sum() - sizes + 1)
    ratios = (share / other)[:, [n for word, n in vocabulary.numbers.items() if word != UNKNOWN]]
    known = [word for word in vocabulary.words if word != UNKNOWN]
    best = ratios.argsort(dim=1, descending=True, stable=True)[:, :count]
    return list(dict.fromkeys(known[place] for place in best.flatten().tolist()))


def find_mistakes(test: Texts, probabilities: np.ndarray) -> pandas.DataFrame:
    """Return the texts of ``test`` that probabilities (N, K) classify wrongly, the most confident mistakes first."""
    import pandas  # imported late: it takes a second

    true, predicted, confidence = test.labels.numpy(), probabilities.argmax(1), probabilities.max(1)
    wrong = np.flatnonzero(predicted != true)
    wrong = wrong[np.argsort(-confidence[wrong], kind="stable")]
    rows = [(test.classes[true[i]], test.classes[predicted[i]], confidence[i], test.texts[i]) for i in wrong]
    return pandas.DataFrame(rows, columns=["class", "answer", "probability", "text"])
