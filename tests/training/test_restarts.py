"""A process that is killed is started again by torchrun, and the run ends as if nothing had happened."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from torchdl import InputError
from torchdl.cli.options import RunOptions
from torchdl.cli.run import under_torchrun

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = "--dataset mnist_5k --width 2 --epochs 3 --batch-size 100 --checkpoint-every 2 --device cpu --threads 1"


def start(folder: Path, name: str, restarts: int) -> subprocess.Popen:
    script = [str(ROOT / "scripts" / "train_lenet.py"), *OPTIONS.split(), "--name", name]
    elastic = ["-m", "torch.distributed.run", "--standalone", "--monitor-interval", "0.1"]
    elastic += ["--nproc-per-node", "2", "--max-restarts", str(restarts)]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *elastic, *script]
    output = (folder / f"{name}.log").open("w")
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)


def workers(agent: subprocess.Popen) -> list[int]:
    """Return the training processes of an agent of torchrun."""
    children = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
    return [int(child) for child in children if b"train_lenet.py" in Path(f"/proc/{child}/cmdline").read_bytes()]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux, to find the processes")
@pytest.mark.skipif("TORCHDL_KILLS" not in os.environ, reason="set it to a number; test_research.py kills once")
def test_killed_processes_are_started_again_and_the_run_ends_bit_for_bit_as_if_they_had_not_been(tmp_path):
    folder, kills, rng = tmp_path, int(os.environ["TORCHDL_KILLS"]), random.Random(1)
    assert start(folder, "whole", 0).wait(120) == 0
    agent = start(folder, "killed", kills)
    checkpoint, seen = folder / "runs" / "lenet" / "killed" / "checkpoint.pt", 0.0
    for _ in range(kills):
        deadline = time.monotonic() + 90
        while not checkpoint.is_file() or checkpoint.stat().st_mtime <= seen:
            assert time.monotonic() < deadline
            assert agent.poll() is None
            time.sleep(0.02)
        time.sleep(rng.random() / 4)
        seen = checkpoint.stat().st_mtime
        os.kill(rng.choice(workers(agent)), signal.SIGKILL)
        seen = max(seen, checkpoint.stat().st_mtime)
    assert agent.wait(120) == 0, (folder / "killed.log").read_text()[-3000:]
    whole, killed = (folder / "runs" / "lenet" / name for name in ("whole", "killed"))
    one, other = (load_file(run / "weights.safetensors") for run in (whole, killed))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert (whole / "metrics.csv").read_bytes() == (killed / "metrics.csv").read_bytes()


def test_a_run_that_may_be_restarted_needs_a_name(monkeypatch, tmp_path):
    options = RunOptions(out=tmp_path)
    assert under_torchrun(options, "lenet") is options
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    with pytest.raises(InputError, match="up to 3 times: give the run a --name"):
        under_torchrun(options, "lenet")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "mine")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert under_torchrun(options, "lenet") == RunOptions(out=tmp_path, name="mine")
    (tmp_path / "lenet" / "mine").mkdir(parents=True)
    (tmp_path / "lenet" / "mine" / "checkpoint.pt").touch()
    assert under_torchrun(options, "lenet").resume == tmp_path / "lenet" / "mine"
