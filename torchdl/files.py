"""Files that are written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to, then flush it to the disk and rename it to ``path``.

    Whatever goes wrong before the rename (a full disk, a killed process) leaves the old file as it was.
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
    """Write ``value`` as indented JSON, whole or not at all; ``default`` converts what JSON does not know."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, default=default) + "\n", encoding="utf-8")
