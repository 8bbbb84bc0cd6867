"""Files that are written whole or not at all, and the names of the files in a run's folder."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torchdl.errors import InputError

PathLike = str | os.PathLike[str]

CONFIG = "config.json"  # every setting, the versions and the data's fingerprint
METRICS = "metrics.csv"  # one row per epoch
RESULTS = "results.json"  # the results at the end of a run
EVALUATION = "evaluation.json"  # the evaluation of a trained generator
PLOTS = "plots"  # the folder of the figures
CHECKPOINT, PREVIOUS, BEST = "checkpoint.pt", "checkpoint.previous.pt", "best.pt"
ARCHITECTURE, WEIGHTS = "architecture.json", "weights.safetensors"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; then flush that file to the disk and rename it to ``path``.

    If anything goes wrong before the rename (a full disk, a killed process), the old file stays as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any, default: Callable[[Any], Any] | None = None) -> None:
    """Write ``value`` as indented JSON, whole or not at all; ``default`` converts values that JSON lacks."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, default=default) + "\n", encoding="utf-8")


def read_config(folder: Path) -> dict[str, Any]:
    """Read a run's ``config.json``.

    Raises:
        InputError: It is missing or damaged.
    """
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is damaged"
        raise InputError(f"{folder} is not a run's folder: its {CONFIG} cannot be read ({reason})") from error
    return config if isinstance(config, dict) else {}
