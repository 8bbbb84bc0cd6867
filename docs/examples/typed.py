"""What type checkers know of a user's code; ``python docs/examples/typed.py`` runs it."""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from typing_extensions import assert_type

import torchdl
from torchdl.predict import ClassAnswers, ImageClassifier, ImageInput, load_as


def main(folder: str) -> None:
    """Train on a list of examples, save, and load what was saved, by its class."""
    examples = [(torch.rand(1, 28, 28), label) for label in (0, 1) * 8]
    batches = torchdl.BatchLoader(examples, 4, shuffle=True)
    model = torchdl.LenetLike((1, 28, 28), 2, width=2, hidden=4)
    task = torchdl.Supervised(model, torch.nn.functional.cross_entropy)
    history = torchdl.Trainer(epochs=1, device="cpu").fit(task, batches, batches)
    assert_type(history, torchdl.History)
    assert_type(history[-1], dict[str, float])
    settings = ImageClassifier.Settings(ImageInput(1, 28, 28), ("odd", "even"))
    ImageClassifier(model, settings).save(folder)
    assert_type(torchdl.load(folder), torch.nn.Module)
    assert_type(torchdl.load(folder, kind=torchdl.LenetLike), torchdl.LenetLike)
    assert_type(torchdl.load_predictor(folder), torchdl.predict.Predictor[Any])
    classifier = load_as(ImageClassifier, folder)
    assert_type(classifier, ImageClassifier)
    assert_type(classifier.predict(torch.zeros(3, 1, 28, 28)), ClassAnswers)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        main(place)
