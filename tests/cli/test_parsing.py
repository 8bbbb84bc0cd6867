from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pytest

from torchdl import InputError, TableFormat
from torchdl.cli.options import RENAMED, RENAMED_FIELDS
from torchdl.cli.parsing import Positional, as_written, option_names, parse, rebuild


@dataclass(frozen=True)
class Trainer:
    """How to train."""

    monitor: str = ""
    """A metric."""
    epochs: int = 3
    """Epochs."""
    max_steps: int = 0
    """Steps."""


@dataclass(frozen=True)
class Run:
    """Where to."""

    resume: Path | None = None
    """A run to continue."""


@dataclass(frozen=True)
class Config:
    """Every renamed option, and others."""

    feature_extractor: Path | None = None
    """A run."""
    evaluation_samples: int = 2000
    """Samples."""
    kid_samples: int = 1000
    """Samples."""
    categories: tuple[str, ...] = ()
    """Columns."""
    validation_per_class: int | None = None
    """Images."""
    test_share: float | None = None
    """A share."""
    horizontal_flip: float | None = None
    """A probability."""
    summary: bool = False
    """Print."""
    color: bool = True
    """Colour or grey."""
    centred: bool | None = None
    """Centred pixels."""
    run: Run = field(default_factory=Run)
    trainer: Trainer = field(default_factory=Trainer)


VALUES = {
    "--judge": ("runs/x", Path("runs/x")),
    "--judged": ("60", 60),
    "--paired": ("20", 20),
    "--kinds": ("size", ("size",)),
    "--valid-per-class": ("2", 2),
    "--held-out": ("0.25", 0.25),
    "--flip": ("0.5", 0.5),
    "--verbose": ("", True),
}


def field_of(option: str) -> str:
    return option.strip("-").replace("-", "_")


@pytest.mark.parametrize("old", RENAMED)
@pytest.mark.parametrize("form", ["{} {}", "{}={}"])
@pytest.mark.parametrize("underscores", [False, True])
def test_an_old_option_works_and_names_the_new_one(capsys, old, form, underscores):
    text, value = VALUES[old]
    written = "--" + field_of(old) if underscores else old
    config = parse(Config, (form if text else "{}").format(written, text).split())
    assert getattr(config, field_of(RENAMED[old])) == value
    note = capsys.readouterr().out
    assert note.count("\n") == 1
    assert {written, RENAMED[old]} < set(note.replace(";", "").split())


@pytest.mark.parametrize("old", RENAMED)
@pytest.mark.parametrize("form", ["{} {}", "{}={}"])
def test_a_new_option_says_nothing(capsys, old, form):
    text, value = VALUES[old]
    config = parse(Config, (form if text else "{}").format(RENAMED[old], text).split())
    assert getattr(config, field_of(RENAMED[old])) == value
    assert capsys.readouterr().out == ""


def test_an_old_option_keeps_several_values():
    assert parse(Config, ["--kinds", "size", "price", "--judged", "7"]).categories == ("size", "price")


@pytest.mark.parametrize(
    ("arguments", "color", "centred"),
    [
        ("", True, None),
        ("--color --centred True", True, True),
        ("--no-color --centred False", False, False),
        ("--no-color --centred=True", False, True),
    ],
)
def test_booleans_are_given_by_no_or_where_there_is_a_third_value_by_true_and_false(capsys, arguments, color, centred):
    config = parse(Config, arguments.split())
    assert (config.color, config.centred) == (color, centred)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("form", ["--monitor {}", "--monitor={}"])
def test_an_old_name_of_a_metric_works_and_names_the_new_one(capsys, form):
    assert parse(Config, form.format("val/coverage").split()).trainer.monitor == "samples/coverage"
    assert {"val/coverage", "samples/coverage;"} < set(capsys.readouterr().out.split())
    assert parse(Config, form.format("samples/coverage").split()).trainer.monitor == "samples/coverage"
    assert parse(Config, form.format("val/loss").split()).trainer.monitor == "val/loss"
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "changed"),
    [("", {}), ("--separator ,", {"separator": ","}), ("--no-header --na=?", {"header": False, "na": ("?",)})],
)
def test_a_file_is_written_as_the_trainings_but_for_what_is_said(monkeypatch, arguments, changed):
    monkeypatch.setattr(sys, "argv", ["predict.py", *arguments.split()])
    training = TableFormat(separator=";", decimal=",")
    assert as_written(replace(TableFormat(), **changed), training) == replace(training, **changed)


@dataclass(frozen=True)
class OwnTable:
    """Takes a table by its option."""

    experiment: Positional[str] = "sine"
    """What to do."""
    csv: Path | None = None
    """A table."""


@dataclass(frozen=True)
class OwnData:
    """Takes data by their option."""

    dataset: str = "mnist"
    """The data."""


@dataclass(frozen=True)
class OwnFile:
    """Takes a table by its place."""

    csv: Positional[Path | None] = None
    """A table."""


@pytest.mark.parametrize(
    ("config_class", "arguments", "said"),
    [
        (OwnTable, "{}", "write --csv {}"),
        (OwnData, "{}", "write --dataset {}"),
        (OwnData, "--csv={}", "--dataset here, not --csv"),
        (OwnFile, "--csv {}", "without --csv"),
        (OwnTable, "cosine --csv {}", ""),
        (OwnData, "--dataset {}", ""),
        (OwnFile, "{}", ""),
    ],
)
def test_ones_own_file_without_its_option_is_told_the_option(tmp_path, config_class, arguments, said):
    (tmp_path / "x.csv").touch()
    given = arguments.format(tmp_path / "x.csv").split()
    if not said:
        assert str(tmp_path / "x.csv") in vars(parse(config_class, given)).values() or parse(config_class, given).csv
    else:
        with pytest.raises(InputError) as caught:
            parse(config_class, given)
        assert str(caught.value).endswith(said.format(tmp_path / "x.csv"))


def test_only_a_script_with_the_new_option_takes_the_old_one(capsys):
    with pytest.raises(SystemExit) as ended:
        parse(Trainer, ["--judge", "runs/x"])
    assert ended.value.code == 2
    assert "judge" in capsys.readouterr().err

    @dataclass(frozen=True)
    class Own:
        """A script with an option of the old name."""

        judge: str = ""
        """A judge."""
        feature_extractor: str = ""
        """A run."""

    globals()["Own"] = Own
    assert parse(Own, ["--judge", "x"]) == Own(judge="x")
    assert capsys.readouterr().out == ""


def test_the_options_of_nested_configurations_are_options():
    assert option_names(Config) >= {"--feature-extractor", "--color", "--resume", "--monitor", "--epochs"}
    assert not option_names(Config) & {"--run", "--trainer"}


def test_a_configuration_survives_json():
    config = Config(Path("a/b"), 5, categories=("x", "y"), run=Run(Path("runs/x")), trainer=Trainer("val/loss", 7))
    assert rebuild(Config, json.loads(json.dumps(asdict(config), default=str))) == config


def write_run(folder: Path, **config) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"config": config}))
    return folder


def test_a_resumed_runs_options_are_the_defaults(tmp_path):
    folder = write_run(tmp_path / "x", evaluation_samples=7, color=False, trainer={"monitor": "val/loss", "epochs": 9})
    for arguments in (["--resume", str(folder), "--epochs", "11"], [f"--resume={folder}", "--epochs=11"]):
        config = parse(Config, arguments)
        assert config.trainer == Trainer("val/loss", 11)
        assert (config.evaluation_samples, config.color, config.run.resume) == (7, False, folder)


def test_a_run_with_old_names_resumes_with_the_new_ones(tmp_path, capsys):
    old = {
        field_of(name): value if isinstance(value, int | float) else str(value) for name, (_, value) in VALUES.items()
    }
    folder = write_run(tmp_path / "x", **old | {"kinds": ["size"]}, trainer={"monitor": "val/frechet_distance"})
    config = parse(Config, ["--resume", str(folder)])
    for name, (_, value) in VALUES.items():
        assert getattr(config, field_of(RENAMED[name])) == value
    assert config.trainer.monitor == "samples/frechet_distance"
    assert capsys.readouterr().out == ""  # the user has written no old name
    assert set(RENAMED_FIELDS) == set(old)


OTHER = [
    {"nonsense": 1},
    {"trainer": 3},
    {"trainer": None},
    {"trainer": {"nonsense": 1}},
    {"trainer": {"epochs": "3"}},
    {"trainer": {"epochs": None}},
    {"trainer": {"epochs": [3]}},
    {"trainer": {"monitor": 5}},
    {"categories": 1},
    {"categories": [1]},
    {"color": "yes"},
    {"feature_extractor": 7},
    {"test_share": "most"},
    {"run": {"resume": {}}},
]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--epochs", "1", "--max-steps", "30"], "--max-steps 30 replaces --epochs\n"),
        (["--max_steps=30", "--epochs=1"], "--max-steps 30 replaces --epochs\n"),
        (["--epochs", "1", "--max-steps", "0"], ""),
        (["--max-steps", "30"], ""),
        (["--epochs", "1"], ""),
    ],
)
def test_steps_in_place_of_epochs_that_were_typed_are_said(capsys, arguments, said):
    parse(Config, arguments)
    assert capsys.readouterr().out == said


@pytest.mark.parametrize("config", OTHER, ids=str)
def test_another_scripts_run_is_refused(tmp_path, config):
    folder = write_run(tmp_path / "x", **config)
    with pytest.raises(InputError, match=r"x.*config\.json"):
        parse(Config, ["--resume", str(folder)])


@pytest.mark.parametrize("value", [9, None])
def test_an_option_that_has_moved_into_a_part_keeps_its_value(value):
    before = {**json.loads(json.dumps(asdict(Config()), default=str)), "trainer": {"monitor": "x"}, "epochs": value}
    assert rebuild(Config, before).trainer == Trainer("x", 9 if value else 3)
    with pytest.raises(KeyError):
        rebuild(Config, {**before, "nonsense": 1})


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], None),
        (["--centred"], True),
        (["--centred", "--epochs", "4"], True),
        (["--no-centred"], False),
        (["--centred", "False"], False),
        (["--centred", "None"], None),
        (["--no-centred", "--no-color"], False),
    ],
)
def test_a_choice_that_may_be_left_open_is_a_flag_all_the_same(arguments, expected):
    assert parse(Config, arguments).centred is expected
