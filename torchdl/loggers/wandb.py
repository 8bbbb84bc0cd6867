"""Weights & Biases as a logger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from torchdl.loggers.base import RunLogger, as_array, keep_id, known_id, module


class WandbLogger(RunLogger):
    """Log to Weights & Biases, as its own settings say (``$WANDB_MODE``: online or offline, for example).

    Needs ``pip install 'torchdl[wandb]'``.

    Args:
        project: The project's name.
        name: The run's name; that of its folder if not given.
        options: Further arguments of ``wandb.init``.

    Example:
        >>> logger = torchdl.WandbLogger("digits", mode="offline")
        >>> logger.options
        {'mode': 'offline'}
    """

    def __init__(self, project: str = "torchdl", name: str = "", **options: Any) -> None:
        self.project, self.name, self.options = project, name, options
        self.wandb = module("wandb", "wandb")

    def begin(self, folder: Path | None) -> None:
        """Make the run, or go on with that of the folder."""
        known = known_id(folder, "wandb")
        more = {"id": known, "resume": "allow"} if known else {}
        name = self.name or (folder.name if folder else None)
        self.run = self.wandb.init(project=self.project, name=name, **{**more, **self.options})
        keep_id(folder, "wandb", self.run.id)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """As :meth:`RunLogger.scalars`."""
        self.run.log(dict(values), step=step)

    def picture(self, tag: str, pixels: Tensor, step: int) -> None:
        """As :meth:`RunLogger.picture`."""
        self.run.log({tag: self.wandb.Image(as_array(pixels))}, step=step)

    def hyperparameters(self, values: Mapping[str, Any], metrics: Sequence[str]) -> None:
        """As :meth:`RunLogger.hyperparameters`, as the run's configuration."""
        self.run.config.update(dict(values), allow_val_change=True)

    def close(self, error: BaseException | None = None) -> None:
        """End the run, with the exit code 1 after an error."""
        self.run.finish(exit_code=int(error is not None))
