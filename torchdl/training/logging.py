"""A run's log: TensorBoard events, ``metrics.csv``, and images as PNG."""

from __future__ import annotations

import csv
import math
import re
import shutil
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from torchdl.errors import first_line, kind_of, require
from torchdl.files import EMBEDDING, METRICS, PLOTS, SAMPLES, replacing
from torchdl.pictures import image_grid, load_png, save_png, side_by_side
from torchdl.plots.curves import compared, panels, plot_history
from torchdl.plots.figure import save_figure
from torchdl.training.loggers import RunLogger

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# TensorBoard's HParams shows five columns, those that are marked as differing between runs first, then by name
VISIBLE = 5


class Logger:
    """Write a run's metrics and images to its folder.

    Args:
        folder: The run's folder; None to write nothing.
        purge_step: From this step on, TensorBoard hides what was logged before a resume.
        loggers: Further loggers, which get the same numbers, pictures and settings. One that raises an error later than
            at its beginning gets no more, with a warning: what is logged elsewhere must not end a training.
        tensorboard: Whether to write TensorBoard's files.
    """

    def __init__(
        self,
        folder: Path | None,
        purge_step: int | None = None,
        loggers: Sequence[RunLogger] = (),
        tensorboard: bool = True,
    ) -> None:
        self.folder, self.writer, self.loggers = folder, None, tuple(loggers)
        self.history: Sequence[Mapping[str, float]] = ()  # that is not yet in the table
        for logger in self.loggers:
            logger.begin(folder)
        if folder is not None and tensorboard:
            from torch.utils.tensorboard import SummaryWriter  # imported late, because it takes a second

            self.writer = SummaryWriter(str(folder), purge_step=purge_step)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Log numbers, by tag."""
        self.tell("scalars", values, step)
        if self.writer is not None:
            for tag, value in values.items():
                self.writer.add_scalar(tag, value, step)

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
        ``samples/epoch-<number>.png``. TensorBoard gets the curves that it cannot draw in colours of their own as
        images.
        """
        row = history[-1]
        number, step = int(row["epoch"]), int(row["step"])
        others = ("epoch", "step", "train/", "charts/")  # these are logged during the epoch
        self.scalars({name: value for name, value in row.items() if not name.startswith(others)}, step)
        self.warnings(warnings, step)
        if images and (self.folder is not None or self.loggers):
            picture = side_by_side({name: image_grid(batch) for name, batch in images.items()})
            self.image(SAMPLES, picture, step)
            if self.folder is not None:
                save_png(picture, self.folder / SAMPLES / f"epoch-{number:04d}.png")
        self.history = list(history)
        if durably:
            if self.writer is not None and any(name.startswith("val/") for name in row):
                for name, part in compared(history).items():
                    self.writer.add_figure(f"curves/{name}", plot_history(part), step)
            self.write_table()

    def write_table(self) -> None:
        """Write the history of the epochs that are not yet in the table."""
        history, self.history = self.history, ()
        if self.folder is not None and history:
            self.flush()  # first: the table says which epochs were logged
            columns = list(dict.fromkeys(key for row in history for key in row))
            with replacing(self.folder / METRICS) as path, open(path, "w", newline="", encoding="utf-8") as file:
                rows = csv.DictWriter(file, columns)
                rows.writeheader()
                rows.writerows(history)

    def image(self, tag: str, picture: Tensor, step: int) -> None:
        """Log a picture (C, H, W) uint8."""
        self.tell("picture", tag, picture, step)
        if self.writer is not None:
            self.writer.add_image(tag, picture, step)

    def warnings(self, sentences: Sequence[str], step: int) -> None:
        """Log warnings as texts."""
        if self.writer is not None:
            for sentence in sentences:
                self.writer.add_text("warnings", sentence, step)

    def epochs(self) -> int:
        """Return the number of epochs that were logged, those before a resume included."""
        if self.folder is None:
            return 0
        try:
            with open(self.folder / METRICS, newline="", encoding="utf-8") as file:
                return max(0, sum(1 for _ in csv.reader(file)) - 1)
        except (OSError, ValueError, csv.Error):  # missing or damaged
            return 0

    def record(self, record: Mapping[str, Any], metrics: Sequence[str]) -> None:
        """Log hyperparameters as a table and as text, in this run (``add_hparams`` would start another run)."""
        self.tell("hyperparameters", record, metrics)
        if self.writer is not None:
            from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
            from torch.utils.tensorboard.summary import hparams

            flat = {k: v if isinstance(v, (bool, int, float, str)) else str(v) for k, v in record.items()}
            columns, *session = hparams(flat, dict.fromkeys(metrics, math.nan))
            plugin = columns.value[0].metadata.plugin_data
            content = HParamsPluginData.FromString(plugin.content)
            for column in content.experiment.hparam_infos[:VISIBLE]:
                column.differs = True
            plugin.content = content.SerializeToString()
            for summary in (columns, *session):
                self.writer._get_file_writer().add_summary(summary)
            charts = {
                name: ["Multiline", [f"^{re.escape(tag)}$" for tag in (f"train/{name}", *tags)]]
                for name, tags in panels(metrics).items()
                if "(" not in name  # in "D(x) (run)", TensorBoard takes all from the first bracket on for the run
            }
            self.writer.add_custom_scalars({"training, validation, chance and ceiling": charts})
            self.writer.add_text("record", "\n".join(f"- **{k}**: {v}" for k, v in flat.items()))

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
        if self.writer is not None or self.loggers:
            for path in paths:
                self.image(f"{PLOTS}/{path.stem}", load_png(path), 0)  # all in one of TensorBoard's sections

    def embedding(self, embeddings: Tensor, labels: Sequence[str], images: Tensor | None = None) -> None:
        """Log embeddings (N, D) for TensorBoard's projector, with labels (N) and images (N, C, H, W) in [0, 1]."""
        if self.writer is not None and self.folder is not None:
            shutil.rmtree(self.folder / EMBEDDING, ignore_errors=True)  # from before a resume
            (self.folder / "projector_config.pbtxt").unlink(missing_ok=True)
            if images is not None:
                height, width = images.shape[2:]  # the projector needs square images
                images = F.pad(images, (0, max(0, height - width), 0, max(0, width - height)), value=0.5)
            self.writer.add_embedding(embeddings, list(labels), images, tag="embeddings")

    def flush(self) -> None:
        """Write what was logged to TensorBoard's file."""
        if self.writer is not None:
            self.writer.flush()

    def close(self, error: BaseException | None = None) -> None:
        """Write what is not yet written, close TensorBoard's file, and end the further loggers.

        Args:
            error: What has ended the training, if it has not come to its end.
        """
        with ExitStack() as rest:  # an error in one leaves none open
            rest.callback(self.tell, "close", error)
            if self.writer is not None:
                rest.callback(self.writer.close)
            self.write_table()

    def __enter__(self) -> Logger:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self.close(error)

    def tell(self, method: str, *arguments: Any) -> None:
        """Call a method of the further loggers, and go on without one that fails."""
        for logger in self.loggers:
            try:
                getattr(logger, method)(*arguments)
            except Exception as error:
                self.loggers = tuple(other for other in self.loggers if other is not logger)
                reason = f"{type(error).__name__}: {first_line(error)}"
                warnings.warn(f"{type(logger).__name__} has failed, and gets no more ({reason})", stacklevel=2)


def is_main(metric: str) -> bool:
    """Return whether a metric is no detail of another one, no reference of it and no chart."""
    return not any(word in metric for word in ("charts", "norm", "_chance", "_ceiling", "_step_", "_class_"))


def describe(row: Mapping[str, float]) -> str:
    """Return an epoch's main metrics in one line."""
    shown = {k.removeprefix("train/"): v for k, v in row.items() if is_main(k)}
    return "  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in shown.items())
