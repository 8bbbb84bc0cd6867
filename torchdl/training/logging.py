"""A run's log: ``metrics.csv``, images as PNG, and all loggers."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torchdl.errors import InputError, first_line, kind_of, require
from torchdl.files import METRICS, PLOTS, SAMPLES
from torchdl.history import read_history, write_history
from torchdl.loggers import RunLogger, TensorBoardLogger
from torchdl.pictures import image_grid, load_png, save_png, side_by_side
from torchdl.plots.figure import save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Logger:
    """Write a run's metrics and images to its folder, and give them to all loggers.

    Args:
        folder: The run's folder; None to write nothing.
        purge_step: From this step on, TensorBoard hides what was logged before a resume.
        loggers: Further loggers. One that raises an error later than at its beginning gets no more, with a warning:
            what is logged elsewhere must not end a training.
        tensorboard: Whether TensorBoard is one of the loggers, if there is a folder.
    """

    def __init__(
        self,
        folder: Path | None,
        purge_step: int | None = None,
        loggers: Sequence[RunLogger] = (),
        tensorboard: bool = True,
    ) -> None:
        self.folder = folder
        self.history: Sequence[Mapping[str, float]] = ()  # that is not yet in the table
        for logger in loggers:
            logger.begin(folder)
        own = [TensorBoardLogger(folder, purge_step)] if folder is not None and tensorboard else []
        self.loggers: tuple[RunLogger, ...] = (*loggers, *own)  # in this order an error of the last leaves none open

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Log numbers, by tag."""
        self.tell("scalars", values, step)

    def epoch(
        self,
        history: Sequence[Mapping[str, float]],
        images: Mapping[str, Tensor],
        warnings: Sequence[str] = (),
        durably: bool = True,
    ) -> None:
        """Log the last epoch of a history with its warnings, and rewrite ``metrics.csv``, one row per epoch.

        Unless ``durably``, the table is written with a later epoch's, or by :meth:`close`, and no curves are drawn.

        Each batch of preview images becomes a grid; the grids, side by side under their names, are
        ``samples/epoch-<number>.png``.
        """
        row = history[-1]
        number, step = int(row["epoch"]), int(row["step"])
        others = ("epoch", "step", "train/", "charts/")  # these are logged during the epoch
        self.scalars({name: value for name, value in row.items() if not name.startswith(others)}, step)
        self.warnings(warnings, step)
        if images and (self.folder is not None or self.loggers):
            picture = side_by_side({name: image_grid(batch) for name, batch in images.items()})
            self.tell("picture", SAMPLES, picture, step)
            if self.folder is not None:
                save_png(picture, self.folder / SAMPLES / f"epoch-{number:04d}.png")
        self.history = list(history)
        if durably:
            if any(name.startswith("val/") for name in row):
                self.tell("curves", history)
            self.write_table()

    def write_table(self) -> None:
        """Write the history of the epochs that are not yet in the table."""
        history, self.history = self.history, ()
        if self.folder is not None and history:
            self.flush()  # first: the table says which epochs were logged
            write_history(history, self.folder / METRICS)

    def warnings(self, sentences: Sequence[str], step: int) -> None:
        """Log warnings as texts."""
        self.tell("warnings", sentences, step)

    def epochs(self) -> int:
        """Return the number of epochs that were logged, those before a resume included."""
        try:
            return 0 if self.folder is None else len(read_history(self.folder / METRICS))
        except InputError:  # missing or damaged
            return 0

    def record(self, record: Mapping[str, Any], metrics: Sequence[str]) -> None:
        """Log hyperparameters, and the names of the validation metrics."""
        self.tell("hyperparameters", record, metrics)

    def picture(self, name: str, picture: Tensor | Figure) -> None:
        """Log a picture (C, H, W), uint8, or a figure, and keep it as ``plots/<name>.png``.

        Raises:
            InputError: It is something else.
        """
        pixels = isinstance(picture, Tensor) and picture.dtype == torch.uint8 and picture.dim() == 3
        given = f"{picture.dtype} {tuple(picture.shape)}" if isinstance(picture, Tensor) else kind_of(picture)
        fits = (pixels and len(picture) in (1, 3)) or hasattr(picture, "savefig")  # type: ignore[arg-type]
        require(fits, f"a picture is a figure, or a tensor of uint8 (1, H, W) or (3, H, W), not {given}")
        if self.folder is not None:
            path = self.folder / PLOTS / f"{name}.png"
            if isinstance(picture, Tensor):
                save_png(picture, path, scale=1)
            else:
                save_figure(picture, path)
            self.show(path)

    def show(self, *paths: Path) -> None:
        """Log PNG files under their names, as ``plots/<name>``."""
        if self.loggers:
            for path in paths:
                self.tell("picture", f"{PLOTS}/{path.stem}", load_png(path), 0)  # all in one of TensorBoard's sections

    def embedding(self, embeddings: Tensor, labels: Sequence[str], images: Tensor | None = None) -> None:
        """Log embeddings (N, D) with labels (N) and images (N, C, H, W) in [0, 1]."""
        self.tell("embedding", embeddings, labels, images)

    def flush(self) -> None:
        """Let the loggers write what was logged."""
        self.tell("flush")

    def close(self, error: BaseException | None = None) -> None:
        """Write what is not yet written, and end the loggers.

        Args:
            error: What has ended the training, if it has not come to its end.
        """
        with ExitStack() as rest:  # an error leaves none open
            rest.callback(self.tell, "close", error)
            self.write_table()

    def __enter__(self) -> Logger:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self.close(error)

    def tell(self, method: str, *arguments: Any) -> None:
        """Call a method of all loggers, and go on without a further one that fails."""
        for logger in self.loggers:
            try:
                getattr(logger, method)(*arguments)
            except Exception as error:
                if isinstance(logger, TensorBoardLogger):
                    raise  # its files are the run's own, and a resume writes what they lack
                self.loggers = tuple(other for other in self.loggers if other is not logger)
                reason = f"{type(error).__name__}: {first_line(error)}"
                warnings.warn(f"{type(logger).__name__} has failed, and gets no more ({reason})", stacklevel=2)
