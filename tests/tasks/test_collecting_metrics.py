"""Metrics that see all validation data before they compute a number, as those of torchmetrics do."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from helpers import fill_, gaussian
from sklearn.metrics import f1_score
from torch import nn

from torchdl import ArrayDataset, BatchLoader, InputError, Supervised, Trainer
from torchdl.tasks import accuracy

torchmetrics = pytest.importorskip("torchmetrics")
pytestmark = pytest.mark.usefixtures("quick")

X, Y = gaussian(50, 4), torch.arange(50) % 3


def classifier(average: str | None = "macro") -> Supervised:
    f1 = torchmetrics.F1Score(task="multiclass", num_classes=3, average=average)
    return Supervised(fill_(nn.Linear(4, 3)), F.cross_entropy, {"f1": f1, "accuracy": accuracy})


def test_f1_is_that_of_all_validation_data(tmp_path):
    task, loader = classifier(), BatchLoader(ArrayDataset(X, Y), 8)
    trainer = Trainer(epochs=2, device="cpu", monitor="val/f1", mode="max")
    history = trainer.fit(task, loader, loader, tmp_path)
    assert history[-1]["val/f1"] == pytest.approx(f1_score(Y, task.model(X).argmax(1), average="macro"))
    assert not any("f1" in name for name in task.state_dict())  # it has no state between evaluations


def test_in_training_it_is_the_mean_of_the_batches():
    task = classifier()
    expected = [
        f1_score(Y[rows], task.model(X[rows]).argmax(1), average="macro") for rows in (slice(25), slice(25, 50))
    ]
    task.configure_optimizers = lambda: {"model": torch.optim.SGD(task.parameters(), lr=0.0)}
    (row,) = Trainer(epochs=1, device="cpu").fit(task, BatchLoader(ArrayDataset(X, Y), 25))
    assert row["train/f1"] == pytest.approx(sum(expected) / 2)


def test_an_evaluation_that_was_broken_off_leaves_nothing():
    task = classifier()
    task.eval().evaluate((X[:5], (Y[:5] + 1) % 3))
    task.eval().evaluate((X, Y))
    assert task.summarize()["f1"] == pytest.approx(f1_score(Y, task.model(X).argmax(1), average="macro"))


def test_several_numbers_are_refused():
    with pytest.raises(InputError, match="'f1' computes 3 numbers: let it average"):
        list(classifier(average=None).losses((X, Y)))


def test_a_collection_is_told_how_to_be_given_and_then_works():
    scores = [torchmetrics.Accuracy(task="multiclass", num_classes=3), classifier().collecting[0]["f1"]]
    collection = torchmetrics.MetricCollection(scores)
    loader = BatchLoader(ArrayDataset(X, Y), 8)
    for metrics in (collection, {"all": collection}):
        with pytest.raises(InputError, match=r"dict\(collection.items\(\)\)"):
            next(Supervised(nn.Linear(4, 3), F.cross_entropy, metrics).losses((X, Y)))
    task = Supervised(fill_(nn.Linear(4, 3)), F.cross_entropy, dict(collection.items()))
    (row,) = Trainer(epochs=1, device="cpu").fit(task, loader, loader)
    assert row["val/MulticlassF1Score"] == pytest.approx(f1_score(Y, task.model(X).argmax(1), average="macro"))
