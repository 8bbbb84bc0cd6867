from __future__ import annotations

import json

import pytest
import torch
from helpers import fill_, gaussian

import torchdl
from torchdl import InputError
from torchdl.files import PREPROCESSING
from torchdl.predict import EmbeddingAnswers, ImageEmbedder, ImageInput
from torchdl.recipes.cpc_probe import encode


def embedder(**settings) -> ImageEmbedder:
    torch.manual_seed(0)
    model = fill_(torchdl.image_cpc(28, code_size=6, context_size=8, predict_terms=2))
    return ImageEmbedder(model, ImageEmbedder.Settings(ImageInput(3, 28, 28, **settings)), "cpu")


def test_raw_digits_are_embedded_as_those_that_a_probe_classifies(tmp_path):
    own = embedder(low=-1.0, prepare="digit")
    own.save(tmp_path)
    digits = torchdl.load_digits("test", 28, color=False, name="mnist_5k").subset(torch.arange(40))
    raw = torchdl.load_images("mnist_5k", "test").images[:40]
    expected = encode(own.model.encoder, digits, device="cpu").codes[0]
    loaded = torchdl.load_predictor(tmp_path, "cpu")
    assert torch.equal(loaded.embed(raw), expected)
    assert torch.equal(loaded.embed(digits), expected)
    assert loaded.predict(raw).inputs == [str(number) for number in range(40)]
    assert loaded.settings == own.settings


def test_an_encoder_alone_embeds_as_in_its_model():
    own = embedder()
    alone = ImageEmbedder(own.model.encoder, own.settings, "cpu", batch_size=2)
    pictures = torch.randint(256, (5, 3, 40, 30), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    torch.testing.assert_close(alone.embed(pictures), own.embed(pictures))


@pytest.mark.parametrize(
    "model",
    [torchdl.ImageEncoder(20), torchdl.ImageEncoder(28, 1), torchdl.SignalEncoder(3), torchdl.Autoencoder((3, 28, 28))],
    ids=["size", "channels", "signals", "autoencoder"],
)
def test_another_model_is_refused(model, tmp_path):
    settings = ImageEmbedder.Settings(ImageInput(3, 28, 28))
    with pytest.raises(InputError, match="another shape"):
        ImageEmbedder(model, settings)
    embedder().save(tmp_path)
    torchdl.save(model, tmp_path)
    with pytest.raises(InputError, match=PREPROCESSING):
        torchdl.load_predictor(tmp_path)


def test_a_strangers_settings_are_refused(tmp_path):
    embedder().save(tmp_path)
    saved = json.loads((tmp_path / PREPROCESSING).read_text())
    saved["settings"]["images"]["prepare"] = "run"
    (tmp_path / PREPROCESSING).write_text(json.dumps(saved))
    with pytest.raises(InputError, match="run"):
        torchdl.load_predictor(tmp_path)


# answers


def test_the_nearest_are_the_others_with_the_highest_cosine(monkeypatch):
    monkeypatch.setattr("torchdl.predict.embeddings.ROWS", 3)  # in parts
    embeddings, names = gaussian(8, 4), list("abcdefgh")
    found = EmbeddingAnswers(embeddings, names).nearest(3)
    for number, row in enumerate(found):
        cosines = torch.cosine_similarity(embeddings[number], embeddings).tolist()
        expected = sorted((i for i in range(8) if i != number), key=lambda i: -cosines[i])[:3]
        assert row == [(names[i], pytest.approx(cosines[i], abs=1e-5)) for i in expected]


def test_embeddings_become_a_table_and_one_alone_has_no_neighbours():
    answers = EmbeddingAnswers(gaussian(3, 4), ("a", "b", "c"))
    table = answers.to_frame(top=5)
    assert list(table.columns) == ["input", "nearest", "similarity", "nearest 2", "similarity 2"]
    assert table["nearest"].tolist() == [row[0][0] for row in answers.nearest()]
    with pytest.raises(InputError, match="two inputs"):
        EmbeddingAnswers(gaussian(1, 4), ("a",)).nearest()
    with pytest.raises(InputError, match="1 or more, not 0"):
        answers.nearest(0)
