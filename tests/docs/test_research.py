"""The example of research code runs, goes on after a kill, and does the same with two processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("mlflow")
pytest.importorskip("torchmetrics")
pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "research.py"


def start(folder: Path, name: str, *launcher: str) -> subprocess.Popen:
    local = {"MLFLOW_ALLOW_FILE_STORE": "true", "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    paths = os.pathsep.join(filter(None, [str(EXAMPLE.parents[2]), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, *launcher, str(EXAMPLE), name]
    return subprocess.Popen(command, cwd=folder, env={**os.environ, **local, "PYTHONPATH": paths})


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "weights.safetensors")


def test_it_ends_alike_whole_killed_and_with_two_processes(tmp_path):
    assert start(tmp_path, "whole").wait(120) == 0
    whole = weights(tmp_path / "whole")
    assert len(list((tmp_path / "whole" / "plots").glob("filters-*.png"))) == 3
    assert len(list((tmp_path / "mlflow").rglob("val/f1"))) == 1

    killed = start(tmp_path, "killed")
    while not (tmp_path / "killed" / "checkpoint.pt").is_file():
        assert killed.poll() is None
        time.sleep(0.02)
    killed.kill()
    killed.wait()
    assert start(tmp_path, "killed").wait(120) == 0
    assert all(torch.equal(value, whole[name]) for name, value in weights(tmp_path / "killed").items())

    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    assert start(tmp_path, "two", *launcher).wait(120) == 0
    for name, value in weights(tmp_path / "two").items():
        torch.testing.assert_close(value, whole[name], atol=1e-5, rtol=0)
