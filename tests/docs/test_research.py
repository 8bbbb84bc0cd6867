"""The example of research code runs, and does the same with two processes, of which one is killed."""

from __future__ import annotations

import os
import signal
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
    local = {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    paths = os.pathsep.join(filter(None, [str(EXAMPLE.parents[2]), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, *launcher, str(EXAMPLE), name]
    return subprocess.Popen(command, cwd=folder, env={**os.environ, **local, "PYTHONPATH": paths})


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "weights.safetensors")


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux, to find the processes")
def test_it_ends_alike_in_one_process_and_in_two_of_which_one_is_killed(tmp_path):
    assert start(tmp_path, "whole").wait(120) == 0
    whole = weights(tmp_path / "whole")
    assert len(list((tmp_path / "whole" / "plots").glob("filters-*.png"))) == 3
    assert len(list((tmp_path / "mlflow").rglob("val/f1"))) == 1

    elastic = ("--standalone", "--nproc-per-node", "2", "--max-restarts", "1", "--monitor-interval", "0.1")
    agent = start(tmp_path, "two", "-m", "torch.distributed.run", *elastic)
    while not (tmp_path / "two" / "checkpoint.pt").is_file():
        assert agent.poll() is None
        time.sleep(0.02)
    (first, *_) = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
    os.kill(int(first), signal.SIGKILL)
    assert agent.wait(120) == 0  # torchrun has started both again, and they went on
    for name, value in weights(tmp_path / "two").items():
        torch.testing.assert_close(value, whole[name], atol=1e-5, rtol=0)
