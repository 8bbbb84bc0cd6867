"""Every experiment can be typed, has a quick form, and says what its figures are compared with."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers.registry import ROOT, parse_script

import torchdl
from experiments.needs import lacking
from experiments.registry import AREAS, FOLDER, choose, find, load

REGISTRY = load()
EXPERIMENTS = REGISTRY.experiments


def flat(config: Any) -> dict[str, Any]:
    """List a configuration's options, the nested ones beside the others."""
    found: dict[str, Any] = {}
    for name in config.__dataclass_fields__:
        value = getattr(config, name)
        found |= flat(value) if hasattr(value, "__dataclass_fields__") else {name: value}
    return found


@pytest.mark.parametrize("command", [part.command for part in REGISTRY.not_run])
def test_what_was_not_run_can_be(command):
    parse_script(shlex.split(command))


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda e: e.name)
def test_each_script_takes_the_arguments_as_typed_and_in_the_quick_form(experiment):
    for form in (experiment, experiment.shortened()):
        launches = form.launches(Path("results") / "with space", 3)
        assert len(launches) == len(experiment.commands)
        for number, (command, folder) in enumerate(launches):
            options = flat(parse_script(command))
            assert options.get("seed", 3) == 3
            assert options.get("seeds", (3,)) == (3,) or command[0] == "sweep_gan.py"  # which has seeds of its own
            script = experiment.scripts[number]
            assert script.name == command[0]
            if "{name}" in script.options:
                assert options["out"] / folder.parent.name / options["name"] == folder
            elif "--out {folder}" in script.options:
                assert options["out"] == folder
            if "{before}" in script.options:
                assert options["run"] == launches[number - 1][1]


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda e: e.name)
def test_the_quick_form_is_smaller_and_its_arguments_win(experiment):
    changed = 0
    for command, (full, _), (short, _) in zip(
        experiment.commands,
        experiment.launches(Path("r"), 0),
        experiment.shortened().launches(Path("r"), 0),
        strict=True,
    ):
        full_options, short_options = flat(parse_script(full)), flat(parse_script(short))
        different = {key for key in full_options if full_options[key] != short_options[key]}
        changed += len(different)
        given, before = ({w.split("=")[0][2:] for w in words if w.startswith("--")} for words in (short, full))
        added = given - before
        assert {name.replace("-", "_") for name in added} <= set(short_options), command
    assert changed or experiment.name == "convolution"  # which is quick as it is
    assert experiment.shortened().settings != experiment.settings or experiment.name == "convolution"
    assert len(experiment.shortened().seeds) == 1


def test_every_script_with_results_is_in_the_registry():
    used = {shlex.split(command)[0] for e in EXPERIMENTS for command in e.commands}
    assert used == set(REGISTRY.scripts)
    there = {path.name for path in (ROOT / "scripts").glob("[a-z]*.py")}
    use = {"predict.py", "predict_tabular.py", "embed.py", "compare.py", "export.py"}  # finished runs
    use |= {"find_lr.py", "show_shapes.py"}  # before a run, and an exercise
    assert (
        {"reproduce.py", "convert_keras.py", "predict.py"} <= there - used <= {"reproduce.py", "convert_keras.py"} | use
    )


@pytest.mark.parametrize("need", sorted({need for e in EXPERIMENTS for need in e.needs}))
def test_every_need_is_known(need):
    assert isinstance(lacking(need, "/nowhere/at/all"), str)


def test_every_area_has_experiments_and_a_file():
    assert list(dict.fromkeys(e.area for e in EXPERIMENTS)) == list(AREAS)
    assert {path.stem for path in FOLDER.glob("*.toml")} == {*AREAS, "scripts"}


def test_an_experiment_stands_after_those_whose_runs_it_uses():
    names = [e.name for e in EXPERIMENTS]
    for number, experiment in enumerate(EXPERIMENTS):
        assert set(experiment.after) <= set(names[:number])
    assert any(experiment.after for experiment in EXPERIMENTS)


def test_what_measures_time_is_run_alone_except_in_the_quick_form():
    assert {e.name for e in EXPERIMENTS if e.alone} == {e.name for e in EXPERIMENTS if "benchmark.py" in e.commands[0]}
    assert not any(e.shortened().alone for e in EXPERIMENTS)


def test_what_differs_in_its_command_has_other_settings():
    settings = [e.settings for e in EXPERIMENTS]
    commands = [e.commands for e in EXPERIMENTS]
    assert len(set(settings)) == len(set(commands))
    twice = {c for c in commands if commands.count(c) > 1}
    assert twice == set()


def test_experiments_are_chosen_by_name_and_by_area_in_the_registrys_order():
    assert [e.name for e in choose(["surface-sine", "moore"], EXPERIMENTS)] == ["moore", "surface-sine"]
    assert {e.area for e in choose(["text", "ratings"], EXPERIMENTS)} == {"text", "ratings"}
    assert choose([], EXPERIMENTS) == list(EXPERIMENTS)


@pytest.mark.parametrize(("name", "hint"), [("text-lsmt", "text-lstm"), ("spede", "speed"), ("xyzzy", "--list")])
def test_an_unknown_name_is_one_sentence_with_similar_names(name, hint):
    with pytest.raises(torchdl.InputError) as caught:
        choose(["moore", name], EXPERIMENTS)
    assert name in str(caught.value)
    assert hint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_experiment_is_found_by_its_name_alone():
    assert find("gan-deep-mnist", EXPERIMENTS).after == ("judge-mnist",)
    with pytest.raises(torchdl.InputError, match="text"):
        find("text", EXPERIMENTS)


def test_what_a_user_types_has_no_folder_but_the_run_of_the_command_before():
    assert find("cpc-grey", EXPERIMENTS).typed == (
        "train_cpc.py --image-size 28 --no-color",
        "probe_cpc.py RUN --no-baselines",
    )
    assert find("convolution", EXPERIMENTS).typed == ("show_convolution.py",)


# mistakes in the files

SMALL = """
[defaults]
data = "some texts"
quick = ["--max-steps 2"]

[figures]
base = {scale = 100}
accuracy = {use = "base", metric = "accuracy, %", key = ["accuracy"]}
both = ["accuracy", {use = "base", metric = "recall, %", key = ["recall", 0]}]

[experiments.one]
system = "a reader"
commands = ["train_text.py"]
figures = ["both"]
minutes = 1

[experiments.two]
system = "another"
commands = ["train_text.py --model cnn"]
figures = [{use = "both", reference = 98, source = "a paper"}, {metric = "error", key = ["e"], better = "lower"}]
minutes = 2.5
after = ["one"]
"""


@pytest.fixture
def folder(tmp_path):
    shutil.copy(FOLDER / "scripts.toml", tmp_path)
    return tmp_path


def test_defaults_and_named_figures_are_filled_in_and_can_be_changed(folder):
    (folder / "text.toml").write_text(SMALL)
    one, two = load(folder).experiments
    assert (one.name, one.area, one.data, one.quick, one.seeds) == (
        "one",
        "text",
        "some texts",
        ("--max-steps 2",),
        (0,),
    )
    assert [(f.metric, f.key, f.scale, f.reference) for f in one.figures] == [
        ("accuracy, %", ("accuracy",), 100, None),
        ("recall, %", ("recall", 0), 100, None),
    ]
    assert [(f.reference, f.higher_is_better) for f in two.figures] == [(98, True), (98, True), (None, False)]
    assert two.scripts[0].name == "train_text.py"


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("minutes = 2.5", "minuts = 2.5", ["two", "minuts", "minutes"]),
        ("minutes = 2.5", "", ["two", "minutes"]),
        ("minutes = 2.5", 'minutes = "2.5"', ["two", "minutes", "a number", "'2.5'"]),
        ("minutes = 2.5", "minutes = true", ["two", "minutes", "a number", "True"]),
        ("minutes = 2.5", "minutes = 0", ["two", "minutes", "0"]),
        ("minutes = 2.5", "minutes = 2.5\nseeds = [0, 0]", ["two", "seeds", "[0, 0]"]),
        ("minutes = 2.5", "minutes = 2.5\nseeds = [0.5]", ["two", "seeds", "whole numbers"]),
        ('system = "another"', 'system = ["another"]', ["two", "system", "a text"]),
        ('["train_text.py --model cnn"]', '["train_txt.py"]', ["two", "commands", "train_txt.py"]),
        ('["train_text.py --model cnn"]', '["train_text.py", "generate.py"]', ["two", "quick", "2", "1"]),
        ('after = ["one"]', 'after = ["three"]', ["two", "after", "three"]),
        ('after = ["one"]', 'after = ["two"]', ["two", "after", "two"]),
        ("[experiments.two]", "[experiments.Two]", ["Two", "lower-case"]),
        ("[experiments.two]", "[experiments.text]", ["text", "area"]),
        ("[experiments.two]", "[experiments.one]", ["text.toml"]),
        ("[experiments.two]", "[experiment.two]", ["experiment", "experiments"]),
        ('figures = ["both"]', 'figures = ["bath"]', ["one", "bath", "both"]),
        ('figures = ["both"]', 'figures = ["both", "accuracy"]', ["one", "accuracy, %"]),
        ('figures = ["both"]', "figures = [1]", ["one", "figures"]),
        ('figures = ["both"]', "figures = []", ["one", "figures", "pictures"]),
        ("base = {scale = 100}", 'base = {use = "accuracy"}', ["one", "accuracy"]),  # a circle
        ("base = {scale = 100}", "base = {scael = 100}", ["one", "accuracy, %", "scael", "scale"]),
        ('better = "lower"', 'better = "less"', ["two", "error", "better", "less", "nearer"]),
        ('better = "lower"', 'better = "nearer"', ["two", "error", "nearer"]),
        ('better = "lower"', "reference = 1", ["two", "error", "source"]),
        ('better = "lower"', 'reference = 1, reference_key = ["b"], source = "x"', ["two", "error", "reference_key"]),
        ('better = "lower"', 'note = "too few"', ["two", "error", "note"]),
        ('better = "lower"', 'reference_of = "one", source = "x"', ["two", "error", "reference_of", "one"]),
        ('key = ["e"]', 'key = "e"', ["two", "error", "key", "list"]),
        ('key = ["e"], ', "", ["two", "error", "key"]),
    ],
)
def test_a_mistake_is_one_sentence_with_its_file_experiment_and_key(folder, old, new, parts):
    assert old in SMALL
    (folder / "text.toml").write_text(SMALL.replace(old, new))
    with pytest.raises(torchdl.InputError) as caught:
        load(folder)
    assert [part for part in ["text.toml", *parts] if part not in str(caught.value)] == []
    assert "\n" not in str(caught.value)


def test_a_file_of_no_area_is_named(folder):
    (folder / "txt.toml").write_text(SMALL)
    with pytest.raises(torchdl.InputError, match="txt"):
        load(folder)


def test_what_was_not_run_is_checked_too(folder):
    (folder / "text.toml").write_text('[[not_run]]\nsystem = "a"\ncommand = "b"\n')
    with pytest.raises(torchdl.InputError, match=r"text\.toml.*fetch"):
        load(folder)
