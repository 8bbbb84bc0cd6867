"""The trainer and what it stands on."""

from torchdl.training.signals import Stopped
from torchdl.training.step import TrainingDiverged
from torchdl.training.trainer import Trainer
