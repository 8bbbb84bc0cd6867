"""The cores that JAX may use."""

from __future__ import annotations

import os


def use_cores(count: int) -> None:
    """Keep this process on ``count`` cores, because JAX, unlike PyTorch, has no setting for its threads."""
    if hasattr(os, "sched_setaffinity"):  # Linux
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-count:])
    os.environ["JAX_PLATFORMS"] = "cpu"
