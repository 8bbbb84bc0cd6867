"""Where a training's numbers, pictures and settings go, beside the files in its folder: a logger in each file."""

from collections.abc import Callable

from torchdl.loggers.base import RunLogger
from torchdl.loggers.mlflow import MLflowLogger
from torchdl.loggers.tensorboard import TensorBoardLogger
from torchdl.loggers.wandb import WandbLogger

__all__ = ["BY_NAME", "MLflowLogger", "RunLogger", "TensorBoardLogger", "WandbLogger"]

#: The loggers that a script takes by name; TensorBoard is another one, which every run's log has by default.
BY_NAME: dict[str, Callable[[str, str], RunLogger]] = {"mlflow": MLflowLogger, "wandb": WandbLogger}
