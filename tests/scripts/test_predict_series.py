"""Ask runs of forecast.py what comes next; each run is copied away from its data first."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas
import pytest
from helpers.figures import is_drawn
from helpers.scripts import assert_mistake

import torchdl

pytestmark = pytest.mark.slow

TRAIN = "forecast.py {} --csv prices.csv --epochs 1 --horizon 4 --length 6 --threads 1 --device cpu --name {}"


@pytest.fixture(scope="module")
def runs(run, tmp_path_factory):
    """Train on prices; return a folder with the prices and copies of the runs."""
    folder = tmp_path_factory.mktemp("series")
    prices = torchdl.google_prices().select(["open", "close"])
    table = pandas.DataFrame(prices.values.numpy()[:200], columns=prices.columns)
    table.insert(0, "date", pandas.bdate_range("2024-01-01", periods=200))
    table.to_csv(folder / "prices.csv", index=False)
    for name in ("prices --direct", "returns", "direction"):
        experiment = name.split()[0]
        done = run(TRAIN.format(name, experiment), folder)
        assert done.code == 0, done.err
        shutil.move(folder / "runs" / "forecast" / experiment, folder / experiment)
    adding = "adding_problem.py --sequences 20 --terms 6 --hidden 3 --epochs 1 --threads 1 --device cpu --name x"
    done = run(adding, folder)
    assert done.code == 0, done.err
    shutil.move(folder / "runs" / "adding" / "x", folder / "adding")
    np.save(folder / "sequences.npy", torchdl.AddingProblem(4, 6)[:][0].numpy())  # (4, 6, 2)
    table[::-1].to_csv(folder / "written.csv", index=False, sep=";", decimal=",", date_format="%d/%m/%Y")
    table[["close", "date"]].tail(7).to_csv(folder / "last.csv", index=False)
    table[["close", "date"]].tail(5).to_csv(folder / "short.csv", index=False)
    table.assign(close=table["close"].where(table.index != 190)).to_csv(folder / "gap.csv", index=False)
    table[["date", "open"]].to_csv(folder / "other.csv", index=False)
    return folder


@pytest.mark.parametrize("name", ["prices", "returns"])
@pytest.mark.parametrize("file", ["prices.csv", "last.csv"])
def test_the_next_terms_are_those_of_the_training_script_to_the_bit(runs, run, name, file):
    done = run(f"predict.py {name} {file} --out next.csv --device cpu", runs)
    assert (done.code, done.err) == (0, "")
    table = pandas.read_csv(runs / "next.csv", dtype=str)
    results = json.loads((runs / name / "results.json").read_text())["terms after the series"]
    column = "return of close" if name == "returns" else "close"
    assert [float(cell) for cell in table[column]] == results["forecast"]["close"]
    assert table["step"].tolist() == ["1", "2", "3", "4"]
    assert table["time"].tolist() == ["2024-10-07", "2024-10-08", "2024-10-09", "2024-10-10"]
    assert f"{column}, {results['naive forecast']}" in table


def test_answers_are_printed_and_saved_in_every_format(runs, run):
    found = torchdl.load_predictor(runs / "returns", "cpu").predict(runs / "prices.csv", horizon=3)
    for suffix in ("npy", "json", "png"):
        done = run(f"predict.py returns prices.csv --horizon 3 --out next.{suffix} --device cpu", runs)
        assert (done.code, done.err) == (0, "")
    assert np.load(runs / "next.npy").tolist() == found.values.tolist()
    rows = json.loads((runs / "next.json").read_text())
    assert rows[0]["time"].startswith("2024-10-07")
    assert [row["close"] for row in rows] == pytest.approx(found.prices.values[:, 0].tolist(), rel=1e-12)
    assert is_drawn(runs / "next.png")
    done = run("predict.py returns prices.csv --horizon 3", runs)
    assert len(done.out.splitlines()) == 4
    assert f"{found.prices.values[-1, 0]:.6f}" in done.out


def test_the_next_direction_is_that_of_the_training_script(runs, run):
    done = run("predict.py direction prices.csv --out next.npy --device cpu", runs)
    assert (done.code, done.err) == (0, "")
    results = json.loads((runs / "direction" / "results.json").read_text())
    assert np.load(runs / "next.npy").tolist() == [results["probability of a rise after the series"]]
    done = run("predict.py direction prices.csv", runs)
    assert "rises" in done.out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--csv other.csv", "other.csv has no column 'close': .*; name others with --column$"),
        ("prices.csv", "write --csv prices.csv"),
        ("sine --csv prices.csv", "sine makes its own series"),
        ("--csv prices.csv --length 0", "length"),  # it reads the file: these are prices
    ],
)
def test_ones_own_series_needs_its_file_and_its_column(runs, run, options, said):
    assert_mistake(run, f"forecast.py {options}", runs, said)


def test_a_file_that_is_written_in_another_way_than_the_trainings_is_described_by_options(runs, run):
    expected = torchdl.load_predictor(runs / "prices", "cpu").predict(runs / "prices.csv")
    options = "--separator ';' --decimal , --date-order day --sort"
    done = run(f"predict.py prices written.csv {options} --out written.npy --device cpu", runs)
    assert (done.code, done.err) == (0, "")
    assert np.load(runs / "written.npy").tolist() == expected.values.tolist()
    assert "'close' reaches" in done.out  # the prices have left the training's range


def test_sequences_are_added(runs, run):
    done = run("predict.py adding sequences.npy --out sums.csv --device cpu", runs)
    assert (done.code, done.err) == (0, "")
    sums = torchdl.load_predictor(runs / "adding", "cpu").predict(torchdl.AddingProblem(4, 6)[:][0]).numbers
    assert pandas.read_csv(runs / "sums.csv")["sum"].tolist() == pytest.approx(sums.tolist(), rel=1e-12)


MISTAKES = {
    "prices": "name one CSV file, not 0",
    "prices short.csv": "5 terms, but the network reads 6",
    "prices gap.csv": "gap.csv has nothing instead of a number in column 'close', row 192",
    "prices other.csv": "other.csv has no column 'close': its columns are",
    "direction prices.csv --horizon 2": "--horizon is for runs of the kind forecaster",
    "direction prices.csv --out next.png": "must end in .csv or .json or .npy",
    "prices written.csv --separator ';' --decimal ,": r"sort the rows by time \(--sort\)",
    "adding last.csv": "name one .npy file",
    "adding sequences.npy --date-order day": "--date-order is for runs of the kind",
    "adding sequences.npy --top 2": "--top is for classes",
}


@pytest.mark.parametrize("command", MISTAKES)
def test_a_mistake_is_one_sentence(runs, run, command):
    assert_mistake(run, f"predict.py {command}", runs, MISTAKES[command])


def test_resuming_an_older_versions_finished_run_writes_what_is_missing(runs, run):
    shutil.copytree(runs / "returns", runs / "older", dirs_exist_ok=True)
    expected = (runs / "older" / "preprocessing.json").read_bytes()
    (runs / "older" / "preprocessing.json").unlink()
    done = run("forecast.py --resume older", runs)
    assert done.code == 0, done.err
    assert (runs / "older" / "preprocessing.json").read_bytes() == expected
