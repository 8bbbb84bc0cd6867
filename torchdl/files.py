"""Files that are written whole or not at all, and the names of the files in a run's folder."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from torchdl.errors import InputError, require

PathLike = str | os.PathLike[str]

CONFIG = "config.json"  # every setting, the versions and the data's fingerprint
METRICS = "metrics.csv"  # one row per epoch
RESULTS = "results.json"  # the results at the end of a run
EVALUATION = "evaluation.json"  # the evaluation of a trained generator
PLOTS = "plots"  # the folder of the figures
CHECKPOINT, PREVIOUS, BEST = "checkpoint.pt", "checkpoint.previous.pt", "best.pt"
ARCHITECTURE, WEIGHTS = "architecture.json", "weights.safetensors"
MAX_JSON = 2**28  # bytes


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


def read_json(path: str | os.PathLike[str], kind: Any = Any, limit: int = MAX_JSON) -> Any:
    """Read a JSON file that may be anybody's, and check what it holds.

    Args:
        path: The file.
        kind: What it must hold: a type such as ``dict[str, float]``, a dataclass or a ``TypedDict``. Values that JSON
            lacks are converted: a list to a tuple, an object to a dataclass.
        limit: The maximum size in bytes.

    Returns:
        The value, of type ``kind``.

    Raises:
        InputError: The file is missing, too large, damaged, nested too deeply, or holds something else.

    Example:
        >>> import os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "classes.json")
        >>> with open(path, "w") as file:
        ...     _ = file.write('["ham", 3]')
        >>> torchdl.files.read_json(path, list[str])  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        torchdl.errors.InputError: .../classes.json cannot be read: Expected `str`, got `int` - at `$[1]`
    """
    try:
        with open(path, "rb") as file:
            text = file.read(limit + 1)
        require(len(text) <= limit, f"{path} cannot be read: it is larger than {limit:,} bytes")
        return msgspec.convert(json.loads(text.decode("utf-8")), kind)
    except InputError:
        raise
    except RecursionError as error:
        raise InputError(f"{path} cannot be read: it is nested too deeply") from error
    except msgspec.ValidationError as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    except ValueError as error:  # JSON's and UTF-8's errors are ValueErrors
        raise InputError(f"{path} cannot be read: it is not JSON, or damaged ({error})") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


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
