"""Memory of sequences: parts in closed form, training, and the scripts from end to end."""

from __future__ import annotations

import json
import re
import shutil
from functools import partial

import numpy as np
import pytest
import torch
from helpers.figures import is_drawn
from helpers.scripts import files
from torch import nn

import torchdl
from torchdl import InputError, SequenceModel, Trainer
from torchdl.data.synthetic import odd_negatives
from torchdl.plots import plot_measured
from torchdl.recipes.learning import Learning
from torchdl.recipes.sequence_memory import (
    Result,
    absolute_error,
    adding_predictor,
    adding_report,
    adding_training,
    distance_report,
    table,
    tell_apart,
)
from torchdl.tasks import binary_accuracy

FAR = "long_distance.py --sequences 60 --epochs 1 --hidden 3"
ADD = "adding_problem.py --sequences 120 --terms 6 --hidden 4 --device cpu --threads 1"
DEFAULTS = partial(Learning, lr=0.05, schedule="one_cycle")


# the parts


def test_a_logit_is_correct_if_its_sign_agrees_with_the_label():
    logits, labels = torch.tensor([[2.0], [-0.1], [0.3], [-5.0]]), torch.tensor([[1.0], [1.0], [0.0], [0.0]])
    assert binary_accuracy(logits, labels).tolist() == [1, 0, 0, 1]


def test_there_is_one_absolute_error_per_example():
    error = absolute_error(torch.tensor([[1.0], [-2.0]]), torch.tensor([[0.5], [1.0]]))
    assert error.tolist() == [0.5, 3]


class Known(nn.Module):
    """Predict the correct label in training and the wrong one in evaluation, and record all inputs."""

    def __init__(self, places: tuple[int, ...]) -> None:
        super().__init__()
        self.factor, self.places, self.seen = nn.Parameter(torch.tensor(1.0)), places, {True: [], False: []}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen[self.training].append(x.detach().clone())
        sign = 1 if self.training else -1
        return sign * self.factor * (2 * odd_negatives(x[:, :, 0], self.places).float()[:, None] - 1)


@pytest.mark.parametrize(("distance", "places"), [("short", (-3, -2, -1)), ("long", (0, 1, 2))])
def test_one_half_of_the_sequences_is_for_training_and_the_other_for_testing(quick, distance, places):
    model = Known(places)
    trainer = Trainer(2, seed=3, device="cpu", evaluate_every=10**6)
    result, predictor = tell_apart(lambda: model, 6, distance, 100, DEFAULTS(16), trainer)
    assert result == Result(100, 0)
    x, _ = torchdl.long_distance(100, 6, distance, seed=3)[:]
    train, test = torch.cat(model.seen[True]), torch.cat(model.seen[False][1:])  # the first is a trial batch
    assert torch.equal(train[:50].unique(dim=0), x[:50].unique(dim=0))
    assert torch.equal(train[50:].unique(dim=0), x[:50].unique(dim=0))
    assert torch.equal(test, x[50:])
    labels = torchdl.long_distance(100, 6, distance, seed=3).targets[50:, 0]
    assert predictor.predict(x[50:]).labels == ["even" if label else "odd" for label in labels]  # all are wrong


def test_a_network_that_reads_other_terms_is_at_chance(quick):
    trainer = Trainer(1, device="cpu", evaluate_every=10**6)
    wrong, _ = tell_apart(lambda: Known((3, 4, 5)), 6, "long", 4000, DEFAULTS(500), trainer)
    assert all(abs(accuracy - 50) < 4 * 100 * 0.5 / 2000**0.5 for accuracy in wrong)


def test_the_seed_decides_the_weights_and_the_result(quick):
    found, weights = [], []

    def build() -> SequenceModel:
        model = SequenceModel("rnn", hidden=4)
        weights.append(model.core.weight_ih_l0.detach().clone())
        return model

    for seed in (1, 1, 2):
        torch.rand(3)  # earlier draws must not matter
        found.append(tell_apart(build, 5, "short", 200, DEFAULTS(20), Trainer(2, seed=seed, device="cpu"))[0])
    assert found[0] == found[1] != found[2]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(
    ("kind", "pooling", "distance", "least"),
    [
        pytest.param("lstm", "max", "long", 90, marks=pytest.mark.slow),
        ("rnn", "last", "short", 90),
        ("linear", "last", "short", 0),
    ],
)
def test_recurrent_networks_learn_and_a_linear_model_stays_at_chance(quick, kind, pooling, distance, least):
    build = partial(SequenceModel, kind, length=4, hidden=12, pooling=pooling)
    trainer = Trainer(25, device="cpu", clip_norm=1.0, evaluate_every=10**6)
    result, predictor = tell_apart(build, 4, distance, 2000, DEFAULTS(50, lr=0.03), trainer)
    x, labels = torchdl.long_distance(2000, 4, distance)[1000:]
    right = [["even", "odd"][int(label)] for label in labels[:, 0]]  # the recipe's own accuracy, by the predictor
    assert result.held_out == pytest.approx(np.mean(np.array(predictor.predict(x).labels) == right) * 100)
    assert result.held_out > least
    assert kind != "linear" or abs(result.held_out - 50) < 8


def test_each_half_needs_a_sequence():
    with pytest.raises(InputError, match="not 1"):
        tell_apart(SequenceModel, 5, "long", 1, DEFAULTS(), Trainer())


FOUND = {
    "long": {
        "rnn": {10: [Result(99.9, 90.0), Result(99.0, 94.0)], 30: [Result(51.0, 50.0), Result(49.0, 50.5)]},
        "lstm_max": {10: [Result(100.0, 99.5)] * 2, 30: [Result(100.0, 99.25)] * 2},
    }
}


def test_the_table_has_means_and_ranges_of_the_test_accuracies():
    head, *rows = table(FOUND).splitlines()
    assert head.split() == ["long", "distance", "T", "=", "10", "T", "=", "30"]
    assert " ".join(rows[0].split()) == "rnn 92.00 (90.00 to 94.00) 50.25 (50.00 to 50.50)"
    assert " ".join(rows[1].split()) == "lstm_max 99.50 (99.50 to 99.50) 99.25 (99.25 to 99.25)"
    assert len({len(line) for line in (head, *rows)}) == 1
    one_seed = {"long": {"rnn": {10: [Result(99.9, 90.0)]}}}
    assert table(one_seed).splitlines()[1].split() == ["rnn", "90.00"]


def test_the_report_has_all_results_and_a_figure_with_chance(tmp_path, figures):
    report = distance_report(FOUND, {"hidden": 3})
    assert table(FOUND) in report.summary
    report.save(tmp_path / "new", "accuracy.json", plots="")
    written = json.loads((tmp_path / "new" / "accuracy.json").read_text())
    assert (written["settings"], written["chance"]) == ({"hidden": 3}, 50)
    assert written["accuracy"]["long"]["rnn"]["10"] == {"train": [99.9, 99.0], "held_out": [90.0, 94.0]}
    assert is_drawn(tmp_path / "new" / "accuracy.png")
    (axis,) = figures[0].axes
    assert axis.get_title() == "long distance"
    lines = {line.get_label(): line.get_ydata() for line in axis.lines}
    assert list(lines["chance"]) == [50, 50]
    drawn = {container.get_label(): list(container.lines[0].get_ydata()) for container in axis.containers}
    assert drawn == {"rnn": [92, 50.25], "lstm_max": [99.5, 99.25]}  # means of the test accuracies


@pytest.mark.parametrize("log_y", [False, True])
def test_lines_go_through_means_with_bars_over_the_range(tmp_path, figures, log_y):
    panels = {"a": {"x": {1: [1.0, 4.0], 5: [2.0]}, "y": {1: [3.0], 5: [3.0]}}, "b": {"x": {2: [1.0]}}}
    plot_measured(panels, "time", "error", {"chance": 0.5}, log_y=log_y, path=tmp_path / "new" / "p.png")
    assert is_drawn(tmp_path / "new" / "p.png")
    first, second = figures[0].axes
    assert (first.get_title(), second.get_title()) == ("a", "b")
    assert (first.get_xlabel(), first.get_ylabel()) == ("time", "error")
    assert first.get_yscale() == ("log" if log_y else "linear")
    x, y = first.containers
    left, right = -4 / 70 / 2, 4 / 70 / 2  # two lines are a seventieth of the axis apart
    np.testing.assert_allclose(x.lines[0].get_xydata(), [[1 + left, 2.5], [5 + left, 2]])
    bars = [[[1 + left, 1], [1 + left, 4]], [[5 + left, 2], [5 + left, 2]]]
    np.testing.assert_allclose(x.lines[2][0].get_segments(), bars)
    np.testing.assert_allclose(y.lines[0].get_xydata(), [[1 + right, 3], [5 + right, 3]])
    assert list(first.get_xticks()) == [1, 5]
    assert {text.get_text() for text in figures[0].legends[0].get_texts()} == {"x", "y", "chance"}
    for axis in (first, second):
        (chance,) = [line for line in axis.lines if line.get_label() == "chance"]
        assert list(chance.get_ydata()) == [0.5, 0.5]


@pytest.mark.parametrize(
    ("settings", "message"), [({"batch_size": 0}, "batch_size.* 0"), ({"schedule": "falling"}, "falling.*cosine")]
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        Learning(**settings)


def test_adding_is_reported_from_the_history(quick, capsys):
    train, test = torchdl.AddingProblem(40, 6, -1.0, 0), torchdl.AddingProblem(10, 6, -1.0, 1)
    torch.manual_seed(0)
    model = SequenceModel("rnn", 2, 1, hidden=4)
    history = Trainer(2, device="cpu").fit(*adding_training(model, train, test, Learning(batch_size=20)))
    report = adding_report(adding_predictor(model, "cpu"), test, history)
    x, target = test[:]
    with torch.no_grad():
        errors = model.eval()(x) - target
    assert report.results["mse"] == pytest.approx(errors.square().mean().item(), rel=1e-5)
    assert report.results["mean absolute error"] == pytest.approx(errors.abs().mean().item(), rel=1e-5)
    assert report.results["mse of always saying the mean"] == pytest.approx(2 / 3)
    assert report.results["mse by step"] == {2: history[0]["val/loss"], 4: history[1]["val/loss"]}
    assert report.results["mse"] == pytest.approx(history[1]["val/loss"], rel=1e-6)
    assert f"{report.results['mse']:.5f} on 10 sums" in report.summary
    assert list(report.figures) == ["mse"]
    assert not capsys.readouterr().out


# the script of the table


@pytest.mark.slow
def test_the_table_is_complete_on_the_console_in_json_and_as_a_figure(run, tmp_path):
    done = run(f"{FAR} --terms 4 --seeds 0 1 --distances short spread --networks gru_max", tmp_path)
    assert (done.code, done.err) == (0, "")
    folder = tmp_path / "runs" / "long_distance"
    own = {f"runs/long_distance/accuracy.{kind}" for kind in ("json", "png")}
    networks = {f"{distance}-gru_max-4-{seed}" for distance in ("short", "spread") for seed in (0, 1)}
    parts = ("architecture.json", "preprocessing.json", "weights.safetensors")
    assert set(files(tmp_path)) == own | {f"runs/long_distance/networks/{n}/{part}" for n in networks for part in parts}
    assert torchdl.load_predictor(folder / "networks" / "short-gru_max-4-0").predict(torch.zeros(4, 1)).classes
    assert is_drawn(folder / "accuracy.png")
    written = json.loads((folder / "accuracy.json").read_text())
    assert written["settings"]["hidden"] == 3
    assert list(written["accuracy"]) == ["short", "spread"]
    for distance, networks in written["accuracy"].items():
        assert list(networks) == ["gru_max"]
        for name, measured in networks.items():
            assert list(measured) == ["4"]
            for terms, parts in measured.items():
                assert [len(accuracies) for accuracies in parts.values()] == [2, 2]
                for seed, accuracy in enumerate(parts["held_out"]):
                    line = rf"^{distance}.*T = {terms}.*seed {seed}.*{name}.* {accuracy:.2f}\b"
                    assert re.search(line, done.out, re.MULTILINE)
            row = "".join(rf" +{np.mean(parts['held_out']):.2f} \(\S+ to \S+\)" for parts in measured.values())
            assert re.search(rf"^{name}{row}$", done.out, re.MULTILINE)


@pytest.mark.slow
def test_a_quick_run_omits_slow_networks(run, tmp_path):
    done = run(f"{FAR} --quick --networks linear rnn gru gru_max lstm_max --seeds 5 6 --out shown", tmp_path)
    assert (done.code, done.err) == (0, "")
    written = json.loads((tmp_path / "shown" / "accuracy.json").read_text())["accuracy"]
    assert list(written) == ["long"]
    assert list(written["long"]) == ["linear", "rnn", "lstm_max"]
    assert list(written["long"]["rnn"]) == ["10", "20"]
    assert "seed 5" in done.out
    assert "seed 6" not in done.out


MISTAKES = {
    f"{FAR} --terms 10 2": "terms.* 3.* 2",
    f"{FAR} --seeds 1 1": r"--seeds.*\[1, 1\]",
    f"{FAR} --networks gru --quick": r"--networks.*\[\]",
    f"{FAR} --hidden 0": "hidden.* 0",
    f"{FAR} --sequences 1": "2.* 1",
    f"{FAR} --lr 0": "learning rate.* 0",
    f"{FAR} --threads -1": "threads.* -1",
    f"{ADD} --terms 1": "terms.* 2.* 1",
    f"{ADD} --low 2": "low.* 2.0",
    f"{ADD} --sequences 0": "1.* 0",
    f"{ADD} --hidden 0": "hidden.* 0",
    f"{ADD} --lr -1": "learning rate.* -1",
}


@pytest.mark.slow
@pytest.mark.parametrize("command", MISTAKES)
def test_a_mistake_is_an_error_of_one_line_and_leaves_nothing(run, tmp_path, command):
    done = run(command, tmp_path)
    assert done.code == 2, done.out + done.err
    assert re.fullmatch(rf"{command.split()[0]}: .*{MISTAKES[command]}.*\n", done.err), done.err
    assert not list(tmp_path.iterdir())


# the script of the adding problem


@pytest.fixture(scope="module")
def added(run, tmp_path_factory):
    """Train for four of six steps; return the folder and the script's output."""
    folder = tmp_path_factory.mktemp("added")
    done = run(f"{ADD} --batch-size 40 --epochs 2 --schedule constant --max-steps 4 --name x", folder)
    assert (done.code, done.err) == (0, "")
    return folder, done


@pytest.mark.slow
def test_adding_leaves_results_and_figures(added):
    folder, done = added
    path = folder / "runs" / "adding" / "x"
    results = json.loads((path / "results.json").read_text())
    x, target = torchdl.AddingProblem(24, 6, 0.0, torchdl.random.key(0, 1))[:]
    with torch.no_grad():
        error = torchdl.load(path).eval()(x) - target
    assert results["mse"] == pytest.approx(error.square().mean().item(), rel=1e-5)
    assert results["mean absolute error"] == pytest.approx(error.abs().mean().item(), rel=1e-5)
    assert results["mse of always saying the mean"] == pytest.approx(1 / 6)
    assert (results["range"], results["terms"], results["sequences"]) == ([0, 1], 6, 24)
    assert list(results["mse by step"]) == ["3", "4"]
    assert results["mse by step"]["4"] == pytest.approx(results["mse"], rel=1e-6)
    x, target = torchdl.AddingProblem(24, 6, 0.0, torchdl.random.key(0, 1))[:]
    found = torchdl.load_predictor(path, "cpu").predict(x).numbers
    assert results["mean absolute error"] == pytest.approx(float((found - target[:, 0]).abs().mean()), rel=1e-6)
    assert f"MSE {results['mse']:.5f} on 24 sums" in done.out
    for name in ("history", "mse"):
        assert is_drawn(path / "plots" / f"{name}.png")


@pytest.mark.slow
def test_a_resumed_run_equals_an_uninterrupted_one(run, added, tmp_path):
    shutil.copytree(added[0], tmp_path, dirs_exist_ok=True)
    options = "--batch-size 40 --epochs 2 --schedule constant --max-steps 9"
    whole = run(f"{ADD} {options} --name whole", tmp_path)
    resumed = run("adding_problem.py --resume runs/adding/x --max-steps 9", tmp_path)
    assert (whole.code, whole.err) == (resumed.code, resumed.err) == (0, "")
    one, other = (torchdl.load(tmp_path / "runs" / "adding" / name).state_dict() for name in ("x", "whole"))
    assert all(torch.equal(tensor, other[key]) for key, tensor in one.items())
    changed = run("adding_problem.py --resume runs/adding/x --max-steps 12 --low -1", tmp_path)
    assert changed.code == 2
    assert "other data" in changed.err


@pytest.mark.slow
def test_short_sums_are_learnt_in_both_ranges_and_a_dry_run_leaves_nothing(run, tmp_path):
    options = "--terms 6 --sequences 1000 --epochs 8 --hidden 8 --device cpu --threads 1 --low -1 --name x"
    done = run(f"adding_problem.py {options}", tmp_path)
    assert done.code == 0, done.err
    results = json.loads((tmp_path / "runs" / "adding" / "x" / "results.json").read_text())
    assert results["mse of always saying the mean"] == pytest.approx(2 / 3)
    assert results["mse"] < 0.1
    shutil.rmtree(tmp_path / "runs")
    done = run(f"{ADD} --dry-run", tmp_path)
    assert (done.code, done.err) == (0, "")
    assert not list(tmp_path.iterdir())
