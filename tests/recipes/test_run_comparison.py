from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.figures import is_drawn

import torchdl
from torchdl import InputError
from torchdl.history import read_history
from torchdl.recipes.run_comparison import compare_runs, names_of, numbers_of, read_run
from torchdl.training.logging import Logger

HISTORY = [
    {"epoch": 1, "step": 5, "train/loss": 2.0, "train/grad_norm": 1.0, "val/loss": 1.5, "val/top1_chance": 0.1},
    {"epoch": 2, "step": 10, "train/loss": 1.0, "train/grad_norm": 1.0, "val/loss": 0.5, "val/top1_chance": 0.1},
    {"epoch": 3, "step": 15, "train/loss": 0.5, "train/grad_norm": 1.0, "val/loss": float("nan")},
]
DATA = {"origin": "60 images from /a", "fingerprint": "ab", "held_out_origin": "x", "held_out_fingerprint": "cd"}


def make_run(
    folder: Path, history=HISTORY, results=None, script="train_lenet.py", data=None, versions=None, **settings
) -> Path:
    """Write the files of a run, as a training does."""
    folder.mkdir(parents=True)
    config = {"lr": 0.1, "run": {"name": folder.name, "out": "runs"}, "trainer": {"epochs": 3, "monitor": ""}}
    record = {"config": config | settings, "command": f"{script} --lr 1", "parameters": 7, "commit": "c0ffee"}
    record |= {"data": data or DATA, "versions": versions or {"torch": "2.10"}}
    (folder / "config.json").write_text(json.dumps(record))
    if history:
        logger = Logger(folder)
        logger.epoch(history, {})
        logger.close()
    if results is not None:
        (folder / "results.json").write_text(json.dumps(results))
    return folder


def test_a_history_is_read_as_it_was_written(tmp_path):
    make_run(tmp_path / "a")
    found = read_history(tmp_path / "a" / "metrics.csv")
    assert str(found) == str(HISTORY)  # as texts, because nan differs from itself


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a,b\n1,2\n",  # another table
        "epoch,step\n1,2,3\n",
        "epoch,step,val/loss\n1,2\n",
        "epoch,step,val/loss\n1,2,x\n",
        "epoch,step,step\n1,2,3\n",
        "epoch,step\nnan,2\n",
        "epoch,step\n1,\n",
        'epoch,step\n1,"2\n',
    ],
)
def test_another_table_or_a_damaged_one_is_refused(tmp_path, text):
    (tmp_path / "metrics.csv").write_text(text)
    with pytest.raises(InputError, match="metrics"):
        read_history(tmp_path / "metrics.csv")


def test_settings_versions_commit_and_data_that_differ_are_found_and_places_are_not(tmp_path):
    one = make_run(tmp_path / "one", learning={"lr": 0.1, "shift": 0.0}, lr=0.5)  # two settings of one name
    data = {**DATA, "origin": "60 images from /b", "held_out_fingerprint": "ef", "held_out_origin": "y"}
    two = make_run(
        tmp_path / "two", learning={"lr": 0.2, "shift": 0.0}, lr=0.5, data=data, versions={"torch": "2.11"}, extra=[1]
    )
    assert compare_runs([one, two]).settings == {
        "learning.lr": [0.1, 0.2],
        "data.held_out_fingerprint": ["cd", "ef"],  # the training data only lie elsewhere
        "data.held_out_origin": ["x", "y"],
        "versions.torch": ["2.10", "2.11"],
        "extra": [None, [1]],
    }


def test_figures_are_those_of_the_last_and_the_best_epoch_and_the_results(tmp_path):
    results = {"accuracy": 0.9, "by class": {str(k): 0.1 * k for k in range(7)}, "scores": {"F1": 0.8}, "name": "x"}
    one, two = make_run(tmp_path / "one", results=results), make_run(tmp_path / "two", HISTORY[:2], {"accuracy": 0.7})
    found = compare_runs([one, two])
    main = {
        "last epoch": [3, 2],
        "best epoch (lowest val/loss)": [2, 2],
        "accuracy": [0.9, 0.7],
        "parameters": [7, 7],
        "val/loss, last epoch": [pytest.approx(float("nan"), nan_ok=True), 0.5],
        "val/loss, best epoch": [0.5, 0.5],
        "scores / F1": [0.8, None],
    }
    assert dict(list(found.figures.items())[: len(main)]) == main  # the numbers of seven classes come later
    assert list(found.figures)[-2:] == ["train/loss, last epoch", "train/loss, best epoch"]
    assert found.figures["by class / 2"] == [0.2, None]
    assert not any("grad_norm" in name or "chance" in name for name in found.figures)
    table = found.to_frame()
    assert table["run"].tolist() == ["one", "two"]
    assert table["accuracy"].tolist() == [0.9, 0.7]
    assert len(table.columns) == 4 + len(found.settings) + len(found.figures)


def test_the_best_epoch_is_that_of_the_metric_that_all_have_monitored(tmp_path):
    monitored = {"trainer": {"epochs": 3, "monitor": "train/loss", "mode": "max"}}
    runs = [make_run(tmp_path / name, **monitored) for name in ("one", "two")]
    assert compare_runs(runs).figures["best epoch (highest train/loss)"] == [1, 1]
    other = make_run(tmp_path / "other")
    assert compare_runs([runs[0], other]).figures["best epoch (lowest val/loss)"] == [2, 2]


def test_runs_of_different_scripts_are_compared_by_what_both_have(tmp_path):
    one, two = make_run(tmp_path / "one", width=3), make_run(tmp_path / "two", script="train_gan.py", lr=0.3, loss="a")
    found = compare_runs([one, two])
    assert found.settings == {"lr": [0.1, 0.3]}
    assert found.notes == [
        "these are runs of train_gan.py and train_lenet.py: 2 settings that not all have are left out"
    ]


def test_what_is_unfinished_missing_or_damaged_is_said(tmp_path):
    whole = make_run(tmp_path / "whole", results={"accuracy": 1.0})
    begun, half = make_run(tmp_path / "begun", None), make_run(tmp_path / "half", HISTORY[:2])
    damaged = make_run(tmp_path / "damaged", results={})
    (damaged / "metrics.csv").write_text("epoch,step\nx,y\n")
    (damaged / "results.json").write_text("{")
    found = compare_runs([whole, begun, half, damaged])
    assert [run.finished for run in found.runs.values()] == [True, False, False, True]
    said = ["no epoch yet", "half is not finished.*epoch 2 of 3", "damaged/metrics.csv", "damaged/results.json"]
    assert len(found.notes) == len(said)
    for note, words in zip(found.notes, said, strict=True):
        assert re.search(words, note)
    assert found.figures["accuracy"] == [1.0, None, None, None]
    assert found.figures["last epoch"] == [3, None, 2, None]
    found.plot("step", tmp_path / "curves.png")
    assert is_drawn(tmp_path / "curves.png")


def test_folders_of_a_trainer_are_compared_by_their_records_and_options(tmp_path):
    ones = torchdl.BatchLoader(torchdl.ArrayDataset(torch.ones(4, 1), torch.ones(4, 1)), batch_size=2)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "config.json").write_text('{"config": {"lr": 0.5}}')  # somebody's own stays as it is
    for name, lr in (("a", np.float32(0.25)), ("b", 1), ("c", 0.125)):
        task = torchdl.Supervised(torch.nn.Linear(1, 1), torch.nn.functional.mse_loss)
        options = {"epochs": 1, "seed": int(name == "c"), "device": "cpu"}
        torchdl.Trainer(**options).fit(task, ones, folder=tmp_path / name, record={"lr": lr}, tensorboard=False)
    found = compare_runs([tmp_path / name for name in "abc"])
    assert found.settings["lr"] == [0.25, 0.5, 0.125]
    assert found.settings["seed"] == [0, None, 1]
    assert [run.finished for run in found.runs.values()] == [True, False, True]
    assert found.figures["last epoch"] == [1, 1, 1]


def test_no_run_one_run_or_the_same_twice_is_no_comparison(tmp_path):
    one = make_run(tmp_path / "runs" / "one")
    for folders, words in (
        ([one], "two runs or more"),
        ([one, one / ".." / "one"], "named 2 times"),
        ([one, tmp_path / "missing"], "there is no folder .*missing: name that of a run"),
        ([one, tmp_path / "runs"], "holds runs, and is none itself"),
    ):
        with pytest.raises(InputError, match=words):
            compare_runs(folders)


def test_names_are_as_short_as_they_can_be():
    paths = [Path("/a/gan/x"), Path("/a/lenet/x"), Path("/b/gan/y")]
    assert names_of(paths) == ["gan/x", "lenet/x", "gan/y"]
    assert names_of(paths[1:]) == ["x", "y"]


def test_numbers_lie_however_deep():
    deep = {"x": 1}
    for _ in range(5000):
        deep = {"d": deep}
    assert list(numbers_of({"a": True, "b": "3", "c": [4], "e": 5, **deep}).values()) == [5, 1]


def test_a_strangers_settings_may_be_anything(tmp_path):
    (tmp_path / "config.json").write_text('{"config": {"epochs": "x", "a": {"": null}}, "command": 3, "commit": []}')
    assert compare_runs([tmp_path, make_run(tmp_path / "b", None, trainer={"monitor": [], "mode": {}})]).figures
    assert read_run(tmp_path).settings == {"epochs": "x", "": None}
