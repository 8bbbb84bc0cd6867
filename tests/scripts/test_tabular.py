from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from helpers.figures import is_drawn
from helpers.scripts import assert_mistake
from helpers.tables import table
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import train_test_split

import torchdl
from torchdl import TableFormat, read_table, split_table
from torchdl.data.tabular import breast_cancer

pytestmark = pytest.mark.slow

CANCER = "train_tabular.py --epochs 12 --lr 0.03 --batch-size 64 --evaluate-every 12"
PRICE = "train_tabular.py --csv own.csv --target price --epochs 10 --lr 0.1 --batch-size 16 --evaluate-every 10"


@pytest.fixture(scope="module")
def trained(run, tmp_path_factory):
    """Train on breast cancer and on a table of one's own; return the folder and what each said."""
    folder = tmp_path_factory.mktemp("trained")
    table(120).assign(same=7).to_csv(folder / "own.csv", index=False)
    done = [run(f"{CANCER} --name x", folder), run(f"{PRICE} --name price", folder)]
    assert [d.code for d in done] == [0, 0], done[0].err + done[1].err
    assert [d.err for d in done] == ["", ""]
    return folder, *done


@pytest.fixture
def workplace(trained, tmp_path):
    """Return a folder with both runs and the table."""
    shutil.copytree(trained[0], tmp_path, dirs_exist_ok=True)
    return tmp_path


def results_of(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def line(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a linear model's weights (K, D) and biases (K,) from its file."""
    state = safetensors.torch.load_file(folder / "weights.safetensors")
    bias, weight = (state[key].double().numpy() for key in sorted(state))
    return weight, bias


# training


def test_the_test_score_is_a_computation_by_hand(trained):
    folder, done, _ = trained
    path = folder / "runs" / "tabular" / "x"
    results, (weight, bias) = results_of(path), line(path)
    found = split_table(breast_cancer(), "diagnosis")
    x, y = (part.double().numpy() for part in found.test[:])
    logits = x @ weight[0] + bias[0]
    answers = 1 / (1 + np.exp(-logits)) > 0.5
    assert results["accuracy"]["this model"] == pytest.approx((answers == y[:, 0]).mean())
    known = found.train.targets[:, 0].numpy()
    theirs = LogisticRegression(max_iter=10_000).fit(found.train.inputs.numpy(), known)
    assert results["accuracy"]["logistic regression"] == pytest.approx(theirs.score(x, y[:, 0]))
    assert results["accuracy"]["the most frequent class"] == pytest.approx(1 - y.mean())
    assert abs(results["accuracy"]["this model"] - results["accuracy"]["logistic regression"]) <= 0.02
    # the area is the share of pairs of a malignant and a benign tumour that are in the right order
    right = logits[y[:, 0] == 1][:, None] > logits[y[:, 0] == 0]
    assert results["area under the ROC curve"]["this model"] == pytest.approx(right.mean())
    assert results["rows"] == {"train": 381, "held out": 188}
    assert list(results["weights"]) == ["malignant"]
    assert results["weights"]["malignant"]["worst radius"] == pytest.approx(weight[0][20], rel=1e-6)
    assert "data: 381 rows of scikit-learn's breast tumours\ntest data: 188 rows of" in done.out
    assert re.search(rf"^this model +{results['accuracy']['this model']:.2%}", done.out, re.MULTILINE)
    accuracy = f"test accuracy {results['accuracy']['this model']:.2%}"
    assert done.out.splitlines()[-1] == f"loaded again: {accuracy}; before: {accuracy}"
    for name in ("confusion", "roc", "weights", "history"):
        assert is_drawn(path / "plots" / f"{name}.png")


def test_a_number_is_regressed_in_its_own_unit(trained):
    folder, _, done = trained
    path = folder / "runs" / "tabular" / "price"
    results, (weight, bias) = results_of(path), line(path)
    found = split_table(pd.read_csv(folder / "own.csv"), "price")
    mean, deviation = found.columns.scale
    x = found.test.inputs.double().numpy()
    true = found.test.targets[:, 0].double().numpy() * deviation + mean
    error = (x @ weight[0] + bias[0]) * deviation + mean - true
    theirs = LinearRegression().fit(found.train.inputs.double().numpy(), found.train.targets.double().numpy())
    least = (theirs.predict(x)[:, 0] * deviation + mean) - true
    for name, wrong in {"this model": error, "least squares": least, "the mean": mean - true}.items():
        row = results["errors"][name]
        assert row["RMSE"] == pytest.approx(np.sqrt((wrong**2).mean()), rel=1e-4)
        assert row["MAE"] == pytest.approx(np.abs(wrong).mean(), rel=1e-4)
        assert row["R2"] == pytest.approx(1 - (wrong**2).mean() / true.var(), abs=1e-4)
    rmse = f"test RMSE {results['errors']['this model']['RMSE']:.6g}"
    assert done.out.splitlines()[-1] == f"loaded again: {rmse}; before: {rmse}"
    assert results["errors"]["this model"]["RMSE"] < 2 < 20 < results["errors"]["the mean"]["RMSE"]
    assert re.search(r"^left out.*: same$", done.out, re.MULTILINE)
    assert set(results["weights"]["price"]) == {"size", "kind=blue", "kind=green", "kind=red"}
    for name in ("predictions", "weights", "history"):
        assert is_drawn(path / "plots" / f"{name}.png")


def test_more_classes_are_told_apart_by_a_network_and_by_a_line(run, tmp_path):
    random = np.random.default_rng(0)
    kinds = np.arange(150) % 3
    points = random.normal(0, 0.3, (150, 2)) + np.array([[0, 0], [2, 0], [0, 2]])[kinds]
    rows = pd.DataFrame(points, columns=["price ($)", "$x$"]).assign(kind=np.array(["$a$", "b", "c"])[kinds])
    rows.to_csv(tmp_path / "own.csv", index=False)
    command = "train_tabular.py --csv own.csv --target kind --epochs 8 --lr 0.1 --evaluate-every 8"
    for name, options in {"line": "", "network": "--hidden 8 --activation tanh --dropout 0.1"}.items():
        done = run(f"{command} {options} --name {name}", tmp_path)
        assert (done.code, done.err) == (0, "")
        path = tmp_path / "runs" / "tabular" / name
        assert results_of(path)["accuracy"]["this model"] > 0.95
        assert torchdl.load(path).out_features == 3
        assert ("weights" in results_of(path)) == (path / "plots" / "weights.png").exists() == (name == "line")
    done = run("embed.py runs/tabular/network own.csv --out rows.npy", tmp_path)
    assert (done.code, done.err) == (0, "")
    assert np.load(tmp_path / "rows.npy").shape == (150, 8)
    weight, _ = line(tmp_path / "runs" / "tabular" / "line")
    expected = {
        kind: dict(zip(["price ($)", "$x$"], weight[i], strict=True)) for i, kind in enumerate(["$a$", "b", "c"])
    }
    for kind, row in results_of(tmp_path / "runs" / "tabular" / "line")["weights"].items():
        assert row == pytest.approx(expected[kind], rel=1e-6)


def test_a_resumed_run_ends_as_one_that_was_not_stopped(run, workplace):
    path = workplace / "runs" / "tabular"
    for name, steps in {"a": 7, "b": 12}.items():
        assert run(f"{PRICE} --hidden 3 --schedule constant --max-steps {steps} --name {name}", workplace).code == 0
    done = run("train_tabular.py --resume runs/tabular/a --max-steps 12", workplace)
    assert (done.code, done.err) == (0, "")
    states = [safetensors.torch.load_file(path / name / "weights.safetensors") for name in "ab"]
    assert all(states[0][key].equal(states[1][key]) for key in (states[0] | states[1]))
    assert results_of(path / "a") == results_of(path / "b")


@pytest.mark.parametrize("command", [f"{CANCER} --hidden 8 4", "train_moore.py"])
def test_a_dry_run_leaves_nothing_behind(run, tmp_path, command):
    done = run(f"{command} --dry-run", tmp_path)
    assert done.code == 0, done.err
    assert done.out.endswith("dry run: everything ran, and nothing was kept\n")
    assert {path.name for path in tmp_path.iterdir()} <= {"cache"}


MISTAKES = {
    "train_tabular.py --csv own.csv": "--target COLUMN",
    "train_tabular.py --target price": "--target .*--csv FILE",
    "train_tabular.py --csv none.csv --target price": "none.csv",
    "train_tabular.py own.csv --target price": "own.csv has no option before it: write --csv own.csv",
    "train_tabular.py --csv thousandths.csv --separator ; --target b": "'a' has '1,250', .*--decimal ,",
    "train_tabular.py --csv own.csv --target cost": "'cost'.* size, kind, price, same; name others with --target$",
    "train_tabular.py --csv own.csv --target price --kinds cost": "'cost'.* size",
    "train_tabular.py --csv own.csv --target price --kinds size": "'size' .*80 .*50",
    "train_tabular.py --csv spoilt.csv --target price": "'size' .*'\\?' in row 5",
    "train_tabular.py --csv gaps.csv --target price": r"'size' 1 \(first in row 3\).*missing",
    "train_tabular.py --lr 0": "learning rate .* 0.0",
    "train_tabular.py --resume runs/tabular/price --ignore size": "runs/tabular/price .*data",
    "predict_tabular.py runs/tabular/none --csv own.csv": "no folder runs/tabular/none",
    "predict_tabular.py runs/tabular/price --csv spoilt.csv": "'size' .*'\\?' in row 5",
    "predict_tabular.py runs/tabular/price --csv gaps.csv": "gaps.csv .*'size' 1.*--missing",
    "predict_tabular.py runs/tabular/x --csv own.csv": "'mean radius'",
    "predict_tabular.py runs/tabular/x --csv own.csv --out p.xlsx": r"p\.xlsx must end in \.csv",
    "predict_tabular.py mixed --csv own.csv": "mixed/preprocessing.json is .*another model's",
    "predict.py runs/tabular/price": "name one CSV file",
    "predict.py runs/tabular/price own.csv gaps.csv": "name one CSV file",
    "predict.py runs/tabular/price gaps.csv": "gaps.csv .*'size' 1.*--missing fill",
    "predict.py runs/tabular/price spoilt.csv --na x": r"'size' .*'\?' in row 5.*--na '\?'\)$",
    "predict.py runs/tabular/x own.csv": "own.csv has no column 'mean radius', 'mean texture'.* kind, price, same",
    "predict.py runs/tabular/price semicolons.csv --separator tab": "no column 'size', 'kind'.*--separator ';'",
    "predict.py runs/tabular/x none.csv": "no file none.csv",
    "predict.py runs/tabular/price own.csv --top 2": "--top .*predicts numbers",
    "embed.py runs/tabular/price own.csv --out rows.npy": "no hidden layer",
    "embed.py runs/tabular/price own.csv gaps.csv --out rows.npy": "one CSV file",
    "train_tabular.py --csv bare.csv --target price": "bare.csv has values in place of .*--no-header",
    "explore.py semicolons.csv": "3 cells in row 2.*--separator ';', --decimal , or --comment '#'",
    "explore.py semicolons.csv --separator tab": "one column, 'size;kind;price;same'.*--separator ';'",
    "predict_tabular.py runs/tabular/price --csv spoilt.csv --na x": r"mark them as missing \(--na '\?'\)$",
    "explore.py own.csv --columns kind": "'kind' .* size, price",
    "explore.py own.csv --columns same": "'same' .* size, price",
    "explore.py --csv own.csv": "without --csv",
    "explore.py own.csv --limit 0": "--limit .* 0",
    "train_moore.py --batch-size -1": "--batch-size .*-1",
    "train_moore.py --later-lr 0": "learning rate .* 0.0",
    "train_surface.py --points 0": "--points .* 0",
    "train_surface.py --frequency 0": "--frequency .* 0.0",
    "train_surface.py --weight-decay -1": "weight-decay .* -1.0",
}


@pytest.fixture(scope="module")
def spoilt(trained, tmp_path_factory):
    """Return a folder with both runs, tables with something wrong, and a run of two others' files."""
    folder = tmp_path_factory.mktemp("spoilt")
    shutil.copytree(trained[0], folder, dirs_exist_ok=True)
    rows = pd.read_csv(folder / "own.csv")
    rows.assign(size=rows["size"].astype(object).where(rows.index != 3, "?")).to_csv(folder / "spoilt.csv", index=False)
    rows.assign(size=rows["size"].where(rows.index != 1)).to_csv(folder / "gaps.csv", index=False)
    rows.to_csv(folder / "bare.csv", index=False, header=False)
    rows.to_csv(folder / "semicolons.csv", index=False, sep=";", decimal=",")
    (folder / "thousandths.csv").write_text("a;b\n1,250;2\n2,375;3\n")
    shutil.copytree(folder / "runs" / "tabular" / "x", folder / "mixed")
    shutil.copy(folder / "runs" / "tabular" / "price" / "preprocessing.json", folder / "mixed")
    return folder


@pytest.mark.parametrize("command", MISTAKES)
def test_a_mistake_is_one_sentence_and_changes_nothing(run, spoilt, command):
    assert_mistake(run, command, spoilt, MISTAKES[command])


def test_what_is_wrong_with_a_table_can_be_lived_with_on_purpose(run, spoilt):
    for command in ("--csv spoilt.csv --target price --ignore size", "--csv gaps.csv --target price --missing fill"):
        done = run(f"train_tabular.py {command} --dry-run", spoilt)
        assert (done.code, done.err) == (0, "")
        assert ("missing values in 'size' 1 (first in row 3)" in done.out) == ("gaps" in command)


def test_the_training_file_predicted_anew_has_the_predictions_of_the_training(run, tmp_path):
    random = np.random.default_rng(0)
    cells = [[f"{random.normal():.3f}", f"{random.normal():.3f}", random.choice(["01", "02", "?"])] for _ in range(90)]
    codes = ["TRUE" if float(x) > 0 else "FALSE" for x, _, _ in cells]
    lines = [f" {x}   {z}  {kind}\t{code}" for (x, z, kind), code in zip(cells, codes, strict=True)]
    (tmp_path / "own.data").write_text("\n".join([*lines, "0.1 0.1 03 unknown", "0.2 0.2 03 unknown", ""]))
    written = "own.data --no-header --separator blanks --na ? --names x z kind code --missing fill"
    done = run(f"train_tabular.py --csv {written} --target code --epochs 3 --name x", tmp_path)
    assert (done.code, done.err) == (0, "")
    assert "missing values in 'kind'" in done.out
    done = run(f"predict_tabular.py runs/tabular/x --csv {written} --out p.csv", tmp_path)
    assert (done.code, done.err) == (0, "")
    found = pd.read_csv(tmp_path / "p.csv", dtype=str)["code"]
    format = TableFormat(header=False, names=("x", "z", "kind", "code"), separator="blanks", na=("?",))
    rows = read_table(tmp_path / "own.data", format=format, target="code")
    _, test = train_test_split(np.arange(92), test_size=0.33, random_state=0, stratify=rows["code"])
    right = (found == rows["code"])[test].mean()
    assert results_of(tmp_path / "runs" / "tabular" / "x")["accuracy"]["this model"] == pytest.approx(right)
    assert set(found) <= {"TRUE", "FALSE", "unknown"}


# predicting


def test_a_new_file_is_predicted_in_any_order_of_its_columns(run, trained, tmp_path):
    path = trained[0] / "runs" / "tabular" / "x"
    rows = breast_cancer()
    spoilt = rows[rows.columns[::-1]].assign(note="x", size="")
    spoilt.loc[7, "diagnosis"] = None
    spoilt.to_csv(tmp_path / "new.csv", index=False)
    done = run(f"predict_tabular.py {path} --csv new.csv --out p.csv", tmp_path)
    assert (done.code, done.err) == (0, "")
    found = pd.read_csv(tmp_path / "p.csv")
    weight, bias = line(path)
    logits = torchdl.load_predictor(path).settings.inputs(rows).double().numpy() @ weight[0] + bias[0]
    np.testing.assert_allclose(found["probability of malignant"], 1 / (1 + np.exp(-logits)), rtol=1e-4, atol=1e-12)
    np.testing.assert_allclose(found["probability of benign"] + found["probability of malignant"], 1)
    right = (found["diagnosis"] == rows["diagnosis"]).drop(index=7).mean()
    assert right > 0.95
    assert re.search(rf"^569 predictions: p.csv\naccuracy {right:.2%} .*568 rows", done.out, re.MULTILINE)


def test_a_run_that_was_copied_away_answers_as_the_training_script_did(run, trained, tmp_path):
    """The test rows are drawn again, and given in a file of their own."""
    shutil.copytree(trained[0] / "runs" / "tabular", tmp_path / "copied")
    rows = {"x": breast_cancer(), "price": pd.read_csv(trained[0] / "own.csv")}
    for name, target in {"x": "diagnosis", "price": "price"}.items():
        classes = rows[name][target] if name == "x" else None
        _, test = train_test_split(rows[name], test_size=0.33, random_state=0, stratify=classes)
        test.to_csv(tmp_path / f"{name}.csv", index=False)
        results = results_of(tmp_path / "copied" / name)
        done = run(f"predict.py copied/{name} {name}.csv --out {name}-answers.csv", tmp_path)
        assert (done.code, done.err) == (0, "")
        found = pd.read_csv(tmp_path / f"{name}-answers.csv")
        if name == "x":
            accuracy = (found["class"].to_numpy() == test["diagnosis"].to_numpy()).mean()
            assert accuracy == results["accuracy"]["this model"]
            assert f"accuracy {accuracy:.2%} on 188 rows" in done.out
            run("predict.py copied/x x.csv --top 2 --out x.npy", tmp_path)
            np.testing.assert_allclose(np.load(tmp_path / "x.npy")[:, 1], found["probability of malignant"], rtol=1e-12)
        else:
            error = found["price"].to_numpy() - test["price"].to_numpy()
            assert np.abs(error).mean() == pytest.approx(results["errors"]["this model"]["MAE"], rel=1e-5)
        done = run(f"predict_tabular.py copied/{name} --csv {name}.csv --out alias.csv", tmp_path)
        alias = pd.read_csv(tmp_path / "alias.csv")
        assert (alias[target] == found[found.columns[0]]).all()


def test_rows_without_the_target_are_predicted_and_shown(run, trained, tmp_path):
    path = trained[0] / "runs" / "tabular" / "price"
    new = table(6, seed=3)
    new.drop(columns="price").assign(kind=["violet", *new["kind"][1:]]).to_csv(tmp_path / "new.csv", index=False)
    done = run(f"predict_tabular.py {path} --csv new.csv", tmp_path)
    assert (done.code, done.err) == (0, "")
    said = done.out.splitlines()
    assert said[0].endswith("no category: 'kind' 1")
    assert "no target" in said[-1]
    shown = np.array([float(value) for value in said[-7:-1]])
    assert np.abs(shown - new["price"])[1:].max() < 6
    new.assign(size=new["size"].where(new.index > 0)).to_csv(tmp_path / "new.csv", index=False)
    done = run(f"predict_tabular.py {path} --csv new.csv --missing fill --out p.csv", tmp_path)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("missing values, filled: 'size' 1\n")
    error = pd.read_csv(tmp_path / "p.csv")["price"] - new["price"]
    rmse, mae = np.sqrt((error**2).mean()), error.abs().mean()
    assert done.out.endswith(f"RMSE {rmse:.4g}, MAE {mae:.4g} on 6 rows with a target\n")


def test_a_file_of_the_one_column_that_is_known_is_predicted(run, tmp_path):
    pd.DataFrame({"rooms": range(40), "price": range(0, 80, 2)}).to_csv(tmp_path / "own.csv", index=False)
    done = run("train_tabular.py --csv own.csv --target price --epochs 1 --name x", tmp_path)
    assert (done.code, done.err) == (0, "")
    pd.DataFrame({"rooms": [1, 2, 3]}).to_csv(tmp_path / "new.csv", index=False)
    done = run("predict_tabular.py runs/tabular/x --csv new.csv --out p.csv", tmp_path)
    assert (done.code, done.err) == (0, "")
    assert len(pd.read_csv(tmp_path / "p.csv")) == 3


# the lectures' scripts


def moore(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Write a file of processors that hardly stray from a law of their own; return the years and the logarithms."""
    (folder / "csv").mkdir()
    years = np.arange(1971, 2019).repeat(20)
    counts = np.exp(7 + 0.34 * (years - 1971) + np.random.default_rng(0).normal(0, 0.02, len(years))).round()
    pd.DataFrame({"y": years, "c": counts}).to_csv(folder / "csv" / "moore.csv", index=False, header=False)
    return years, np.log(counts)


def test_moores_slope_is_the_closed_form(run, tmp_path):
    from scipy.stats import linregress

    years, logarithms = moore(tmp_path)
    command = "train_moore.py --data-root . --batch-size 96 --epochs 24 --later-epoch 20 --evaluate-every 24 --name x"
    done = run(command, tmp_path)
    assert (done.code, done.err) == (0, "")
    assert "FALLBACK" not in done.out
    path = tmp_path / "runs" / "moore" / "x"
    results, theirs = results_of(path), linregress(years, logarithms)
    assert results["slope by least squares"] == pytest.approx(theirs.slope, rel=1e-6)
    assert abs(results["slope by training"] - theirs.slope) < 1e-3
    assert results["slope by training"] == pytest.approx(line(path)[0].item(), rel=1e-6)
    assert results["standard error of the slope"] == pytest.approx(theirs.stderr, rel=1e-6)
    assert results["years to double, by least squares"] == pytest.approx(math.log(2) / theirs.slope, rel=1e-6)
    assert results["R2"] == pytest.approx(theirs.rvalue**2, rel=1e-6)
    # by simulation: slopes that are as uncertain give years that are as uncertain
    slopes = np.random.default_rng(1).normal(theirs.slope, theirs.stderr, 20_000)
    assert results["standard error of the years"] == pytest.approx(np.std(math.log(2) / slopes), rel=0.05)
    assert is_drawn(path / "plots" / "moore.png")
    assert is_drawn(path / "plots" / "history.png")
    # in the raw unit, where the predictions for years of the training are the trained line
    pd.DataFrame({"year": [1971, 2030]}).to_csv(tmp_path / "years.csv", index=False)
    done = run("predict.py runs/moore/x years.csv --out counts.csv", tmp_path)
    assert (done.code, done.err) == (0, "")
    found = np.log(pd.read_csv(tmp_path / "counts.csv")["transistors"])
    assert found[0] == pytest.approx(7, abs=0.5)
    assert (found[1] - found[0]) / 59 == pytest.approx(results["slope by training"], rel=1e-5)
    # the rate falls where it is told to
    metrics = pd.read_csv(path / "metrics.csv").set_index("epoch")["charts/learning_rate"]
    assert metrics[[19, 21]].tolist() == pytest.approx([1e-3, 1e-4])


def test_without_the_courses_file_a_warning_names_the_fallback_data(run, tmp_path):
    (tmp_path / "csv").write_text("")  # where the file would go, so that it cannot be downloaded either
    done = run("train_moore.py --data-root . --epochs 1 --name x", tmp_path)
    assert (done.code, done.err) == (0, "")
    assert "FALLBACK DATA" in done.out
    assert re.search("^moore was not found.*24 processors", done.out, re.MULTILINE | re.DOTALL)
    assert json.loads((tmp_path / "runs" / "moore" / "x" / "config.json").read_text())["data"]["stand_in"] is True


def test_a_surface_is_learnt_and_goes_on_with_sines_alone(run, tmp_path):
    outside = {}
    for activation, epochs in {"relu": 20, "sine": 24}.items():
        options = f"--activation {activation} --epochs {epochs} --evaluate-every 99 --points 600 --name {activation}"
        done = run(f"train_surface.py {options}", tmp_path)
        assert (done.code, done.err) == (0, "")
        path = tmp_path / "runs" / "surface" / activation
        results = results_of(path)
        assert results["RMSE inside"] < {"relu": 0.8, "sine": 0.1}[activation]  # always 0: 1
        outside[activation] = results["RMSE outside"] / results["RMSE outside of always 0"]
        for name in ("surface", "extrapolation", "history"):
            assert is_drawn(path / "plots" / f"{name}.png")
        # by another way
        line = np.linspace(-5, 5, 50)
        x = np.array([(x1, x2) for x1 in line for x2 in line])
        with torch.no_grad():
            found = torchdl.load(path)(torch.tensor(x, dtype=torch.float32))[:, 0].double().numpy()
        error = found - (np.cos(2 * x[:, 0]) + np.cos(3 * x[:, 1]))
        near = np.abs(x).max(1) <= 3
        assert results["RMSE inside"] == pytest.approx(np.sqrt((error[near] ** 2).mean()), rel=1e-3)
        assert results["RMSE outside"] == pytest.approx(np.sqrt((error[~near] ** 2).mean()), rel=1e-3)
        answers = torchdl.load_predictor(path, "cpu").predict(pd.DataFrame(x, columns=["x1", "x2"]))
        np.testing.assert_allclose(answers.numbers, found, rtol=1e-4, atol=1e-5)
    assert outside["sine"] < 0.5 < 1 < outside["relu"]


# looking at a table


def test_a_table_is_described_and_drawn(run, tmp_path):
    rows = table(60).assign(note=[f"n{i}" for i in range(60)], same=1, none=None, big=[math.inf, *range(59)])
    rows.to_csv(tmp_path / "own.csv", index=False)
    done = run("explore.py own.csv --out pictures", tmp_path)
    assert (done.code, done.err) == (0, "")
    assert "60 rows, 7 columns" in done.out
    assert "missing: none 60\n" in done.out
    assert re.search(r"^not fit for training as it is: .*'big' .*'inf' in row 2", done.out, re.MULTILINE)
    assert re.search(r"^not drawn \(.*\): note, none$", done.out, re.MULTILINE)
    assert "scatter matrix of size, price, big: pictures/scatter_matrix.png" in done.out
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == ["histograms.png", "scatter_matrix.png"]
    for path in (tmp_path / "pictures").iterdir():
        assert is_drawn(path)
    done = run("explore.py own.csv --limit 2 --columns big price --out few", tmp_path)
    assert (done.code, done.err) == (0, "")
    assert "beyond --limit 2): price, note, same, none, big" in done.out
    assert "scatter matrix of big, price: few/scatter_matrix.png" in done.out
