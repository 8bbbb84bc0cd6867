"""Compare runs, whose files the tests write themselves."""

from __future__ import annotations

import csv
import json

import pytest
from helpers.figures import is_drawn
from helpers.scripts import assert_mistake

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Write twelve runs and a folder that is none."""
    folder = tmp_path_factory.mktemp("compared")
    (folder / "none").mkdir()
    for number in range(12):
        place = folder / "runs" / f"run-{number}"
        place.mkdir(parents=True)
        config = {"lr": 0.1 * number, "run": {"name": place.name}, "trainer": {"epochs": 2}}
        (place / "config.json").write_text(json.dumps({"config": config, "command": "train_lenet.py"}))
        (place / "metrics.csv").write_text(f"epoch,step,val/loss\n1,5,2\n2,10,{number}\n")
    return folder


def test_runs_are_compared_on_the_console_in_a_table_and_in_a_picture(runs, run):
    done = run("compare.py runs/run-1 runs/run-2", runs)
    assert (done.code, done.err) == (0, "")
    assert [line.split() for line in done.out.splitlines() if line.startswith("lr")] == [["lr", "0.1", "0.2"]]
    every = " ".join(f"runs/run-{number}" for number in range(12))
    assert run(f"compare.py {every} --out all.csv", runs).code == 0
    with (runs / "all.csv").open(newline="") as file:
        assert [float(row["val/loss, last epoch"]) for row in csv.DictReader(file)] == list(range(12))
    done = run(f"compare.py {every} --out all.png --x step", runs)
    assert done.out == "12 runs: all.png\n"
    assert is_drawn(runs / "all.png")
    assert run(f"compare.py {every}", runs).code == 0


def test_forecasts_of_one_series_are_drawn_together(runs, run):
    for number in range(1, 4):
        rows = [f"2020-01-0{day},{day + (number == 3)},{number},{number * day}" for day in range(1, 6)]
        table = "\n".join(["time,actual,one_step,multi_step", *rows])
        (runs / "runs" / f"run-{number}" / "forecasts.csv").write_text(table + "\n")
    (runs / "runs" / "run-4" / "forecasts.csv").write_text("actual,one_step\n1,2\n")
    done = run("compare.py runs/run-1 runs/run-2 --forecasts both.png", runs)
    assert (done.code, done.err) == (0, "")
    assert "forecasts of 2 runs: both.png\n" in done.out
    assert is_drawn(runs / "both.png")


MISTAKES = {
    "runs/run-1 runs/run-3 --forecasts x.png": "run-3 was tested on other terms than run-1",
    "runs/run-1 runs/run-4 --forecasts x.png": "forecasts.csv is damaged",
    "runs/run-1 runs/run-5 --forecasts x.png": "run-5 has no forecasts.csv",
    "runs/run-1": "two runs or more",
    "runs/run-1 none": "none is not a run's folder",
    "runs/run-1 missing": "there is no folder missing: name that of a run",
    "runs runs/run-1": "name the folders of the runs",
    "runs/run-1 runs/run-2 --out x.json": "must end in .png or .csv",
}


@pytest.mark.parametrize("command", MISTAKES)
def test_a_mistake_is_one_sentence(runs, run, command):
    assert_mistake(run, f"compare.py {command}", runs, MISTAKES[command])
