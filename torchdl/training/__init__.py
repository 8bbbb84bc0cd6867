"""The trainer and its parts: steps, evaluation, checkpoints, logging, processes and signals."""

from torchdl.errors import Stopped
from torchdl.training.step import TrainingDiverged
from torchdl.training.trainer import Trainer

__all__ = ["Stopped", "Trainer", "TrainingDiverged"]
