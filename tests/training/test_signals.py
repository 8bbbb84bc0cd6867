from __future__ import annotations

import signal

import torch
from helpers import gaussian
from torch import nn

from torchdl import ArrayDataset, BatchLoader, Supervised, Trainer
from torchdl.training import signals


def test_a_handler_that_is_not_pythons_is_left_alone(monkeypatch):
    """Python cannot put such a handler back: ``signal.signal`` returns None for it, and refuses None."""
    known, taken = signal.getsignal(signal.SIGTERM), []
    set_handler = signal.signal
    monkeypatch.setattr(signal, "getsignal", lambda number: None if number == signal.SIGTERM else known)
    monkeypatch.setattr(
        signal, "signal", lambda number, handler: (taken.append(number), set_handler(number, handler))[1]
    )
    with signals.requests() as request:
        signal.raise_signal(signal.SIGINT)
    assert request.signal_number == signal.SIGINT
    assert set(taken) == {signal.SIGINT}


def test_training_goes_on_where_there_is_no_console(monkeypatch):
    """As under pythonw, or as a service."""
    data = ArrayDataset(gaussian(4, 1), gaussian(4, 1))
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(f"sys.{name}", None)
    task = Supervised(nn.Linear(1, 1), nn.functional.mse_loss)
    history = Trainer(epochs=1, device="cpu").fit(task, BatchLoader(data, 2), verbose=True)
    assert torch.isfinite(torch.tensor(history[-1]["train/loss"]))
