"""Train a network that reads texts in a run, say what it is worth beside TF-IDF, and use it on new texts.

Shapes: N texts, T words of the longest one, K classes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from torchdl import artifacts, plots
from torchdl.data import BatchLoader, Texts, Vocabulary
from torchdl.data.text import TextDataset
from torchdl.errors import InputError, require
from torchdl.files import replacing, write_json
from torchdl.tasks import OptimizerName, ScheduleName
from torchdl.tasks.supervised import Loss, class_probabilities, logits_for, loss_for
from torchdl.training.command import Run, say
from torchdl.training.learning import Learning

VOCABULARY, CLASSES = "vocabulary.json", "classes.json"
SHOWN = 5  # wrong answers on the console


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


def fit_reader(
    run: Run,
    model: nn.Module,
    train: Texts,
    test: Texts,
    data: TextDataset,
    held_out: TextDataset,
    learning: TextLearning,
) -> dict[str, Any]:
    """Train a model of texts in ``run``, and leave in its folder what :func:`report` writes, and what it reads by.

    Args:
        run: The run.
        model: It maps words (N, T) to one logit (N, 1) of two classes, else to (N, K).
        train: The texts to learn from.
        test: The held-out texts.
        data: ``train``, numbered by a vocabulary that was learnt from it alone.
        held_out: ``test``, numbered by the same one.
        learning: How it learns.
    """
    number, vocabulary, longest = len(train.classes), data.vocabulary, data.longest
    loss, right = loss_for(number)
    if learning.balanced:
        counts = torch.tensor(list(train.counts.values()))
        loss = weighted(loss, counts.sum() / (number * counts))
    task = learning.task(model, loss, {"accuracy": right})
    by_length = learning.by_length
    batches = BatchLoader(data, learning.batch_size, shuffle=True, seed=run.trainer.seed, by_length=by_length)
    say(
        f"{len(vocabulary):,} words; of each class, to learn from: "
        + ", ".join(f"{name} {count:,}" for name, count in train.counts.items())
    )
    run.fit(task, model, batches, BatchLoader(held_out, 256, by_length=by_length))
    if not run.is_main:
        return {}
    vocabulary.save(run.folder / VOCABULARY)
    write_json(run.folder / CLASSES, {"classes": train.classes, "longest": longest})
    return report(run, Reader(model.cpu(), vocabulary, train.classes, longest), train, test)


class Reader:
    """A trained model with what it reads by.

    Args:
        model: The model.
        vocabulary: Its words.
        classes: The classes' names.
        longest: Words of a text that it looks at; all if None.
    """

    def __init__(
        self, model: nn.Module, vocabulary: Vocabulary, classes: Sequence[str], longest: int | None = None
    ) -> None:
        self.model, self.vocabulary, self.classes, self.longest = model.eval(), vocabulary, tuple(classes), longest

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Reader:
        """Load what a finished run of ``train_text.py`` has left; :class:`InputError` if that is not all there."""
        folder = Path(folder)
        vocabulary, model = Vocabulary.load(folder / VOCABULARY), artifacts.load(folder)
        try:
            found = json.loads((folder / CLASSES).read_text(encoding="utf-8"))
            classes, longest = [str(name) for name in found["classes"]], found["longest"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{folder / CLASSES} cannot be read: name a finished run of train_text.py") from error
        wanted = {"vocabulary_size": len(vocabulary), "out_features": logits_for(len(classes))}
        belongs = all(getattr(model, name, None) == value for name, value in wanted.items())
        require(belongs, f"the model, words and classes in {folder} do not belong together: name a run as it was left")
        return cls(model, vocabulary, classes, longest)

    @torch.no_grad()
    def probabilities(self, texts: Sequence[str]) -> Tensor:
        """Give the classes' probabilities (N, K), float64, of texts."""
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


def report(run: Run, reader: Reader, train: Texts, test: Texts) -> dict[str, Any]:
    """Measure on held-out texts, beside TF-IDF with logistic regression and the most frequent class.

    It leaves ``results.json``, ``mistakes.csv`` with the surest ones first, ``plots/confusion.png`` and
    ``plots/precision_recall.png``, which TensorBoard shows, too.
    """
    from sklearn import metrics  # imported late: it takes a second
    from sklearn.dummy import DummyClassifier

    true, classes, theirs = test.labels.numpy(), test.classes, "TF-IDF, logistic regression"
    shares = DummyClassifier(strategy="prior").fit(train.texts, train.labels.numpy())
    found = {
        "this model": reader.probabilities(test.texts).numpy(),
        theirs: tfidf(train, reader.vocabulary).predict_proba(test.texts),
        "the most frequent class": shares.predict_proba(test.texts),
    }
    measured = {name: scores(true, values) for name, values in found.items()}
    about = f"F1 and average precision of {classes[1]!r}" if len(classes) == 2 else "F1 and average precision: mean"
    say(f"{len(true):,} held-out texts; {about}\n{'':28} accuracy      F1     MCC  average precision")
    for name, row in measured.items():
        accurate, f1, mcc, precision = row.values()
        say(f"{name:28} {accurate:8.2%}  {f1:6.3f}  {mcc:6.3f}  {precision:17.3f}")
    results = {
        "texts": {"train": train.counts, "held out": test.counts},
        "words": len(reader.vocabulary),
        "scores": measured,
        "parameters": sum(p.numel() for p in reader.model.parameters()),
    }
    write_json(run.folder / "results.json", results)
    answers = found["this model"].argmax(1)
    write_mistakes(run.folder / "mistakes.csv", test, found["this model"])
    folder = run.folder / "plots"
    paths = [folder / "confusion.png"]
    plots.plot_confusion(metrics.confusion_matrix(true, answers, labels=range(len(classes))), classes, paths[0])
    if len(classes) == 2:
        curves = {
            f"{name}, {measured[name]['average precision']:.4f}": metrics.precision_recall_curve(true, values[:, 1])[:2]
            for name, values in found.items()
            if name != "the most frequent class"
        }
        paths.append(folder / "precision_recall.png")
        plots.plot_precision_recall(curves, classes[1], float(true.mean()), paths[-1])
    with closing(run.logger()) as logger:
        logger.show(*paths)
    say(f"pictures and figures: {run.folder}")
    return results


def write_mistakes(path: Path, test: Texts, found: np.ndarray) -> None:
    """Write the texts whose class was not found as CSV, the surest mistakes first, and print some."""
    import pandas  # imported late: it takes a second

    true, answers = test.labels.numpy(), found.argmax(1)
    wrong = np.flatnonzero(answers != true)
    wrong = wrong[np.argsort(-found[wrong].max(1), kind="stable")]
    rows = [(test.classes[true[i]], test.classes[answers[i]], found[i].max(), test.texts[i]) for i in wrong]
    with replacing(path) as temporary:
        pandas.DataFrame(rows, columns=["class", "answer", "probability", "text"]).to_csv(temporary, index=False)
    for known, answer, share, text in rows[:SHOWN]:
        say(f"{known}, not {answer} ({share:.1%}): {text if len(text) < 80 else text[:79] + '…'}")
