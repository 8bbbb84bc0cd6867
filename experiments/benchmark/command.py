"""The command: measure, print, draw and save."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from experiments.benchmark.config import Config
from experiments.benchmark.cpc import keras_backend
from experiments.benchmark.measure import measure
from experiments.benchmark.picture import plot_speeds
from experiments.benchmark.works import MEASUREMENTS, ON_GPU, why_not
from experiments.machine import machine
from torchdl.data.vision import import_torchvision
from torchdl.errors import require
from torchdl.files import require_suffix, write_json
from torchdl.training.device import find_device


def main(config: Config) -> None:
    """Measure, print, draw and save."""
    require(config.repeats is None or config.repeats >= 1, f"--repeats must be 1 or more, not {config.repeats}")
    for path, suffix in ((config.json, ".json"), (config.png, ".png")):
        if path is not None:
            require_suffix(path, suffix)
    if config.json is not None:
        config.json.parent.mkdir(parents=True, exist_ok=True)
    gpu = config.device == "cuda"
    works = ON_GPU if gpu else MEASUREMENTS
    require(config.name in (*works, "all"), f"{config.name} is measured on a CPU: choose {', '.join(works)} or all")
    if gpu:
        find_device("cuda")  # which there must be
    parts = list(works) if config.name == "all" else [config.name]
    if {"gan", "lenet"} & set(parts):
        import_torchvision()  # the usual side needs it: fail at once if it does not work
    report: dict[str, Any] = {}
    left_out = {"other libraries, and other parts": "they are measured on a CPU"} if gpu else {}

    def is_there(title: str, name: str) -> bool:
        if reason := why_not(name, config.device):
            left_out[title] = reason
            print(f"left out: {title}: {reason}", file=sys.stderr, flush=True)
        return not reason

    for part, name in [(p, name) for p in parts for name in works[p]]:
        title = name if config.name != "all" or name == part else f"{part}: {name}"
        if not is_there(title, name):
            continue
        full = works[part][name]
        wanted = full.others.items() if config.peers else ()
        measured = full._replace(others={other: side for other, side in wanted if is_there(f"{title}: {other}", other)})
        repeats = config.repeats or (15 if part == "startup" else 5)
        with tempfile.TemporaryDirectory() as folder:
            report[title] = {**measure(config, measured, Path(folder), repeats), "repeats": repeats}
    if config.png is not None:
        plot_speeds(report, config.png)
    threads = config.threads or {"cpc, lenet": torch.get_num_threads(), "others": 1}
    found = {**report, "left out": left_out, **machine(), "torch": torch.__version__, "threads": threads}
    found |= {"device": config.device} if gpu else {}
    if "cpc" in parts and not gpu:
        found["keras"] = keras_backend()
    print(json.dumps(found, indent=2))
    if config.json is not None:
        write_json(config.json, found)
