"""Every part of the benchmark in its smallest form, and what it leaves out by itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
from helpers import write_pair
from helpers.registry import ROOT, config_class
from PIL import Image

import torchdl
from experiments.benchmark import command, cpc, forecast, gan, lenet, mlp, startup, trainer, works
from experiments.benchmark.config import Config
from experiments.benchmark.graph import bare_step
from experiments.benchmark.picture import plot_speeds
from torchdl import InputError
from torchdl.training.device import has_bf16_units


@pytest.fixture
def digits(tmp_path, monkeypatch):
    for split in ("train", "test"):
        images = np.random.default_rng(0).integers(0, 256, (600, 28, 28))
        write_pair(tmp_path / "data" / "MNIST" / "raw", images, np.arange(600) % 10, split)
    for module in (cpc, forecast, gan, lenet, mlp, trainer):
        monkeypatch.setattr(module, "setup_process", lambda *_: "")  # this process is the tests'
    return tmp_path / "data"


def test_the_script_is_its_command_line():
    assert config_class("benchmark.py") is Config


def test_every_part_has_a_name_on_the_command_line():
    assert {*works.MEASUREMENTS, "all"} == set(get_args(get_type_hints(Config)["name"]))


NAMES = [
    ("gan", "gan"),
    ("mlp", "mlp"),
    ("cpc", "data"),
    ("cpc", "step"),
    ("lenet", "fp32"),
    ("lenet", "against ImageFolder"),
    ("trainer", "an empty step"),
    ("forecast", "forecasts of 20 steps"),
]
SIDES = [(part, name, side) for part, name in NAMES for side in works.MEASUREMENTS[part][name].sides]


@pytest.mark.parametrize(("part", "name", "side"), SIDES)
def test_all_sides_of_a_part_take_time_for_what_they_are_asked(
    digits, tmp_path, part, name, side, monkeypatch, quick, request
):
    if side == "usual" and name == "step":
        request.getfixturevalue("keras")
    if side == "Keras on JAX":
        pytest.skip("Keras has another backend in this process")
    for module in (gan, mlp):
        monkeypatch.setattr(module, "use_cores", lambda count: None)  # this process is the tests'
    if why_not := works.why_not(side):
        pytest.skip(why_not)
    monkeypatch.setattr(lenet, "noise_images", lambda made=lenet.noise_images: tuple(t[:128] for t in made()))
    (tmp_path / "side").mkdir()
    build = works.MEASUREMENTS[part][name].sides[side]
    run = build(Config(part, data_root=digits, threads=1), tmp_path / "side")
    assert [0 < run(64) < 60 for _ in range(2)] == [True, True]


GRAPHS = [(gan, "graph_gan"), (mlp, "graph_mlp"), (lenet, "graph_lenet"), (cpc, "graph_cpc")]


@pytest.mark.parametrize(("module", "name"), GRAPHS, ids=[name for _, name in GRAPHS])
def test_the_step_that_a_gpu_captures_is_a_step_of_the_task(digits, tmp_path, monkeypatch, quick, module, name):
    given = []
    monkeypatch.setattr(module, "replayed", lambda *args: given.append(args))
    getattr(module, name)(Config(device="cuda", name="gan", data_root=digits), tmp_path)
    ((task, batch, size),) = given
    step, before = bare_step(task, batch, torch.device("cpu")), [p.clone() for p in task.parameters()]
    step()
    step()
    assert sum(torch.equal(*pair) for pair in zip(before, task.parameters(), strict=True)) <= 1  # a bias before a norm
    assert len(batch if name == "graph_gan" else batch[0]) == size


def test_the_loop_of_cpc_on_a_gpu_takes_time_for_what_it_is_asked(digits, tmp_path, quick):
    assert 0 < cpc.usual_cpc_loop(Config("cpc", data_root=digits), tmp_path)(64) < 60


def test_on_a_gpu_four_works_are_measured_with_their_graphs(monkeypatch, capsys):
    asked = []

    def measure(config, found, folder, repeats):
        asked.append(config.device)
        return measured(2.0) | {"others": {name: measured(3.0) for name in found.others}}

    monkeypatch.setattr(command, "measure", measure)
    with pytest.raises(InputError, match="forecast is measured on a CPU: choose gan, mlp, lenet, cpc or all"):
        command.main(Config("forecast", device="cuda"))
    monkeypatch.setattr(command, "find_device", lambda name: name)
    command.main(Config("all", device="cuda"))
    said = capsys.readouterr()
    report = json.loads(said.out)
    names = ["gan", "mlp", "lenet: fp32", "lenet: ours in tf32", "lenet: ours in bf16", "cpc: step"]
    assert list(report)[:6] == names
    graphs = ["ours, compiled", "the limit"]
    assert [list(report[name]["others"]) for name in names] == [graphs, graphs, graphs, [], [], graphs]
    assert asked == ["cuda"] * 6
    assert report["left out"] == {"other libraries, and other parts": "they are measured on a CPU"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_nothing_is_measured_on_one(monkeypatch):
    monkeypatch.setattr(command, "measure", lambda *_: pytest.fail("measured"))
    with pytest.raises(InputError, match="there is no CUDA device"):
        command.main(Config("gan", device="cuda"))


def test_the_imports_that_are_timed_are_of_torch_and_of_this_clone(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(startup.subprocess, "run", lambda command, env, check: asked.append((command, env, check)))
    for side in ("usual", "ours"):
        works.MEASUREMENTS["startup"]["import"].sides[side](None, tmp_path)(2)
    statements = [command[2] for command, _, _ in asked]
    assert statements[:2] == ["import torch"] * 2
    assert all(statement.startswith("from torchdl import ") for statement in statements[2:])
    assert all(env["PYTHONPATH"].split(":")[0] == str(ROOT) and check for _, env, check in asked)


def measured(ratio: float) -> dict:
    found = {"ratio": ratio, "ratios": [ratio / 1.2, ratio * 1.2]}
    return {"usual": 2, "ours": 2 * ratio, **found, "others": {"the limit": {"rate": 9, **found}}, "examples": {}}


def test_all_is_every_part_in_turn_with_one_json_and_one_picture(tmp_path, monkeypatch, capsys):
    asked = []

    def measure(config, measurement, folder, repeats):
        asked.append((measurement, repeats))
        return measured(1.0 + len(asked))

    monkeypatch.setattr(command, "measure", measure)
    monkeypatch.setattr(works, "has_bf16_units", lambda: False)
    monkeypatch.setattr(works.importlib.util, "find_spec", lambda name: name)  # as if everything were installed
    command.main(Config("all", json=tmp_path / "all.json", png=tmp_path / "all.png"))
    said = capsys.readouterr()
    report = json.loads((tmp_path / "all.json").read_text())
    assert json.loads(said.out) == report
    every = [m for part in works.MEASUREMENTS.values() for name, m in part.items() if name != "ours in bf16"]
    assert [measurement._replace(others={}) for measurement, _ in asked] == [m._replace(others={}) for m in every]
    assert [list(measurement.others) for measurement, _ in asked] == [list(m.others) for m in every]
    assert [repeats for _, repeats in asked] == [5] * (len(every) - 1) + [15]
    assert list(report["left out"]) == ["lenet: ours in bf16"]
    assert said.err.startswith("left out: lenet: ours in bf16: this CPU has no units for bf16")
    assert "lenet: ours in bf16" not in report
    assert {"gan", "cpc: data", "cpc: step", "lenet: fp32", "startup: import"} <= set(report)
    assert np.asarray(Image.open(tmp_path / "all.png").convert("L")).std() > 1


@pytest.mark.parametrize("options", [{"json": Path("all.npy")}, {"png": Path("all.pdf")}])
def test_a_file_of_another_format_is_refused_before_anything_is_measured(monkeypatch, options):
    monkeypatch.setattr(command, "measure", lambda *_: pytest.fail("measured"))
    with pytest.raises(InputError, match=r"all\.(npy must end in \.json|pdf must end in \.png)"):
        command.main(Config("all", **options))


def test_bf16_is_measured_where_the_cpu_has_units_for_it(monkeypatch, capsys):
    monkeypatch.setattr(command, "measure", lambda *_: measured(2.0))
    monkeypatch.setattr(works, "has_bf16_units", lambda: True)
    command.main(Config("lenet", repeats=2, peers=False))
    report = json.loads(capsys.readouterr().out)
    assert report["ours in bf16"]["repeats"] == 2
    assert report["left out"] == {}


def test_what_the_cpu_has_is_asked_of_pytorch(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    for found in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda found=found: found, raising=False)
        assert has_bf16_units() is found


def test_without_keras_the_originals_training_is_left_out_and_said_so(monkeypatch, capsys):
    monkeypatch.setattr(command, "measure", lambda *_: measured(2.0))
    monkeypatch.setattr(works.importlib.util, "find_spec", lambda name: None)
    command.main(Config("cpc"))
    said = capsys.readouterr()
    assert list(json.loads(said.out)["left out"]) == ["step", "data and step"]
    assert "pip install" in said.err


def test_repeats_below_1_are_refused():
    with pytest.raises(torchdl.InputError, match=r"--repeats .* 0"):
        command.main(Config("gan", repeats=0))


def test_other_sides_are_left_out_on_demand_or_where_they_are_not_installed(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(command, "measure", lambda _, found, *__: asked.append(list(found.others)) or measured(2.0))
    monkeypatch.setattr(works.importlib.util, "find_spec", lambda name: None if name == "optax" else name)
    command.main(Config("gan"))
    command.main(Config("gan", peers=False))
    assert asked == [["the limit"], []]
    assert "left out: gan: JAX: optax is not installed: pip install -e '.[bench]'" in capsys.readouterr().err


def test_speeds_are_drawn_on_both_sides_of_1(tmp_path):
    limit = {"ratio": 40.0, "ratios": [35.0, 60.0]}
    slow, quick = {"ratio": 0.8, "ratios": [0.7, 0.9]}, {"ratio": 30.0, "ratios": [20.0, 50.0]}
    report = {"slow": {**slow, "others": {}}, "quick $x": {**quick, "others": {"the limit": limit}}}
    plot_speeds(report, tmp_path / "r.png")
    image = np.asarray(Image.open(tmp_path / "r.png").convert("RGB")).astype(int)
    red, green, blue = image[..., 0], image[..., 1], image[..., 2]
    ours, grey = (blue > 150) & (red < 80), (abs(red - 153) < 9) & (abs(green - 153) < 9) & (abs(blue - 153) < 9)
    assert 300 < ours.sum() < 1.5 * grey.sum()
