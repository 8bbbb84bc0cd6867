"""What all predictors have in common."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import torchdl
from torchdl import InputError
from torchdl.predict import (
    ImageClassifier,
    ImageEmbedder,
    ImageGenerator,
    ImageInput,
    ImageReconstructor,
    SequencePredictor,
    SignalEmbedder,
    TabularPredictor,
    TextClassifier,
)

GREY = ImageInput(1, 28, 28)
PICTURES = torch.zeros(2, 28, 28, dtype=torch.uint8)
SIGNAL = torchdl.SignalEncoder(channels=2, code_size=6, kernels=(4, 2), strides=(2, 2))
WINDOWS = SignalEmbedder.Settings(2, window=8, hop=4, mean=(0.0, 0.0), deviation=(1.0, 1.0))
WORDS = torchdl.Vocabulary.learn(["see you", "buy now"])
ROWS = torchdl.Columns({"a": (0.0, 1.0)}, {}, "y")
MAKE = {
    "image classifier": lambda: ImageClassifier(
        torchdl.LenetLike((1, 28, 28), 2), ImageClassifier.Settings(GREY, ("cat", "dog"))
    ),
    "image embedder": lambda: ImageEmbedder(
        torchdl.image_cpc(28, code_size=8), ImageEmbedder.Settings(ImageInput(3, 28, 28))
    ),
    "image generator": lambda: ImageGenerator.of(torchdl.simple_gan()),
    "image reconstructor": lambda: ImageReconstructor(
        torchdl.Autoencoder((1, 28, 28), code_size=8), ImageReconstructor.Settings(GREY)
    ),
    "sequence predictor": lambda: SequencePredictor(
        torchdl.SequenceModel("gru", in_features=2), SequencePredictor.Settings(2)
    ),
    "signal embedder": lambda: SignalEmbedder(SIGNAL, WINDOWS),
    "tabular predictor": lambda: TabularPredictor(torchdl.MLP(1, 1), ROWS),
    "text classifier": lambda: TextClassifier(
        torchdl.TextLSTM(len(WORDS)), TextClassifier.Settings(WORDS.settings, ("ham", "spam"))
    ),
}
INPUTS = {
    "image generator": 2,
    "sequence predictor": np.zeros((2, 5, 2)),
    "signal embedder": np.zeros((2, 20)),
    "tabular predictor": {"a": 1},
    "text classifier": ["see you", "buy"],
}


@pytest.mark.parametrize("kind", MAKE)
def test_answers_that_are_no_numbers_are_refused(kind):
    predictor = MAKE[kind]()
    for parameter in predictor.model.parameters():
        parameter.data.fill_(torch.nan)
    with pytest.raises(InputError, match="input 0, counted from 0, is not a finite number"):
        predictor.predict(INPUTS.get(kind, PICTURES))


@pytest.mark.parametrize(("argument", "value"), [("device", "gpu"), ("batch_size", 0), ("batch_size", 2.5)])
def test_wrong_arguments_are_not_blamed_on_the_files(tmp_path, argument, value):
    MAKE["tabular predictor"]().save(tmp_path)
    with pytest.raises(InputError, match=str(value)) as caught:
        torchdl.load_predictor(tmp_path, **{argument: value})
    assert "preprocessing.json" not in str(caught.value)
