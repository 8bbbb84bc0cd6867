"""Every experiment can be typed, has a quick form, and says what its figures are compared with."""

from __future__ import annotations

import functools
import importlib.util
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from torchdl.training.command import parse

import torchdl
from torchdl.training import registry
from torchdl.training.experiments import AREAS, SCRIPTS, choose
from torchdl.training.registry import EXPERIMENTS
from torchdl.training.reproducing import lacking

ROOT = Path(__file__).resolve().parent.parent


@functools.cache
def config_class(script: str) -> Any:
    """Load a script without running it, and return its Config."""
    sys.path.insert(0, str(ROOT / "scripts"))  # where _clone is
    try:
        spec = importlib.util.spec_from_file_location(f"scripts_{script[:-3]}", ROOT / "scripts" / script)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # where the hints of dataclasses are looked up
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(ROOT / "scripts"))
    return module.Config


def parse_script(command: list[str]) -> Any:
    """Parse a command line as its script would."""
    return parse(config_class(command[0]), command[1:])


def flat(config: Any) -> dict[str, Any]:
    """List a configuration's options, the nested ones beside the others."""
    found: dict[str, Any] = {}
    for name in config.__dataclass_fields__:
        value = getattr(config, name)
        found |= flat(value) if hasattr(value, "__dataclass_fields__") else {name: value}
    return found


@pytest.mark.parametrize("command", [command for _, command, _ in registry.NOT_RUN])
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
            script = SCRIPTS[command[0]]
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


def test_names_are_unique_and_every_script_that_gives_results_is_there():
    names = [e.name for e in EXPERIMENTS]
    assert len(set(names)) == len(names)
    assert not set(names) & set(AREAS)
    assert all(re.fullmatch(r"[a-z0-9-]+", name) for name in names)
    used = {shlex.split(command)[0] for e in EXPERIMENTS for command in e.commands}
    assert used == set(SCRIPTS)
    there = {path.name for path in (ROOT / "scripts").glob("[a-z]*.py")}
    assert there - used == {
        "reproduce.py",
        "predict_tabular.py",
    }  # the latter uses a finished run on a table of one's own


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda e: e.name)
def test_an_experiment_is_well_described(experiment):
    assert experiment.area in AREAS
    assert len(experiment.quick) == len(experiment.commands)
    assert len(set(experiment.seeds)) == len(experiment.seeds) > 0
    assert experiment.minutes > 0
    metrics = [figure.metric for figure in experiment.figures]
    assert len(set(metrics)) == len(metrics)
    assert experiment.figures or experiment.pictures
    for figure in experiment.figures:
        referred = figure.reference is not None or bool(figure.reference_key or figure.reference_of)
        assert not (figure.reference is not None and figure.reference_key)
        assert referred == bool(figure.source)
        assert figure.higher_is_better is not None or referred
        assert not (figure.note and not referred)
        if figure.reference_of:
            (other,) = choose([figure.reference_of], EXPERIMENTS)
            assert figure.metric in {found.metric for found in other.figures}
            assert not figure.reference_key
    for need in experiment.needs:
        assert isinstance(lacking(need, "/nowhere/at/all"), str)


def test_what_an_experiment_makes_use_of_stands_before_it():
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


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("text-lsmt", "'text-lsmt': did you mean text-lstm"),
        ("spede", "'spede': did you mean speed"),
        ("xyzzy", "'xyzzy': --list says which there are"),
    ],
)
def test_an_unknown_name_is_one_sentence_with_the_closest_names(name, said):
    with pytest.raises(torchdl.InputError) as caught:
        choose(["moore", name], EXPERIMENTS)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_a_user_types_has_no_folder_but_the_run_of_the_command_before():
    by_name = {e.name: e for e in registry.EXPERIMENTS}
    assert by_name["cpc-grey"].typed == (
        "train_cpc.py --image-size 28 --no-color",
        "probe_cpc.py RUN --no-baselines",
    )
    assert by_name["convolution"].typed == ("show_convolution.py",)
