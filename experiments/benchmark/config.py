"""What to measure, and how."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro


@dataclass(frozen=True)
class Config:
    """Compare the speed of this project with the usual way of doing the same; print medians and the median ratio."""

    name: tyro.conf.Positional[
        Literal["gan", "mlp", "cpc", "lenet", "forecast", "transfer", "trainer", "startup", "all"]
    ]
    """What to measure; all takes about an hour."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where to train: cuda measures gan, mlp, lenet and a step of cpc on a GPU, also compiled, and each side's memory.
    The limit is then the bare step as one CUDA graph. Other libraries and parts are measured on a CPU."""
    repeats: int | None = None
    """Measurements of each side, alternating; 5 if not given, 15 for startup."""
    seconds: float = 10.0
    """Approximate seconds of one measurement; below 1 only tests that it works, with fewer examples."""
    threads: int | None = None
    """CPU threads of each side; if not given, PyTorch's choice for cpc and lenet, and 1 for the others."""
    peers: bool = True
    """Whether to measure other libraries, too (pip install -e '.[bench]'), and the limit that the machine sets."""
    data_root: Path | None = None
    """The folder of the data sets."""
    json: Path | None = None
    """A file to write the result to."""
    png: Path | None = None
    """A file to draw the ratios to."""
