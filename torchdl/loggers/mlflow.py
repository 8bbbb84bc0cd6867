"""MLflow as a logger."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from torchdl.errors import InputError, Stopped
from torchdl.loggers.base import RunLogger, as_array, keep_id, known_id, module

MOST_PARAMETERS, LONGEST_PARAMETER = 100, 500  # that MLflow takes at once, and their characters


class MLflowLogger(RunLogger):
    """Log to MLflow: to its own tracking URI (``$MLFLOW_TRACKING_URI``), or to another one.

    Needs ``pip install 'torchdl[mlflow]'``. MLflow 3 logs to a folder only if ``$MLFLOW_ALLOW_FILE_STORE`` is ``true``;
    its small package, ``mlflow-skinny``, has no databases.

    Args:
        experiment: The experiment's name; it is made if it is not there.
        name: The run's name; that of its folder if not given.
        tracking_uri: Such as ``http://...`` or ``sqlite:///mlflow.db``; MLflow's own setting if not given.

    Example:
        >>> logger = torchdl.MLflowLogger("digits", tracking_uri="sqlite:///mlflow.db")
        >>> logger.experiment
        'digits'
    """

    def __init__(self, experiment: str = "torchdl", name: str = "", tracking_uri: str | None = None) -> None:
        self.experiment, self.name, self.uri = experiment, name, tracking_uri
        self.mlflow = module("mlflow", "mlflow")

    def begin(self, folder: Path | None) -> None:
        """Make the run, or find that of the folder.

        Raises:
            InputError: MLflow takes no runs.
        """
        try:
            self.client = self.mlflow.MlflowClient(tracking_uri=self.uri)
            found = self.client.get_experiment_by_name(self.experiment)
            number = self.client.create_experiment(self.experiment) if found is None else found.experiment_id
            self.run = known_id(folder, "mlflow")
            if self.run:
                self.client.update_run(self.run, status="RUNNING")
                return
            name = self.name or (folder.name if folder else None)
            self.run = self.client.create_run(number, run_name=name).info.run_id
        except self.mlflow.exceptions.MlflowException as error:
            raise InputError(f"MLflow takes no runs: {' '.join(str(error).split())}") from error
        except ImportError as error:  # MLflow imports as it needs
            advice = "mlflow-skinny has no databases: pip install mlflow, or log to a server"
            raise InputError(f"MLflow takes no runs ({error}); {advice}") from error
        keep_id(folder, "mlflow", self.run)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """As :meth:`RunLogger.scalars`; of a tag's characters, those that MLflow refuses become underscores."""
        now, metric = int(1000 * time.time()), self.mlflow.entities.Metric
        self.client.log_batch(self.run, metrics=[metric(plain_name(tag), v, now, step) for tag, v in values.items()])

    def picture(self, tag: str, pixels: Tensor, step: int) -> None:
        """As :meth:`RunLogger.picture`, as an artifact."""
        file = f"{re.sub(r'[^-/. A-Za-z0-9_]', '_', tag)}/{step:07d}.png"
        self.client.log_image(self.run, as_array(pixels), file)

    def hyperparameters(self, values: Mapping[str, Any], metrics: Sequence[str]) -> None:
        """As :meth:`RunLogger.hyperparameters`, as parameters."""
        texts = {plain_name(name): str(value)[:LONGEST_PARAMETER] for name, value in values.items()}
        made = [self.mlflow.entities.Param(name, text) for name, text in texts.items()]
        for start in range(0, len(made), MOST_PARAMETERS):
            self.client.log_batch(self.run, params=made[start : start + MOST_PARAMETERS])

    def close(self, error: BaseException | None = None) -> None:
        """Mark the run as finished, as killed if a signal has stopped it, or as failed."""
        stopped = "KILLED" if isinstance(error, Stopped) else "FAILED"
        self.client.set_terminated(self.run, "FINISHED" if error is None else stopped)


def plain_name(tag: str) -> str:
    """Return a name that MLflow takes."""
    return re.sub(r"[^-/. :A-Za-z0-9_]", "_", tag)
