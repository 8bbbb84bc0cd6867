"""Forecasts of a sine by an LSTM."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

import torchdl
from experiments.benchmark.config import Config
from experiments.benchmark.measure import timed
from torchdl.data.series import Windows, sine
from torchdl.training.device import setup_process


def forecaster(config: Config) -> tuple[nn.Module, Tensor]:
    """Build an LSTM of 10 units, and 1,000 windows of 10 terms of a sine for it to continue."""
    setup_process(config.threads or 1)
    return torchdl.SequenceModel("lstm", horizon=1).eval(), Windows(sine(1010).values.float(), 10)[:1000][0]


def usual_forecasts(config: Config, folder: Path) -> Callable[[int], float]:
    """Forecast 20 terms as the lecture does: one start and one step at a time."""
    model, windows = forecaster(config)

    @torch.no_grad()
    def run(examples: int) -> float:
        start = time.perf_counter()
        for number in range(examples):
            x = windows[number % len(windows)][None]  # (1, T, 1)
            for _ in range(20):
                x = torch.cat([x[:, 1:], model(x)], 1)
        return time.perf_counter() - start

    return run


def our_forecasts(config: Config, folder: Path) -> Callable[[int], float]:
    """Forecast 20 terms from all 1,000 starts at once."""
    model, windows = forecaster(config)

    @torch.no_grad()
    def run(examples: int) -> float:
        return timed(lambda: [torchdl.forecast(model, windows, 20) for _ in range(-(-examples // 1000))])

    return run
