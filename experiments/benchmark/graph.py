"""The limit on a GPU: a bare step as one CUDA graph, which takes no time of the CPU's at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

import torchdl
from experiments.benchmark.measure import timed
from torchdl.training.device import move


def bare_step(task: torchdl.Task, batch: Any, device: torch.device) -> Callable[[], None]:
    """Return a step of a task on one batch without the trainer: passes, losses and Adam, which may be captured."""
    task.to(device).train()
    batch, optimizers = move(batch, device), {}
    for name, optimizer in task.configure_optimizers().items():
        (group,) = optimizer.param_groups
        settings = {"lr": group["lr"], "betas": group["betas"], "fused": True, "capturable": device.type == "cuda"}
        optimizers[name] = torch.optim.Adam(group["params"], **settings)

    def step() -> None:
        for update in task.losses(batch):
            optimizer = optimizers[update.optimizer]
            update.loss.backward(inputs=optimizer.param_groups[0]["params"])
            optimizer.step()
            optimizer.zero_grad()

    return step


def replayed(task: torchdl.Task, batch: Any, size: int) -> Callable[[int], float]:
    """Capture the step as one CUDA graph; return a function that replays it for some examples.

    The graph repeats the same batch, noise and learning rate, so this is no training: it is the time that a step's
    kernels take if nothing waits for Python.
    """
    step, side = bare_step(task, batch, torch.device("cuda")), torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # as PyTorch asks: what libraries allocate at first must not be in the graph
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()

    def replays(count: int) -> None:
        for _ in range(count):
            graph.replay()

    return lambda examples: timed(lambda: replays(examples // size), "cuda")
