"""What only a GPU can show: skipped where there is none."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
import torch
from helpers.resuming import EPOCH, TASKS, assert_as_if_uninterrupted, fit, interrupt, scalars, terminate
from torch import nn

from torchdl import ArrayDataset, BatchLoader, Stopped, Supervised, Trainer, random
from torchdl.files import CHECKPOINT
from torchdl.training import checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")]


def test_the_generators_of_a_new_process_can_be_seeded():
    code = (
        "import torch; from torchdl.training.device import find_device, seed_generators\n"
        "device = find_device('cuda'); found = []\n"
        "for _ in range(2): seed_generators(device, 3, 4); found.append(torch.rand(5, device=device))\n"
        "assert found[0].equal(found[1])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_fit_leaves_the_generators_of_the_device_as_they_were_and_drops_the_same_again():
    data = ArrayDataset(torch.ones(8, 4), torch.ones(8, 1))
    torch.manual_seed(5)
    before, rows = torch.cuda.get_rng_state(), []
    for _ in range(2):
        task = Supervised(nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 1)), nn.MSELoss())
        nn.init.ones_(task.model[1].weight), nn.init.zeros_(task.model[1].bias)
        rows.append(Trainer(epochs=2, device="cuda").fit(task, BatchLoader(data, 4), BatchLoader(data, 4)))
        assert torch.equal(torch.cuda.get_rng_state(), before)
    assert rows[0] == rows[1]


def test_random_numbers_are_those_of_the_cpu():
    index = torch.arange(1000)
    for draw in (random.bits, random.uniform, random.normal):
        torch.testing.assert_close(draw(1, 2, index.cuda(), 8, 3).cpu(), draw(1, 2, index, 8, 3))


@pytest.mark.parametrize("name", TASKS)
def test_training_that_was_stopped_goes_on_as_if_it_never_had_been(tmp_path, name):
    whole = TASKS[name]()
    history = fit(whole, tmp_path / "whole", device="cuda")
    assert {tensor.device.type for tensor in whole.state_dict().values()} == {"cuda"}
    saved, shown = checkpoint.read(tmp_path / "whole" / CHECKPOINT), scalars(tmp_path / "whole")
    with pytest.raises(Stopped) as stopped:
        fit(interrupt(TASKS[name](), EPOCH + 2, terminate), tmp_path / "cut", device="cuda")
    assert stopped.value.signal_number == signal.SIGTERM
    task = TASKS[name]()
    rows = fit(task, tmp_path / "cut", resume=True, device="cuda")
    assert_as_if_uninterrupted((whole.state_dict(), history, saved, shown), task, rows, tmp_path / "cut")


@pytest.mark.parametrize("name", [name for name in TASKS if name != "classifier"])  # dropout draws by the device
def test_an_epoch_gives_what_it_gives_on_the_cpu(monkeypatch, name):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    here, there = (fit(TASKS[name](), None, device=device, epochs=1)[0] for device in ("cpu", "cuda"))
    assert there.keys() == here.keys()
    for key, value in here.items():
        if "per_second" not in key:
            assert there[key] == pytest.approx(value, rel=1e-2, abs=1e-4), key


@pytest.mark.parametrize("name", ["classifier", "averaged", "infonce"])
def test_bf16_trains(name):
    losses = [
        v for row in fit(TASKS[name](), None, device="cuda", precision="bf16") for k, v in row.items() if "loss" in k
    ]
    assert losses
    assert torch.tensor(losses).isfinite().all()
