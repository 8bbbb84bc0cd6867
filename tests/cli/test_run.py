from __future__ import annotations

import json
import signal
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import gaussian, resuming
from helpers.resuming import PowerCut
from helpers.scripts import files, same_weights
from torch import nn
from torch.utils.data import ConcatDataset, Subset

import torchdl
from torchdl import MLP, ArrayDataset, BatchLoader, InputError, Stopped, Supervised, Trainer, artifacts, random
from torchdl.cli.finished_runs import data_root_of, dataset_of
from torchdl.cli.main import run_script
from torchdl.cli.options import SCRIPT_OPTIONS, RunOptions, resume_command
from torchdl.cli.parsing import parse
from torchdl.cli.run import Run, keep_report, rename_metrics
from torchdl.files import BEST, CHECKPOINT, CONFIG, PREVIOUS, WEIGHTS
from torchdl.predict import ImageGenerator, load_predictor
from torchdl.recipes.report import Report
from torchdl.training import checkpoint


def test_a_checkpoint_from_before_gets_the_metrics_new_names(tmp_path):
    rows = [
        {"epoch": 1, "train/loss": 1.0, "val/saturation": 0.1},
        {"epoch": 2, "val/frechet_distance": 3.0, "val/coverage": 0.5, "val/share_class_7": 0.2, "val/loss": 0.3},
    ]
    state = {"order": {"monitor": "val/frechet_distance"}, "progress": {"history": rows}}
    checkpoint.write(state, tmp_path / CHECKPOINT)
    (tmp_path / PREVIOUS).write_bytes(b"damaged")
    for _ in range(2):  # the second time there is nothing to rename
        rename_metrics(tmp_path)
        found = checkpoint.read(tmp_path / CHECKPOINT)
        assert found["order"] == {"monitor": "samples/frechet_distance"}
        first, second = found["progress"]["history"]
        assert first == rows[0]
        assert list(second.items()) == [
            ("epoch", 2),
            ("samples/frechet_distance", 3.0),
            ("samples/coverage", 0.5),
            ("samples/share_class_7", 0.2),
            ("val/loss", 0.3),
        ]
    assert (tmp_path / PREVIOUS).read_bytes() == b"damaged"


@pytest.mark.parametrize("state", [{}, {"order": {}, "progress": {}}, {"order": {"monitor": None}}])
def test_a_strangers_checkpoint_without_these_names_stays_as_it_is(tmp_path, state):
    checkpoint.write(state, tmp_path / CHECKPOINT)
    before = (tmp_path / CHECKPOINT).read_bytes()
    rename_metrics(tmp_path)
    assert (tmp_path / CHECKPOINT).read_bytes() == before


# a run's folder

DATA = ArrayDataset(gaussian(12, 2), gaussian(12, 1))


def opened(folder: Path, name: str = "", resume: bool = False, **options) -> Run:
    place = {"resume": folder / "x" / name} if resume else {"out": folder, "name": name}
    trainer = Trainer(**{"epochs": 2, "device": "cpu", "monitor": "train/loss", **options})
    return Run("x", {"lr": np.float32(0.5)}, RunOptions(**place), trainer, DATA, verbose=False)


def trained(run: Run) -> list[dict[str, float]]:
    torch.manual_seed(0)
    task = Supervised(MLP(2, 1, (3,)), nn.functional.mse_loss)
    return run.fit(task, BatchLoader(DATA, 4, shuffle=True), pictures={"grey": torch.zeros(1, 4, 4, dtype=torch.uint8)})


def test_a_summary_is_printed_before_training_and_changes_nothing(tmp_path, undrawn, capsys):
    plain = trained(opened(tmp_path, "plain"))
    options = RunOptions(out=tmp_path, name="summary", logger="none", summary=True)
    told = trained(Run("x", {}, options, Trainer(epochs=2, device="cpu", monitor="train/loss"), DATA))
    assert [row["train/loss"] for row in told] == [row["train/loss"] for row in plain]
    lines = capsys.readouterr().out.splitlines()
    shown = next(place for place, line in enumerate(lines) if line.startswith("model.layers.0 "))
    assert lines[shown].split() == ["model.layers.0", "Linear", "(1,", "3)", "9"]
    assert shown < next(place for place, line in enumerate(lines) if line.startswith("epoch "))


@contextmanager
def failing(monkeypatch, owner: object, name: str, error: BaseException, at: int = 1):
    """Let the call number ``at`` raise an error; after a power cut, all later ones, too."""
    original, calls = getattr(owner, name), []

    def fail(*args, **options):
        calls.append(1)
        if len(calls) == at or (len(calls) > at and isinstance(error, PowerCut)):
            raise error
        return original(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fail)
        with pytest.raises(type(error)):
            yield


def test_the_predictor_of_another_model_is_refused_and_that_of_a_gans_copy_is_saved(tmp_path, undrawn):
    task, other = (torchdl.GANTask(torchdl.simple_gan((1, 2, 2), 2), average=average) for average in (0.5, 0.0))
    train = BatchLoader(torch.zeros(8, 1, 2, 2), 4)
    run = opened(tmp_path, "x", epochs=3, monitor="train/generator_loss")
    with pytest.raises(InputError, match="another model"):
        run.fit(task, train, predictor=ImageGenerator.of(other.trained, "cpu"))
    generator = ImageGenerator.of(task.trained, "cpu")
    run.fit(task, train, predictor=generator)
    assert torch.equal(load_predictor(run.folder, "cpu").predict(3), generator.predict(3))
    assert torch.equal(generator.predict(3), ImageGenerator.of(task.trained, "cpu").predict(3))


def test_a_model_that_cannot_be_saved_is_named_before_training(tmp_path):
    model = MLP(2, 1, (3,))
    model.layers[1] = nn.Tanh()
    with pytest.raises(InputError, match="would build another model"):
        opened(tmp_path, "a").fit(Supervised(model, nn.functional.mse_loss), BatchLoader(DATA, 4))
    assert not list(tmp_path.rglob("*.pt"))


@pytest.mark.usefixtures("quick", "undrawn")
class TestFolder:
    @pytest.mark.parametrize("task", [None, {}, {"model.layers.0.weight": torch.zeros(9, 9)}, {"model": "x"}])
    def test_a_strangers_best_checkpoint_is_named(self, tmp_path, task):
        trained(opened(tmp_path, "a"))
        path = tmp_path / "x" / "a" / BEST
        state = {**checkpoint.read(path), "task": task}
        checkpoint.write(state if task is not None else {"progress": state["progress"]}, path)
        with pytest.raises(InputError, match=r"best\.pt holds the checkpoint of another model") as caught:
            trained(opened(tmp_path, "a", resume=True))
        assert "\n" not in str(caught.value)

    def test_a_run_that_was_killed_before_its_first_checkpoint_begins_again(self, tmp_path, monkeypatch):
        expected = trained(opened(tmp_path, "a"))
        for resume in (False, True):
            name = f"b{resume}"
            with failing(monkeypatch, checkpoint, "write", PowerCut(), at=1 + resume):  # at the best one, or the last
                trained(opened(tmp_path, name))
            folder = tmp_path / "x" / name
            (folder / ".0123.tmp").touch()
            assert not (folder / CHECKPOINT).exists()
            assert trained(opened(tmp_path, name, resume)) == expected
            assert same_weights(folder, tmp_path / "x" / "a")
            assert not list(folder.glob(".*.tmp"))
            assert len(list(folder.glob("events.*"))) == 2  # of the picture and of the training, none of before

    def test_a_folder_of_somebody_else_is_not_taken(self, tmp_path):
        folder = tmp_path / "x" / "a"
        folder.mkdir(parents=True)
        (folder / CONFIG).write_text("{}")
        (folder / "thesis.txt").write_text("mine")
        with pytest.raises(InputError, match=r"exists already: choose another name or folder$"):
            opened(tmp_path, "a")
        assert sorted(path.name for path in folder.iterdir()) == [CONFIG, "thesis.txt"]
        folder.joinpath(CONFIG).unlink()
        with pytest.raises(InputError, match="exists already"):
            opened(tmp_path, "a")

    def test_the_advice_for_a_taken_folder_can_be_followed(self, tmp_path):
        trained(opened(tmp_path, "a"))
        token = SCRIPT_OPTIONS.set(frozenset({"--resume", "--name"}))
        try:
            with pytest.raises(InputError, match=r"choose another --name, or go on with --resume .*a$"):
                opened(tmp_path, "a")
        finally:
            SCRIPT_OPTIONS.reset(token)
        with pytest.raises(InputError, match=r"choose another name or folder$"):  # no option of a user's own program
            opened(tmp_path, "a")

    def test_two_runs_of_the_same_second_have_folders_of_their_own(self, tmp_path, monkeypatch):
        runs = [opened(tmp_path) for _ in range(3)]
        for run in runs:
            run.folder = tmp_path / "x" / "2026-01-01-000000"
            trained(run)
        names = ["2026-01-01-000000", "2026-01-01-000000-2", "2026-01-01-000000-3"]
        assert [run.folder.name for run in runs] == names
        assert sorted(path.name for path in (tmp_path / "x").iterdir()) == names

    def test_of_two_runs_with_one_name_at_once_one_is_refused(self, tmp_path):
        runs = [opened(tmp_path, "a") for _ in range(2)]  # neither folder exists yet
        ready, ends, errors = threading.Barrier(2), threading.Event(), []

        def train(run: Run) -> None:
            ready.wait()
            try:
                with run.opened():
                    ends.wait(timeout=10)
            except InputError as error:
                errors.append(str(error))
                ends.set()

        threads = [threading.Thread(target=train, args=(run,)) for run in runs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(errors) == 1
        assert "another training is running in" in errors[0]
        trained(opened(tmp_path, "a"))
        with pytest.raises(InputError, match="exists already"):
            trained(runs[0])  # it was opened before the other one trained
        assert (tmp_path / "x" / "a" / CHECKPOINT).exists()

    @pytest.mark.parametrize("at", [1, 2, 3])
    def test_a_resume_writes_weights_that_agree_with_the_checkpoint(self, tmp_path, monkeypatch, at):
        trained(opened(tmp_path, "a"))
        with failing(monkeypatch, artifacts, "save", PowerCut(), at):
            trained(opened(tmp_path, "b"))
        trained(opened(tmp_path, "b", resume=True))
        assert same_weights(tmp_path / "x" / "a", tmp_path / "x" / "b")
        assert not resuming.differences(*(checkpoint.read(tmp_path / "x" / name / BEST) for name in "ab"))
        (tmp_path / "x" / "b" / WEIGHTS).write_bytes(b"older")
        trained(opened(tmp_path, "b", resume=True))  # there is nothing to train
        assert same_weights(tmp_path / "x" / "a", tmp_path / "x" / "b")

    def test_a_linked_folder_is_refused_before_anything_is_written(self, tmp_path):
        trained(opened(tmp_path, "a"))
        folder, elsewhere = tmp_path / "x" / "a", tmp_path / "elsewhere"
        (folder / "plots").rename(elsewhere)
        (folder / "plots").symlink_to(elsewhere)
        before = files(tmp_path)
        with pytest.raises(InputError, match="plots is a link"):
            opened(tmp_path, "a", resume=True)
        with pytest.raises(InputError, match="plots is a link"):
            keep_report(Report({"accuracy": 1.0}), folder, verbose=False)
        assert files(tmp_path) == before

    def test_a_metric_without_a_value_is_said_to_have_chosen_nothing(self, tmp_path, capsys):
        task = Supervised(MLP(2, 1, (3,)), nn.functional.mse_loss, {"x": lambda o, t: o.sum(1) * torch.nan})
        run = opened(tmp_path, "a", monitor="val/x")
        run.verbose = True
        run.fit(task, BatchLoader(DATA, 4), BatchLoader(DATA, 4))
        assert "the saved model is the last one, because val/x has had no value" in capsys.readouterr().out


# what a run has found


@dataclass(frozen=True)
class Config:
    """Options."""

    table: Path | None = None
    """A file."""
    dataset: str = "mnist"
    """A data set."""
    run: RunOptions = field(default_factory=RunOptions)
    trainer: Trainer = field(default_factory=lambda: Trainer(device="cpu"))


def record(folder: Path, config: Config) -> Path:
    run = Run("x", config, config.run, config.trainer, DATA, verbose=False)
    run.folder.mkdir(parents=True)
    run.write_record()
    return run.folder.absolute()


@pytest.mark.parametrize("recorded", [True, False], ids=["now", "before"])
def test_relative_paths_are_those_of_the_folder_where_the_run_began(tmp_path, monkeypatch, recorded):
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    for folder in (home / "own", elsewhere):
        folder.mkdir(parents=True)
    (home / "table.csv").touch()
    monkeypatch.chdir(home)
    config = Config(Path("table.csv"), "own", RunOptions(data_root=Path("own"), out=Path("runs"), name="a"))
    folder = record(home, config)
    if not recorded:
        known = json.loads((folder / CONFIG).read_text())
        del known["working_folder"]
        (folder / CONFIG).write_text(json.dumps(known))
    found = parse(Config, ["--resume", "runs/x/a"])
    assert (found.table, found.dataset, found.run.out) == (Path("table.csv"), "own", Path("runs"))
    monkeypatch.chdir(elsewhere)
    found = parse(Config, ["--resume", "../home/runs/x/a"])
    assert (found.table, found.dataset) == (home / "table.csv", str(home / "own"))
    assert (found.run.out, found.run.data_root) == (home / "runs", home / "own")
    given = parse(Config, ["--resume", "../home/runs/x/a", "--table", "mine.csv"])
    assert given.table == Path("mine.csv")  # relative to where the command is given


def test_a_data_set_by_name_is_no_folder_and_a_path_that_is_gone_stays_as_it_was(tmp_path, monkeypatch):
    (tmp_path / "mnist").mkdir()
    monkeypatch.chdir(tmp_path)
    folder = record(tmp_path, Config(Path("gone.csv"), run=RunOptions(name="a")))
    monkeypatch.chdir(folder)
    found = parse(Config, ["--resume", str(folder)])
    assert (found.table, found.dataset) == (Path("gone.csv"), "mnist")


def test_the_data_root_that_a_run_has_found_is_used_again(tmp_path, monkeypatch):
    for name in ("first", "other"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("TORCHDL_DATA", str(tmp_path / "first"))
    folder = record(tmp_path, Config(run=RunOptions(out=tmp_path, name="a")))
    monkeypatch.setenv("TORCHDL_DATA", str(tmp_path / "other"))
    assert parse(Config, ["--resume", str(folder)]).run.data_root == tmp_path / "first"
    assert parse(Config, ["--resume", str(folder), "--data-root", "x"]).run.data_root == Path("x")


def test_scripts_for_finished_runs_find_the_data_from_elsewhere_too(tmp_path, monkeypatch):
    (tmp_path / "home" / "own").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "home")
    folder = record(tmp_path, Config(dataset="own", run=RunOptions(data_root=Path("own"), name="a")))
    assert (dataset_of(folder), data_root_of(folder)) == ("own", Path("own"))
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "home" / "own"
    assert (dataset_of(folder), data_root_of(folder)) == (str(own), own)
    own.rmdir()
    assert (dataset_of(folder), data_root_of(folder)) == ("own", None)


def test_a_dry_run_goes_on_with_no_run(tmp_path):
    with pytest.raises(InputError, match=r"a dry run keeps nothing, .* drop dry_run=True"):
        Run("x", {}, RunOptions(resume=tmp_path), Trainer(device="cpu", dry_run=True), DATA)


# how to go on


def interrupted(folder: Path, monkeypatch, capsys, config_class=Config, arguments=()) -> str:
    """Return what a script prints when it is stopped."""

    def loss(output, target):
        signal.raise_signal(signal.SIGTERM)
        return (output - target).square().mean()

    def main(config) -> None:
        run = Run("x", {}, RunOptions(out=folder, name=str(len(list(folder.glob("x/*"))))), Trainer(device="cpu"), DATA)
        if "--dry-run" in arguments:
            run = Run("x", {}, RunOptions(), Trainer(device="cpu", dry_run=True), DATA)
        run.fit(Supervised(MLP(2, 1, (3,)), loss), BatchLoader(DATA, 4))

    monkeypatch.setattr(sys, "argv", ["my.py"])
    with pytest.raises(SystemExit) as ended:
        run_script(main, config_class)
    assert ended.value.code == 128 + signal.SIGTERM
    return capsys.readouterr().err


@dataclass(frozen=True)
class Own:
    """A user's script without --resume."""

    depth: int = 2
    """Depth."""


def test_a_stopped_script_says_a_command_that_works(tmp_path, monkeypatch, capsys):
    said = interrupted(tmp_path, monkeypatch, capsys)
    assert said == f"my.py: stopped after step 1; go on with: python my.py --resume {tmp_path}/x/0\n"
    assert interrupted(tmp_path, monkeypatch, capsys, Own) == "my.py: stopped after step 1\n"
    assert interrupted(tmp_path, monkeypatch, capsys, arguments=["--dry-run"]) == "my.py: stopped after step 1\n"


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"WORLD_SIZE": "1"}, "python my.py --resume x"),
        ({"LOCAL_WORLD_SIZE": "2"}, "torchrun --nproc-per-node 2 my.py --resume x"),
        ({"LOCAL_WORLD_SIZE": "1"}, "the same launcher with 2 processes, and my.py --resume x"),
    ],
)
def test_the_command_to_go_on_starts_as_many_processes(monkeypatch, variables, expected):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "none", **variables}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["my.py"])
    token = SCRIPT_OPTIONS.set(frozenset({"--resume"}))
    try:
        assert resume_command(Path("x")) == expected
    finally:
        SCRIPT_OPTIONS.reset(token)


def test_a_program_of_a_users_own_gets_the_folder_and_no_command(tmp_path):
    def loss(output, target):
        signal.raise_signal(signal.SIGTERM)
        return (output - target).square().mean()

    with pytest.raises(Stopped, match=r"stopped after step 1$") as stopped:
        opened(tmp_path, "a", monitor="").fit(Supervised(MLP(2, 1, (3,)), loss), BatchLoader(DATA, 4))
    assert stopped.value.folder == tmp_path / "x" / "a"
    assert (stopped.value.folder / CHECKPOINT).exists()


def test_a_run_records_a_subset_by_its_data_and_the_choice_of_examples(tmp_path):
    def recorded(data) -> dict:
        name = f"{len(list(tmp_path.iterdir()))}"
        run = Run("x", {}, RunOptions(out=tmp_path, name=name), Trainer(device="cpu"), data, data, verbose=False)
        return run.record["data"]

    first, second = (recorded(Subset(DATA, rows)) for rows in ([1, 2, 3], [1, 2, 4]))
    assert first["origin"] == "3 examples of memory"
    assert first["fingerprint"] == first["held_out_fingerprint"] != second["fingerprint"]
    assert recorded(ConcatDataset([DATA, DATA]))["origin"] == "24 examples of memory"


def test_a_run_seeds_last_and_fit_leaves_the_generators_to_the_next_model(tmp_path, undrawn):
    class Drawing(ArrayDataset):
        def fingerprint(self) -> str:
            torch.rand(3)  # as a user's data may do while the run is created
            return super().fingerprint()

    data, trainer = Drawing(torch.ones(4, 2), torch.ones(4, 1)), Trainer(epochs=1, seed=3, device="cpu")
    run = Run("x", {}, RunOptions(out=tmp_path, name="a"), trainer, data, verbose=False)
    first = MLP(2, 1, dropout=0.5)
    begun = [parameter.detach().clone() for parameter in first.parameters()]
    run.fit(Supervised(first, nn.functional.mse_loss), BatchLoader(data, 2))
    begun += MLP(2, 1).parameters()
    with random.seeded(torch.device("cpu"), 3):
        expected = [*MLP(2, 1).parameters(), *MLP(2, 1).parameters()]
    assert all(torch.equal(*pair) for pair in zip(begun, expected, strict=True))
