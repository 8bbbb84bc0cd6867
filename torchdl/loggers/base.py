"""Where a training's numbers, pictures and settings go: the base class of loggers, and what several of them need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor

from torchdl.errors import InputError
from torchdl.files import LOGGERS


class RunLogger:
    """The base class of loggers: a training calls its methods on process 0; here they do nothing.

    The training goes on without a logger that raises an error, with a warning, unless the error comes from ``begin``.

    Example:
        >>> class Console(torchdl.RunLogger):
        ...     def scalars(self, values, step):
        ...         print(step, sorted(values))
        >>> loader = torchdl.BatchLoader(torchdl.ArrayDataset(torch.ones(4, 1), torch.ones(4, 1)), batch_size=2)
        >>> task = torchdl.Supervised(torch.nn.Linear(1, 1), torch.nn.functional.mse_loss)
        >>> _ = torchdl.Trainer(epochs=1).fit(task, loader, loader, loggers=[Console()])
        2 ['charts/learning_rate', 'train/grad_norm', 'train/loss']
        2 ['val/loss']
    """

    def begin(self, folder: Path | None) -> None:
        """Begin, or go on with what was logged for the same folder; it is None if nothing is written."""

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Log ``values``, numbers by tag, after a number of steps, ``step``."""

    def picture(self, tag: str, pixels: Tensor, step: int) -> None:
        """Log a picture, ``pixels`` (C, H, W) uint8, as ``tag`` after a number of steps, ``step``."""

    def hyperparameters(self, values: Mapping[str, Any], metrics: Sequence[str]) -> None:
        """Log the settings of a new training, ``values`` by name, and the names of its validation ``metrics``."""

    def curves(self, history: Sequence[Mapping[str, float]]) -> None:
        """Draw the ``history`` so far, a row of metrics per epoch; the last one has been validated."""

    def warnings(self, sentences: Sequence[str], step: int) -> None:
        """Log warnings, ``sentences``, after a number of steps, ``step``."""

    def embedding(self, embeddings: Tensor, labels: Sequence[str], images: Tensor | None = None) -> None:
        """Log ``embeddings`` (N, D) with ``labels`` (N) and, where there are any, ``images`` (N, C, H, W) in [0, 1]."""

    def flush(self) -> None:
        """Write what was logged so far: a checkpoint follows."""

    def close(self, error: BaseException | None = None) -> None:
        """Write what is not yet written; the training has ended, or ``error`` has ended it, such as ``Stopped``."""


def module(name: str, extra: str) -> ModuleType:
    """Import another library, or say how to install it."""
    try:
        return __import__(name)
    except ImportError as error:
        raise InputError(f"{name} is not installed: pip install 'torchdl[{extra}]'") from error


def known_id(folder: Path | None, logger: str) -> str:
    """Return the name that a logger has given to the run of a folder; "" if there is none."""
    path = None if folder is None else folder / LOGGERS / f"{logger}.txt"
    return path.read_text(encoding="utf-8").strip() if path is not None and path.is_file() else ""


def keep_id(folder: Path | None, logger: str, run: str) -> None:
    """Keep the name that a logger has given to the run of a folder, for a resume."""
    if folder is not None:
        (folder / LOGGERS).mkdir(parents=True, exist_ok=True)
        (folder / LOGGERS / f"{logger}.txt").write_text(run + "\n", encoding="utf-8")


def as_array(pixels: Tensor) -> Any:
    """Return a picture (C, H, W) uint8 as an array (H, W, 3)."""
    return pixels.expand(3, -1, -1).permute(1, 2, 0).contiguous().cpu().numpy()
