"""Where a training's numbers, pictures and settings go, beside the files in its folder: MLflow, Weights & Biases."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor

from torchdl.errors import InputError
from torchdl.files import LOGGERS
from torchdl.training.signals import Stopped

MOST_PARAMETERS, LONGEST_PARAMETER = 100, 500  # that MLflow takes at once, and their characters


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

    def close(self, error: BaseException | None = None) -> None:
        """Write what is not yet written; the training has ended, or ``error`` has ended it, such as ``Stopped``."""


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


#: The loggers that a script takes by name; TensorBoard is another one, which the trainer itself has.
BY_NAME: dict[str, Callable[[str, str], RunLogger]] = {"mlflow": MLflowLogger, "wandb": WandbLogger}


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


def plain_name(tag: str) -> str:
    """Return a name that MLflow takes."""
    return re.sub(r"[^-/. :A-Za-z0-9_]", "_", tag)


def as_array(pixels: Tensor) -> Any:
    """Return a picture (C, H, W) uint8 as an array (H, W, 3)."""
    return pixels.expand(3, -1, -1).permute(1, 2, 0).contiguous().cpu().numpy()
