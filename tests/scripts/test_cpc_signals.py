from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from helpers import gaussian
from helpers.scripts import assert_mistake, same_weights

import torchdl

pytestmark = pytest.mark.slow
SMALL = "--code-size 4 --context-size 4 --epochs 1 --terms 3 --predict-terms 2 --batch-size 4"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    (folder / "sounds").mkdir()
    for number in range(3):
        np.save(folder / "sounds" / f"{number}.npy", gaussian(2, 900, seed=number).numpy() * 7 + 3)
    np.save(folder / "short.npy", np.arange(100.0))
    np.save(folder / "one.npy", gaussian(1500).numpy())
    rows = "\n".join(f"{x};{y}" for x, y in gaussian(900, 2).tolist())
    for name, columns in (("a", "left;right"), ("b", "right;left")):
        (folder / "tables").mkdir(exist_ok=True)
        (folder / "tables" / f"{name}.csv").write_text(f"{columns}\n{rows}\n")
    return folder


def test_a_users_own_signals_train_a_model_that_encodes_them(run, workplace):
    done = run(f"train_cpc_signals.py --signals sounds {SMALL} --name own", workplace)
    assert (done.code, done.err) == (0, "")
    folder = workplace / "runs" / "cpc_signals" / "own"
    assert "embed.py runs/cpc_signals/own FILE" in done.out
    assert "paired" not in done.out
    settings = json.loads((folder / "preprocessing.json").read_text())["settings"]
    assert (settings["channels"], settings["window"], settings["hop"]) == (2, 16, 16)
    assert settings["mean"] == pytest.approx([3, 3], abs=0.5)
    assert settings["deviation"] == pytest.approx([7, 7], rel=0.1)
    assert torchdl.CPCFeatures(folder, device="cpu").encode(gaussian(5, 2, 16)).shape == (5, 4)
    header = (folder / "metrics.csv").read_text().splitlines()[0]
    assert "val/top1_chance" in header
    assert not re.search("paired|digit|class|ceiling", header)


def test_tables_are_embedded_with_the_columns_and_the_format_of_the_training(run, workplace):
    done = run(f"train_cpc_signals.py --signals tables --separator ; {SMALL} --name tables", workplace)
    assert (done.code, done.err) == (0, "")
    assert "channels left, right" in done.out
    embedder = torchdl.load_predictor(workplace / "runs" / "cpc_signals" / "tables", "cpu")
    swapped = (workplace / "tables" / "b.csv").read_text().replace("right;left", "left;right")
    (workplace / "swapped.csv").write_text(swapped)
    one, other = (embedder.embed(workplace / name) for name in ("tables/a.csv", "swapped.csv"))
    assert torch.equal(one, other)
    assert not torch.equal(one, embedder.embed(workplace / "tables" / "b.csv"))


def test_a_resumed_run_ends_as_one_that_was_not_stopped(run, workplace):
    command = f"train_cpc_signals.py --signals sounds {SMALL} --max-steps"
    for name, steps in (("whole", 20), ("part", 9)):
        assert run(f"{command} {steps} --name {name}", workplace).code == 0
    done = run("train_cpc_signals.py --resume runs/cpc_signals/part --max-steps 20", workplace)
    assert (done.code, done.err) == (0, "")
    runs = workplace / "runs" / "cpc_signals"
    assert same_weights(runs / "whole", runs / "part")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("--signals nowhere", "no file or folder nowhere"),
        ("--signals short.npy", "last fifth .*short.npy.*20 samples.*256"),
        ("--signals one.npy", "validation needs 2 or more sequences.*1 of 256"),
        ("--signals sounds --fold 1 --segment 9", "--fold and --segment would change nothing"),
        ("--columns a", "--columns would change nothing.*--signals"),
        ("--signals tables", "--separator ';'"),
        ("--signals sounds --terms 3 --window 0", "window .*0"),
        ("--signals sounds --terms 3 --window 15", "16 or more"),
        ("--signals sounds --terms 0", "terms .*0"),
        ("--signals sounds --terms 3 --kernels 2", "as many strides as kernels"),
        ("--signals sounds --batch-size 1", "--batch-size .*1"),
    ],
)
def test_a_mistake_is_one_sentence(run, workplace, options, sentence):
    assert_mistake(run, f"train_cpc_signals.py {options}", workplace, sentence)
