"""Train a classifier of texts, compare it with TF-IDF, and use it on new texts.

Shapes: N texts, T words of the longest one, K classes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from torchdl import artifacts
from torchdl.data import BatchLoader, Texts, Vocabulary
from torchdl.data.text import TextDataset
from torchdl.errors import InputError, require
from torchdl.files import PathLike, write_json
from torchdl.plots import plot_confusion, plot_precision_recall
from torchdl.recipes.learning import Learning, Training
from torchdl.recipes.report import Report
from torchdl.tasks import OptimizerName, ScheduleName
from torchdl.tasks.supervised import Loss, class_probabilities, logits_for, loss_for

if TYPE_CHECKING:
    import pandas

VOCABULARY, CLASSES = "vocabulary.json", "classes.json"
SHOWN = 5  # mistakes in the summary


@dataclass(frozen=True)
class TextLearning(Learning):
    """How a network learns texts."""

    lr: float = 6e-3
    schedule: ScheduleName = "cosine"
    optimizer: OptimizerName = "adamw"
    weight_decay: float = 0.01
    balanced: bool = False
    """Weigh each class by the inverse of how many texts it has, so that a rare one counts as much."""
    by_length: bool = True
    """Put texts of about the same length into a batch, so that little is padded."""


def weighted(loss: Loss, weights: Tensor) -> Loss:
    """Weigh the losses of examples by their classes' weights (K,)."""

    def weigh(output: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
        nonlocal weights
        weights = weights.to(output.device)  # once
        losses = loss(output, target, reduction="none")  # of the target's shape
        losses = losses * weights[target.long()]
        return losses.mean() if reduction == "mean" else losses

    return weigh


def text_training(
    model: nn.Module,
    train: Texts,
    data: TextDataset,
    test_data: TextDataset,
    learning: TextLearning,
    seed: int = 0,
) -> Training:
    """Build the task and the batches of a text classifier's training.

    Args:
        model: It maps words (N, T) to one logit (N, 1) for two classes, else to (N, K).
        train: The training texts.
        data: ``train`` as numbers of a vocabulary that was learnt from it alone.
        test_data: The test texts as numbers of the same vocabulary.
        learning: How it learns.
        seed: What the order of the texts derives from.
    """
    number = len(train.classes)
    loss, correct = loss_for(number)
    if learning.balanced:
        counts = torch.tensor(list(train.counts.values()))
        loss = weighted(loss, counts.sum() / (number * counts))
    task = learning.task(model, loss, {"accuracy": correct})
    by_length = learning.by_length
    batches = BatchLoader(data, learning.batch_size, shuffle=True, seed=seed, by_length=by_length)
    return Training(task, batches, BatchLoader(test_data, 256, by_length=by_length))


class TextClassifier:
    """A trained model with its vocabulary and classes.

    Args:
        model: The model; it is left in evaluation mode.
        vocabulary: Its words.
        classes: The classes' names.
        longest: Number of words of a text that it looks at; all if None.
    """

    def __init__(
        self, model: nn.Module, vocabulary: Vocabulary, classes: Sequence[str], longest: int | None = None
    ) -> None:
        self.model, self.vocabulary, self.classes, self.longest = model.eval(), vocabulary, tuple(classes), longest

    @classmethod
    def load(cls, folder: PathLike) -> TextClassifier:
        """Load a finished run's classifier; :class:`InputError` where a part is missing."""
        folder = Path(folder)
        vocabulary, model = Vocabulary.load(folder / VOCABULARY), artifacts.load(folder)
        try:
            found = json.loads((folder / CLASSES).read_text(encoding="utf-8"))
            classes, longest = [str(name) for name in found["classes"]], found["longest"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{folder / CLASSES} cannot be read: name a finished run of a text classifier") from error
        wanted = {"vocabulary_size": len(vocabulary), "out_features": logits_for(len(classes))}
        belongs = all(getattr(model, name, None) == value for name, value in wanted.items())
        require(belongs, f"the model, words and classes in {folder} do not belong together: name a run as it was left")
        return cls(model, vocabulary, classes, longest)

    def save(self, folder: PathLike) -> None:
        """Save the vocabulary and the classes beside the model that a run has saved in ``folder``."""
        self.vocabulary.save(Path(folder) / VOCABULARY)
        write_json(Path(folder) / CLASSES, {"classes": self.classes, "longest": self.longest})

    @torch.no_grad()
    def probabilities(self, texts: Sequence[str]) -> Tensor:
        """Return the classes' probabilities (N, K), float64, of texts."""
        data = TextDataset(texts, torch.zeros(len(texts)), self.vocabulary, self.longest)
        return class_probabilities(torch.cat([self.model(words) for words, _ in BatchLoader(data, 256)]).double())

    def unknown(self, text: str) -> list[str]:
        """List a text's words that are not in the vocabulary, each once."""
        words = self.vocabulary.tokenize(text)
        return list(dict.fromkeys(word for word in words if word not in self.vocabulary.numbers))


def scores(true: np.ndarray, found: np.ndarray) -> dict[str, float]:
    """Measure probabilities (N, K) against classes (N,): accuracy, F1, Matthews correlation, average precision.

    F1 and average precision are of class 1 where there are two, else the mean of all classes'.
    """
    from sklearn import metrics  # imported late: it takes a second

    answers, number = found.argmax(1), found.shape[1]
    known, surest = (true, found[:, 1]) if number == 2 else (np.eye(number)[true], found)
    return {
        "accuracy": float((answers == true).mean()),
        "F1": float(metrics.f1_score(true, answers, average="binary" if number == 2 else "macro", zero_division=0)),
        "MCC": float(metrics.matthews_corrcoef(true, answers)),
        "average precision": float(metrics.average_precision_score(known, surest)),
    }


def tfidf(train: Texts, vocabulary: Vocabulary) -> Any:
    """Fit logistic regression to the texts' TF-IDF, of all their words; C is chosen by cross-validation."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline

    both = make_pipeline(TfidfVectorizer(analyzer=vocabulary.tokenize), LogisticRegression(max_iter=1000, C=100.0))
    least = min(train.counts.values())
    choices = {"logisticregression__C": [1.0, 10.0, 100.0, 1000.0]}
    model = both if least < 2 else GridSearchCV(both, choices, cv=min(5, least))
    return model.fit(train.texts, train.labels.numpy())


def evaluate_texts(classifier: TextClassifier, train: Texts, test: Texts) -> Report:
    """Compare a classifier with TF-IDF and logistic regression, and with the most frequent class, on test texts.

    The table ``mistakes`` has the texts that it classifies wrongly, the most confident first.
    """
    from sklearn import metrics  # imported late: it takes a second
    from sklearn.dummy import DummyClassifier

    true, classes, theirs = test.labels.numpy(), test.classes, "TF-IDF, logistic regression"
    shares = DummyClassifier(strategy="prior").fit(train.texts, train.labels.numpy())
    found = {
        "this model": classifier.probabilities(test.texts).numpy(),
        theirs: tfidf(train, classifier.vocabulary).predict_proba(test.texts),
        "the most frequent class": shares.predict_proba(test.texts),
    }
    measured = {name: scores(true, values) for name, values in found.items()}
    results = {
        "texts": {"train": train.counts, "held out": test.counts},
        "words": len(classifier.vocabulary),
        "scores": measured,
        "parameters": sum(p.numel() for p in classifier.model.parameters()),
    }
    about = f"F1 and average precision of {classes[1]!r}" if len(classes) == 2 else "F1 and average precision: mean"
    lines = [f"{len(true):,} test texts; {about}", f"{'':28} accuracy      F1     MCC  average precision"]
    for name, row in measured.items():
        accurate, f1, mcc, precision = row.values()
        lines.append(f"{name:28} {accurate:8.2%}  {f1:6.3f}  {mcc:6.3f}  {precision:17.3f}")
    mistakes = find_mistakes(test, found["this model"])
    for row in mistakes.head(SHOWN).itertuples(index=False):
        known, predicted, share, text = row
        lines.append(f"{known}, predicted {predicted} ({share:.1%}): {text if len(text) < 80 else text[:79] + '…'}")
    matrix = metrics.confusion_matrix(true, found["this model"].argmax(1), labels=range(len(classes)))
    figures = {"confusion": plot_confusion(matrix, classes)}
    if len(classes) == 2:
        curves = {
            f"{name}, {measured[name]['average precision']:.4f}": metrics.precision_recall_curve(true, values[:, 1])[:2]
            for name, values in found.items()
            if name != "the most frequent class"
        }
        figures["precision_recall"] = plot_precision_recall(curves, classes[1], float(true.mean()))
    return Report(results, "\n".join(lines), figures, {"mistakes": mistakes})


def find_mistakes(test: Texts, found: np.ndarray) -> pandas.DataFrame:
    """Return the texts that are classified wrongly by probabilities (N, K), the most confident mistakes first."""
    import pandas  # imported late: it takes a second

    true, predicted = test.labels.numpy(), found.argmax(1)
    wrong = np.flatnonzero(predicted != true)
    wrong = wrong[np.argsort(-found[wrong].max(1), kind="stable")]
    rows = [(test.classes[true[i]], test.classes[predicted[i]], found[i].max(), test.texts[i]) for i in wrong]
    return pandas.DataFrame(rows, columns=["class", "answer", "probability", "text"])
