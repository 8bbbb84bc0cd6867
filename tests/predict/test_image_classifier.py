from __future__ import annotations

import json
import shutil

import pytest
import torch

import torchdl
from torchdl import InputError, LenetLike
from torchdl.files import PREPROCESSING, WEIGHTS
from torchdl.predict import ImageClassifier, ImageInput, load_predictor

CLASSES = ("ant", "bee", "cow")
PICTURES = torch.randint(256, (7, 1, 12, 12), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def classifier() -> ImageClassifier:
    torch.manual_seed(0)
    settings = ImageClassifier.Settings(ImageInput(1, 12, 12, prepare="squash"), CLASSES)
    return ImageClassifier(LenetLike((1, 12, 12), 3, width=4, depth=1, hidden=8), settings, "cpu")


def test_a_copied_folder_answers_the_same_to_the_bit(tmp_path):
    own = classifier()
    own.save(tmp_path / "run")
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    shutil.rmtree(tmp_path / "run")
    loaded = load_predictor(tmp_path / "copy", "cpu")
    expected = own.predict(PICTURES)
    assert torch.equal(loaded.predict(PICTURES).probabilities, expected.probabilities)
    assert torch.equal(loaded.embed(PICTURES), own.embed(PICTURES))
    assert loaded.settings == own.settings
    assert expected.probabilities.sum(1).allclose(torch.ones(7, dtype=torch.float64))
    assert set(expected.labels) <= set(CLASSES)


def test_the_model_is_as_before_afterwards():
    own = classifier()
    own.model.train()
    own.predict(PICTURES)
    assert own.model.training


def test_answers_become_a_table():
    answers = classifier().predict(PICTURES)
    table = answers.to_frame(top=2)
    probabilities = [f"probability of {name}" for name in CLASSES]
    assert list(table.columns) == ["input", "class", "confidence", "class 2", "confidence 2", *probabilities]
    assert table["class"].tolist() == answers.labels
    assert (table["confidence"] >= table["confidence 2"]).all()
    assert answers.top(9)[0] == sorted(answers.top(9)[0], key=lambda pair: -pair[1])
    assert len(answers.top(9)[0]) == 3
    with pytest.raises(InputError, match="1 or more"):
        answers.top(0)


def break_json(saved):
    return "{"


def other_kind(saved):
    return saved | {"kind": "oracle"}


def more_classes(saved):
    return saved | {"settings": saved["settings"] | {"classes": ["a", "b", "c", "d"]}}


def same_classes(saved):
    return saved | {"settings": saved["settings"] | {"classes": ["a", "a", "b"]}}


def other_shape(saved):
    return saved | {"settings": saved["settings"] | {"images": saved["settings"]["images"] | {"width": 13}}}


def no_images(saved):
    return saved | {"settings": {"classes": ["a", "b", "c"]}}


def a_list(saved):
    return [saved]


@pytest.mark.parametrize("change", [break_json, other_kind, more_classes, same_classes, other_shape, no_images, a_list])
def test_settings_of_another_model_or_a_strangers_are_refused(tmp_path, change):
    classifier().save(tmp_path)
    changed = change(json.loads((tmp_path / PREPROCESSING).read_text()))
    (tmp_path / PREPROCESSING).write_text(changed if isinstance(changed, str) else json.dumps(changed))
    with pytest.raises(InputError, match=PREPROCESSING) as caught:
        load_predictor(tmp_path)
    assert "\n" not in str(caught.value)


def test_what_is_missing_is_said_with_what_can_be_done(tmp_path):
    with pytest.raises(InputError, match="no folder"):
        load_predictor(tmp_path / "missing")
    with pytest.raises(InputError, match="not the folder of a run"):
        load_predictor(tmp_path)
    classifier().save(tmp_path)
    (tmp_path / WEIGHTS).rename(tmp_path / "away")
    with pytest.raises(InputError, match="no model yet"):
        load_predictor(tmp_path)
    (tmp_path / "away").rename(tmp_path / WEIGHTS)
    (tmp_path / PREPROCESSING).unlink()
    with pytest.raises(InputError, match="resume the finished run"):
        load_predictor(tmp_path)


def test_a_model_without_hidden_units_has_no_features():
    settings = ImageClassifier.Settings(ImageInput(1, 12, 12), CLASSES)
    with pytest.raises(InputError, match="hidden units"):
        ImageClassifier(torchdl.RowReader((1, 12, 12), 3), settings, "cpu").embed(PICTURES)
