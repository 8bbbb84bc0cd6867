"""Finished runs that serve as feature extractors."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn

from torchdl import LenetLike, artifacts


def finished(
    folder: Path, model: nn.Module | None = None, dataset: str = "mnist", classes: str = "ab", **learning
) -> Path:
    """Write the files of a finished run of a classifier that a feature extractor is loaded from."""
    if model is None:
        with torch.random.fork_rng():
            torch.manual_seed(0)  # the same weights whatever other tests have drawn
            model = LenetLike((1, 28, 28), len(classes), width=2, hidden=8)
    artifacts.save(model, folder)
    config = {"images": {"dataset": dataset}, "learning": learning}
    (folder / "config.json").write_text(json.dumps({"config": config}))
    results = {"accuracy": 0.75, "accuracy by class": dict.fromkeys(classes, 0.75)}
    (folder / "results.json").write_text(json.dumps(results))
    return folder
