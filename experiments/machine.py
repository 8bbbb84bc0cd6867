"""The machine and the versions of a measurement."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from functools import cache
from pathlib import Path
from typing import Any


def versions() -> dict[str, str]:
    """Return the versions of the packages that results depend on most."""
    names = ("torch", "numpy", "scikit-learn")
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in names}}


def cpu() -> str:
    """Return the processor's name."""
    cpus = Path("/proc/cpuinfo")
    lines = cpus.read_text().splitlines() if cpus.exists() else []
    names = (
        value.strip() for name, _, value in (line.partition(":") for line in lines) if name.strip() == "model name"
    )
    return next(names, platform.processor() or platform.machine())


def machine() -> dict[str, Any]:
    """Describe this machine."""
    import torch  # imported late: it takes seconds

    found = {"cpu": cpu(), "instructions": torch.backends.cpu.get_cpu_capability(), "cores": os.cpu_count()}
    return {**found, "gpu": gpu()} if gpu() else found


@cache
def gpu() -> str:
    """Return the name of the GPU that scripts will use; an empty string if there is none."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""
