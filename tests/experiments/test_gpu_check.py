"""The script for a lent GPU, with stand-ins for what only a GPU can do."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import torch
from PIL import Image

from experiments import gpu_check


def test_it_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_check.main(["results"]) == "gpu_check.py: there is no CUDA device here"
    monkeypatch.setattr(gpu_check.importlib.util, "find_spec", lambda name: None if name == "tyro" else name)
    assert gpu_check.main(["results"]).startswith("gpu_check.py: install the packages tyro first")
    assert gpu_check.main([]) == "gpu_check.py: give it the folder for the results"


def test_every_part_is_run_within_its_time_and_its_results_are_kept(tmp_path, monkeypatch, capsys):
    asked = []

    def run(command, timeout, **options):
        asked.append((command[1:], timeout))
        name = next((word for word in ("gan", "mlp", "lenet", "cpc", "airbench") if word in command), "tests")
        if name == "mlp":
            raise subprocess.TimeoutExpired(command, timeout)
        if "--json" in command:
            Path(command[command.index("--json") + 1]).write_text(json.dumps({"part": name}))
        if name == "airbench":
            folder = Path(command[command.index("--out") + 1]) / "cnn" / "airbench"
            folder.mkdir(parents=True)
            (folder / "speed.json").write_text(json.dumps({"seconds of training": 7.5}))
        return subprocess.CompletedProcess(command, 1 if name == "tests" else 0)

    (tmp_path / "cifar10-jpeg" / "train").mkdir(parents=True)
    monkeypatch.setenv("TORCHDL_DATA", str(tmp_path))
    monkeypatch.setattr(gpu_check, "obstacle", lambda: "")
    monkeypatch.setattr(gpu_check.subprocess, "run", run)
    assert gpu_check.main([str(tmp_path / "out")]) == 1  # since the tests fail
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert json.loads(capsys.readouterr().out) == found
    assert found["tests"]["status"] == "failed with status 1: see log.txt"
    assert found["mlp"]["status"] == "stopped after 70 s: see log.txt"
    assert found["lenet"]["part"] == "lenet"
    assert found["airbench"]["seconds of training"] == 7.5
    assert len(asked) == 6
    assert max(seconds for _, seconds in asked) <= 150
    monkeypatch.setattr(gpu_check, "SECONDS", 0.0)
    assert {part["status"] for part in gpu_check.measure(tmp_path / "out").values()} == {"left out: the time is over"}
    monkeypatch.setenv("TORCHDL_DATA", str(tmp_path / "out"))
    assert gpu_check.measure(tmp_path / "out")["airbench"]["status"] == "left out: TORCHDL_DATA has no cifar10-jpeg"


@pytest.mark.slow
def test_airbenchs_seconds_are_measured(tmp_path, monkeypatch):
    for name in ("train", "test"):
        for label in "ab":
            place = tmp_path / "cifar10-jpeg" / name / label
            place.mkdir(parents=True)
            for number in range(8):
                Image.effect_noise((32, 32), 90).convert("RGB").save(place / f"{number}.jpg")
    monkeypatch.setenv("TORCHDL_DATA", str(tmp_path))
    command, _ = gpu_check.parts(tmp_path / "runs")["airbench"]
    options = {"--device": "cpu", "--precision": "fp32", "--width": "4", "--epochs": "1", "--batch-size": "8"}
    for name, value in options.items():
        command[command.index(name) + 1] = value
    with open(tmp_path / "log.txt", "w+") as log:
        found = gpu_check.run("airbench", command, 120.0, log)
        log.seek(0)
        assert found["status"] == "done", log.read()
    folder = tmp_path / "runs" / "cnn" / "airbench"
    assert json.loads((folder / "speed.json").read_text())["seconds of training"] > 0
    assert "accuracy" in (folder / "results.json").read_text()
