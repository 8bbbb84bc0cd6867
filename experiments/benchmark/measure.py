"""The measurement: all sides alternate in one run, each in a process of its own with its own settings."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import torch

from experiments.benchmark.config import Config
from torchdl.errors import InputError

#: Prepares a side from (config, folder): a function that processes a number of examples and returns the seconds
Side = Callable[[Config, Path], Callable[[int], float]]


class Measurement(NamedTuple):
    """The usual way and ours, the minimum number of examples, and others by name: peers, and the limit."""

    usual: Side
    ours: Side
    least: int
    others: Mapping[str, Side] = {}  # nothing changes it

    @property
    def sides(self) -> dict[str, Side]:
        """All sides by name, the usual one first."""
        return {"usual": self.usual, "ours": self.ours, **self.others}


def clock(device: str = "cpu") -> float:
    """Return the time in seconds, once a GPU has done all that was asked of it."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def timed(work: Callable[[], Any], device: str = "cpu") -> float:
    """Return the seconds that ``work`` takes."""
    start = clock(device)
    work()
    return clock(device) - start


def serve(config: Config, side: Side, folder: Path, pipe: Connection) -> None:
    """Run one side: time each requested number of examples, until the number is 0."""
    if config.threads:
        torch.set_num_threads(config.threads)
    with open(os.devnull, "w") as silence:
        os.dup2(silence.fileno(), 1)  # hides what the side prints
    run = side(config, folder)
    with suppress(EOFError):  # where another side has failed
        while examples := pipe.recv():
            rate = examples / run(examples)
            pipe.send((rate, torch.cuda.max_memory_allocated() if config.device == "cuda" else 0))


def measure(config: Config, measurement: Measurement, folder: Path, repeats: int) -> dict[str, Any]:
    """Run all sides in turn; return medians of their rates, and of the ratios within each turn."""
    context = multiprocessing.get_context("spawn")
    least = measurement.least if config.seconds >= 1 else min(measurement.least, 64)
    pipes: dict[str, Connection] = {}
    rates: dict[str, list[float]] = {name: [] for name in measurement.sides}
    sizes: dict[str, int] = {}
    memory: dict[str, int] = {}
    for number, (name, prepare) in enumerate(measurement.sides.items()):
        pipes[name], theirs = context.Pipe()
        (folder / str(number)).mkdir(parents=True)
        context.Process(target=serve, args=(config, prepare, folder / str(number), theirs), daemon=True).start()
        theirs.close()
    for repeat in range(repeats + 2):
        for name, pipe in pipes.items():
            try:
                pipe.send(sizes.get(name, least))
                rate, memory[name] = pipe.recv()
            except (EOFError, BrokenPipeError):
                raise InputError(f"the side {name!r} failed: its own message is above") from None
            if repeat < 2:  # to warm up, and to find the number of examples that takes these seconds
                sizes[name] = max(least, int(rate * config.seconds) // 64 * 64)
            else:
                rates[name].append(rate)
    for pipe in pipes.values():
        pipe.send(0)
    others = {
        name: {"rate": median(rates[name]), **ratios(rates[name], rates["usual"]), "ours": ratios(rates["ours"], found)}
        for name, found in rates.items()
        if name in measurement.others
    }
    both = {name: median(rates[name]) for name in ("usual", "ours")}
    peak = {"peak MiB": {name: round(found / 2**20, 1) for name, found in memory.items()}}
    found = {**both, **ratios(rates["ours"], rates["usual"]), "others": others, "examples": sizes}
    return found | (peak if config.device == "cuda" else {})


def median(rates: list[float]) -> float:
    """Return the median, with decimals if it needs them: imports per second are below 1."""
    return round(statistics.median(rates), 0 if min(rates) > 100 else 4)


def ratios(rates: list[float], others: list[float]) -> dict[str, Any]:
    """Return the median ratio of rates to others of the same turns, and the least and greatest ratio."""
    found = [rate / other for rate, other in zip(rates, others, strict=True)]
    return {"ratio": round(statistics.median(found), 3), "ratios": [round(min(found), 3), round(max(found), 3)]}
