"""TensorBoard as a logger."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from torchdl.files import EMBEDDING
from torchdl.loggers.base import RunLogger
from torchdl.plots.curves import compared, panels, plot_history

# TensorBoard's HParams shows five columns, those that are marked as differing between runs first, then by name
VISIBLE = 5


class TensorBoardLogger(RunLogger):
    """Log to TensorBoard's files in a run's folder.

    Args:
        folder: The run's folder.
        purge_step: From this step on, TensorBoard hides what was logged before a resume.
    """

    def __init__(self, folder: Path, purge_step: int | None = None) -> None:
        from torch.utils.tensorboard import SummaryWriter  # imported late, because it takes a second

        self.folder, self.writer = folder, SummaryWriter(str(folder), purge_step=purge_step)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """As :meth:`RunLogger.scalars`."""
        for tag, value in values.items():
            self.writer.add_scalar(tag, value, step)

    def picture(self, tag: str, pixels: Tensor, step: int) -> None:
        """As :meth:`RunLogger.picture`."""
        self.writer.add_image(tag, pixels, step)

    def curves(self, history: Sequence[Mapping[str, float]]) -> None:
        """Log as images what TensorBoard cannot draw in colours of their own: references, and a GAN's D(x)."""
        for name, part in compared(history).items():
            self.writer.add_figure(f"curves/{name}", plot_history(part), int(history[-1]["step"]))

    def warnings(self, sentences: Sequence[str], step: int) -> None:
        """As :meth:`RunLogger.warnings`, as texts."""
        for sentence in sentences:
            self.writer.add_text("warnings", sentence, step)

    def hyperparameters(self, values: Mapping[str, Any], metrics: Sequence[str]) -> None:
        """Log a table of this run (``add_hparams`` would start another run), a text, and the layout of the charts."""
        from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
        from torch.utils.tensorboard.summary import hparams

        flat = {k: v if isinstance(v, (bool, int, float, str)) else str(v) for k, v in values.items()}
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

    def embedding(self, embeddings: Tensor, labels: Sequence[str], images: Tensor | None = None) -> None:
        """Show embeddings in the projector, instead of those from before a resume."""
        shutil.rmtree(self.folder / EMBEDDING, ignore_errors=True)
        (self.folder / "projector_config.pbtxt").unlink(missing_ok=True)
        if images is not None:
            height, width = images.shape[2:]  # the projector needs square images
            images = F.pad(images, (0, max(0, height - width), 0, max(0, width - height)), value=0.5)
        self.writer.add_embedding(embeddings, list(labels), images, tag="embeddings")

    def flush(self) -> None:
        """Write what was logged so far."""
        self.writer.flush()

    def close(self, error: BaseException | None = None) -> None:
        """Close the file."""
        self.writer.close()
