from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from torchdl import InputError, TableFormat, TextCNN, TextLSTM, Vocabulary
from torchdl.files import PREPROCESSING
from torchdl.predict import TextClassifier, load_predictor
from torchdl.predict.text_classifier import read_file

TEXTS = ["See you soon!", "buy now, buy cheap", "you", "cheap cheap cheap now now soon", "???"]
VOCABULARY = Vocabulary.learn(["see you soon", "buy now", "cheap"], unknown=True)


def classifier(kind=TextLSTM, classes=("ham", "spam"), **settings) -> TextClassifier:
    torch.manual_seed(0)
    model = kind(len(VOCABULARY), len(classes) if len(classes) > 2 else 1, 4)
    return TextClassifier(model, TextClassifier.Settings(VOCABULARY.settings, classes, **settings), "cpu", batch_size=2)


@pytest.mark.parametrize("kind", [TextLSTM, TextCNN])
@pytest.mark.parametrize("classes", [("ham", "spam"), ("art", "news", "sport")])
def test_a_copied_folder_answers_the_same_to_the_bit(tmp_path, kind, classes):
    own = classifier(kind, classes, longest=3, text="mail", format=TableFormat(separator=";", na=("?",)))
    own.save(tmp_path / "run")
    shutil.move(tmp_path / "run", tmp_path / "copy")
    loaded = load_predictor(tmp_path / "copy", "cpu", batch_size=2)
    assert loaded.settings == own.settings
    expected = own.predict(TEXTS)
    assert torch.equal(loaded.predict(TEXTS).probabilities, expected.probabilities)
    assert torch.equal(loaded.embed(TEXTS), own.embed(TEXTS))
    assert expected.probabilities.shape == (5, len(classes))


def test_answers_are_those_of_the_model_in_the_order_of_the_texts():
    own = classifier()
    answers = own.predict(TEXTS)
    assert list(answers.inputs) == TEXTS
    for text, row, features in zip(TEXTS, answers.probabilities, own.embed(TEXTS), strict=True):
        words = torch.tensor([VOCABULARY.encode(text) or [0]])
        with torch.no_grad():
            logit = own.model(words).double()
            assert torch.cat([-logit, logit], 1).sigmoid()[0].allclose(row, atol=1e-6)
            assert own.model.head(features).double().allclose(logit[0], atol=1e-6)
    assert own.predict(TEXTS[0]).probabilities.allclose(answers.probabilities[:1], atol=1e-6)
    assert own.predict(np.array(TEXTS)).labels == own.predict(pd.Series(TEXTS)).labels == answers.labels
    assert own.predict(np.array("buy now")).inputs == ["buy now"]


@pytest.mark.parametrize("kind", [TextLSTM, TextCNN])
def test_similar_words_have_the_nearest_vectors(kind):
    own, known = classifier(kind), VOCABULARY.words[1:]  # but for unknown words
    vectors = torch.stack([own.model.embedding.weight[VOCABULARY.numbers[word]] for word in known]).detach()
    assert own.word_embeddings().inputs == known
    assert torch.equal(own.word_embeddings().embeddings, vectors)
    cosines = torch.cosine_similarity(vectors[known.index("buy")], vectors)
    expected = sorted((i for i, word in enumerate(known) if word != "buy"), key=lambda i: -cosines[i])[:2]
    assert own.similar("BUY!", 2) == [(known[i], pytest.approx(float(cosines[i]), abs=1e-5)) for i in expected]
    for word, sentence in (
        ("chaep", "not among the 6 words .*do you mean 'cheap'"),
        ("see you", "not among"),
        ("", "not"),
    ):
        with pytest.raises(InputError, match=sentence):
            own.similar(word)
    own.model = torch.nn.Linear(3, 1)
    with pytest.raises(InputError, match="a Linear has no vectors of words"):
        own.similar("buy")


def test_words_beyond_the_longest_are_not_read():
    own = classifier(longest=2)
    both = own.probabilities(["see you", "see you cheap"])
    assert torch.equal(both[0], both[1])


def test_unknown_words_are_named_once_each():
    answers = classifier().predict(["see me, me and you", "buy", "!"])
    assert answers.unknown == [("me", "and"), (), ()]
    assert answers.wordless == [False, False, True]
    table = answers.to_frame()
    assert list(table.columns[:4]) == ["input", "class", "confidence", "unknown words"]
    assert table["unknown words"].tolist() == ["me, and", "", "(no words)"]


def test_texts_come_from_files_too(tmp_path):
    lines, table, tabs = (tmp_path / f"mails.{kind}" for kind in ("txt", "csv", "tsv"))
    lines.write_text("see you\n\n buy now\r\n")
    table.write_text('kind,mail\n?,"buy\r\nnow"\n?, \n?,NA\n', newline="")
    tabs.write_text("mail\tkind\nsee, you\t?\n")
    own = classifier(text="mail")
    assert own.predict(str(lines)).inputs == ["see you", "buy now"]
    answers = own.predict([lines, "soon", str(table), tabs])
    assert answers.inputs == ["see you", "buy now", "soon", "buy\nnow", "NA", "see, you"]
    assert "2 texts from" in answers.notes[0]
    assert own.predict(table, text="kind").inputs == ["?", "?", "?"]
    semicolons = tmp_path / "other.csv"
    semicolons.write_text("mail;kind\nsee, you;?\n")
    assert own.predict(semicolons, format=TableFormat(separator=";")).inputs == ["see, you"]
    (tmp_path / "buy").write_text("now")
    assert own.predict(["buy"]).inputs == ["buy"]  # a word is a text, even if a file is called so
    assert own.predict(Path(tmp_path / "buy")).inputs == ["now"]


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ("", "text 1, counted from 1, is empty"),
        (["see you", " \n"], "text 2, counted from 1, is empty"),
        ([], "no texts"),
        ([3], "not a text"),
        ("none.txt", "no file none.txt"),
        (Path("none"), "no file none"),
        (3, "not an int$"),
        (None, "not a NoneType$"),
        ({"text": TEXTS}, "not a dict: choose its column"),
        (pd.DataFrame({"text": TEXTS}), "not a DataFrame: choose its column"),
    ],
)
def test_what_is_no_text_is_refused(inputs, sentence):
    with pytest.raises(InputError, match=sentence):
        classifier().predict(inputs)


def test_files_without_texts_are_refused(tmp_path):
    for name, content, sentence in (
        ("a.txt", " \n\n", "has no texts"),
        ("b.csv", "mail,kind\n ,a\n", "no texts in its column 'mail'"),
        ("c.csv", "sms,kind\nhello,a\n", "no column 'mail'.*sms, kind"),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(InputError, match=sentence):
            read_file(tmp_path / name, "mail")


def test_a_model_without_features_embeds_nothing():
    own = classifier()
    own.model = torch.nn.Identity()
    with pytest.raises(InputError, match="no features"):
        own.embed("see you")


def change(**settings):
    return lambda saved: saved | {"settings": saved["settings"] | settings}


@pytest.mark.parametrize(
    "changed",
    [
        change(classes=["ham"]),
        change(classes=["ham", "ham"]),
        change(classes=["a", "b", "c"]),
        change(longest=0),
        change(longest="many"),
        change(vocabulary={"words": ["a"], "lower": True, "filters": "", "same_digits": False}),
        change(vocabulary={"words": ["a", "a"], "lower": True, "filters": "", "same_digits": False}),
        change(vocabulary=["a"]),
        change(format={"separator": "abc"}),
    ],
)
def test_settings_of_another_model_or_a_strangers_are_refused(tmp_path, changed):
    classifier().save(tmp_path)
    path = tmp_path / PREPROCESSING
    path.write_text(json.dumps(changed(json.loads(path.read_text()))))
    with pytest.raises(InputError, match=PREPROCESSING):
        load_predictor(tmp_path)


def test_the_name_of_a_file_that_is_no_text_is_not_classified(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + bytes(range(256)))
    own = classifier()
    with pytest.raises(InputError, match=r"photo\.jpg"):
        own.predict("photo.jpg")
    assert len(own.predict("other.jpg")) == 1  # there is no such file: it is a text
