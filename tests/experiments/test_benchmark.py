"""Every part of the benchmark in its smallest form, and what it leaves out by itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import write_pair
from helpers.registry import ROOT, config_class
from PIL import Image

import torchdl
from experiments import benchmark as module
from torchdl import InputError
from torchdl.plots import plot_ratios
from torchdl.training.device import has_bf16_units


@pytest.fixture
def benchmark():
    return module


@pytest.fixture
def digits(tmp_path, monkeypatch):
    for split in ("train", "test"):
        images = np.random.default_rng(0).integers(0, 256, (600, 28, 28))
        write_pair(tmp_path / "data" / "MNIST" / "raw", images, np.arange(600) % 10, split)
    monkeypatch.setattr(module, "setup_process", lambda *_: "")  # this process is the tests'
    return tmp_path / "data"


def test_the_script_is_its_command_line(benchmark):
    assert config_class("benchmark.py") is benchmark.Config


PARTS = ("gan", "cpc", "lenet", "forecast", "startup", "transfer")


def test_the_parts_are_all_there(benchmark):
    assert tuple(sorted(benchmark.MEASUREMENTS)) == tuple(sorted(PARTS))


@pytest.mark.parametrize("side", ["usual", "ours"])
@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("gan", "gan"),
        ("cpc", "data"),
        ("cpc", "step"),
        ("lenet", "fp32"),
        ("lenet", "against ImageFolder"),
        ("forecast", "forecasts of 20 steps"),
    ],
)
def test_both_sides_of_a_part_take_time_for_what_they_are_asked(
    benchmark, digits, tmp_path, part, name, side, monkeypatch, quick, request
):
    if side == "usual" and name == "step":
        request.getfixturevalue("keras")
    monkeypatch.setattr(benchmark, "noise_images", lambda made=benchmark.noise_images: tuple(t[:128] for t in made()))
    (tmp_path / "side").mkdir()
    build = getattr(benchmark.MEASUREMENTS[part][name], side)
    run = build(benchmark.Config(part, data_root=digits, threads=1), tmp_path / "side")
    assert 0 < run(64) < 60


def test_the_imports_that_are_timed_are_of_torch_and_of_this_clone(benchmark, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(benchmark.subprocess, "run", lambda command, env, check: asked.append((command, env, check)))
    for side in ("usual", "ours"):
        getattr(benchmark.MEASUREMENTS["startup"]["import"], side)(None, tmp_path)(2)
    statements = [command[2] for command, _, _ in asked]
    assert statements[:2] == ["import torch"] * 2
    assert all(statement.startswith("from torchdl import ") for statement in statements[2:])
    assert all(env["PYTHONPATH"].split(":")[0] == str(ROOT) and check for _, env, check in asked)


def measured(ratio: float) -> dict:
    return {"usual": 2, "ours": 2 * ratio, "ratio": ratio, "ratios": [ratio / 1.2, ratio * 1.2], "examples": {}}


def test_all_is_every_part_in_turn_with_one_json_and_one_picture(benchmark, tmp_path, monkeypatch, capsys):
    asked = []

    def measure(config, measurement, folder, repeats):
        asked.append((measurement, repeats))
        return measured(1.0 + len(asked))

    monkeypatch.setattr(benchmark, "measure", measure)
    monkeypatch.setattr(benchmark, "has_bf16_units", lambda: False)
    monkeypatch.setattr(benchmark.importlib.util, "find_spec", lambda name: name)  # as if everything were installed
    benchmark.main(benchmark.Config("all", json=tmp_path / "all.json", png=tmp_path / "all.png"))
    said = capsys.readouterr()
    report = json.loads((tmp_path / "all.json").read_text())
    assert json.loads(said.out) == report
    every = [m for part in benchmark.MEASUREMENTS.values() for name, m in part.items() if name != "ours in bf16"]
    assert [measurement for measurement, _ in asked] == every
    assert [repeats for _, repeats in asked] == [5] * (len(every) - 1) + [15]
    assert list(report["left out"]) == ["lenet: ours in bf16"]
    assert said.err.startswith("left out: lenet: ours in bf16: this CPU has no units for bf16")
    assert "lenet: ours in bf16" not in report
    assert {"gan", "cpc: data", "cpc: step", "lenet: fp32", "startup: import"} <= set(report)
    assert np.asarray(Image.open(tmp_path / "all.png").convert("L")).std() > 1


@pytest.mark.parametrize("options", [{"json": Path("all.npy")}, {"png": Path("all.pdf")}])
def test_a_file_of_another_format_is_refused_before_anything_is_measured(benchmark, monkeypatch, options):
    monkeypatch.setattr(benchmark, "measure", lambda *_: pytest.fail("measured"))
    with pytest.raises(InputError, match=r"all\.(npy must end in \.json|pdf must end in \.png)"):
        benchmark.main(benchmark.Config("all", **options))


def test_bf16_is_measured_where_the_cpu_has_units_for_it(benchmark, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "measure", lambda *_: measured(2.0))
    monkeypatch.setattr(benchmark, "has_bf16_units", lambda: True)
    benchmark.main(benchmark.Config("lenet", repeats=2))
    report = json.loads(capsys.readouterr().out)
    assert report["ours in bf16"]["repeats"] == 2
    assert report["left out"] == {}


def test_what_the_cpu_has_is_asked_of_pytorch(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    for found in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda found=found: found, raising=False)
        assert has_bf16_units() is found


def test_without_keras_the_originals_training_is_left_out_and_said_so(benchmark, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "measure", lambda *_: measured(2.0))
    monkeypatch.setattr(benchmark.importlib.util, "find_spec", lambda name: None)
    benchmark.main(benchmark.Config("cpc"))
    said = capsys.readouterr()
    assert list(json.loads(said.out)["left out"]) == ["step", "data and step"]
    assert "pip install" in said.err


def test_repeats_below_1_are_refused(benchmark):
    with pytest.raises(torchdl.InputError, match=r"--repeats .* 0"):
        benchmark.main(benchmark.Config("gan", repeats=0))


def test_ratios_are_drawn_on_both_sides_of_1(tmp_path):
    plot_ratios({"slow": (0.8, 0.7, 0.9), "quick $x": (30.0, 20.0, 50.0)}, "ratio", tmp_path / "r.png")
    image = np.asarray(Image.open(tmp_path / "r.png").convert("RGB")).astype(int)
    red, green, blue = image[..., 0], image[..., 1], image[..., 2]
    assert ((red > 180) & (green < 80) & (blue < 80)).sum() > 300  # the bar of what is slower
    assert ((blue > 150) & (red < 80)).sum() > 3 * ((red > 180) & (green < 80) & (blue < 80)).sum()
