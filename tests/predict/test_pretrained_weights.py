"""What comes with torchdl is whole, small, described and as good as its card says."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch

import torchdl
from torchdl import InputError
from torchdl.predict import model_card, pretrained_models
from torchdl.predict.pretrained_weights import CARD, FOLDER, INDEX, pretrained_folder, read_index

ROOT = Path(torchdl.__file__).resolve().parents[1]
MOST = 15_000_000  # bytes of all models together, in the repository and in the wheel


def test_all_models_together_are_small_and_the_index_names_every_file():
    files = {str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*") if path.is_file()}
    named = {f"{name}/{file}" for name, entry in read_index().items() for file in entry["files"]}
    assert files == named | {INDEX}
    assert sum((FOLDER / file).stat().st_size for file in files) <= MOST
    assert pretrained_models().keys() == read_index().keys()


@pytest.mark.parametrize("name", read_index())
def test_a_model_is_loaded_and_its_card_tells_what_one_needs_to_know(name):
    predictor = torchdl.pretrained(name, "cpu")
    entry = read_index()[name]
    assert predictor.kind == entry["kind"]
    assert all(parameter.dtype == torch.float32 for parameter in predictor.model.parameters())
    card = (FOLDER / name / CARD).read_text(encoding="utf-8")
    assert f'torchdl.pretrained("{name}")' in card
    for part in ("licence of the data", "python scripts/train_", "--seed ", "commit | ", "## What it is not for"):
        assert part in card
    for figure, value in entry["figures"].items():
        (found,) = re.findall(rf"^\| {re.escape(figure)} \| (\S+) \|", card, re.MULTILINE)
        assert float(found) == pytest.approx(value, rel=1e-5)


def test_digits_are_classified():  # a sanity check: most of these images may be of MNIST's training part
    test = torchdl.load_images("mnist_5k", "test")
    found = torchdl.pretrained("lenet-mnist", "cpu").predict(test).probabilities.argmax(1)
    assert (found == test.labels).double().mean() > 0.985


def test_an_unknown_name_is_answered_with_the_names_there_are():
    with pytest.raises(InputError, match="lenet-fashion, lenet-mnist"):
        torchdl.pretrained("resnet50")


def test_damaged_and_missing_files_are_named(tmp_path):
    shutil.copytree(FOLDER / "lenet-mnist", tmp_path / "lenet-mnist")
    (tmp_path / INDEX).write_text(json.dumps({"lenet-mnist": read_index()["lenet-mnist"]}))
    assert pretrained_folder("lenet-mnist", tmp_path) == tmp_path / "lenet-mnist"
    settings = tmp_path / "lenet-mnist" / "preprocessing.json"
    settings.write_text(settings.read_text().replace('"low": 0.0', '"low": -1.0'))
    with pytest.raises(InputError, match=r"preprocessing\.json is damaged"):
        pretrained_folder("lenet-mnist", tmp_path)
    settings.unlink()
    with pytest.raises(InputError, match=r"preprocessing\.json is missing"):
        pretrained_folder("lenet-mnist", tmp_path)


def test_wheels_and_source_distributions_hold_every_file(monkeypatch):
    monkeypatch.chdir(ROOT)
    distribution = pytest.importorskip("setuptools.dist").Distribution()
    distribution.parse_config_files()
    command = distribution.get_command_obj("build_py")  # whose data files are in source distributions, too
    command.ensure_finalized()
    packaged = {os.path.join(place, file) for _, place, _, files in command.data_files for file in files}
    needed = {os.path.relpath(path, ROOT) for path in FOLDER.rglob("*") if path.is_file()}
    assert needed <= packaged


def test_the_card_and_what_it_is_are_shown():
    assert model_card("lenet-mnist").startswith("# lenet-mnist\n")
    with pytest.raises(InputError, match="choose among"):
        model_card("lenet")
    digits = torchdl.pretrained("lenet-mnist", "cpu")
    assert repr(digits) == "<ImageClassifier of a LenetLike>"
    answers = digits.predict(torch.zeros(28, 28, dtype=torch.uint8))
    for count in (0, 1.5, "2"):
        with pytest.raises(InputError, match="classes to show must be 1 or more"):
            answers.top(count)
