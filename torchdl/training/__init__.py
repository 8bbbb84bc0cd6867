"""The trainer and what it stands on."""

from torchdl.training.stopping import Stopped
from torchdl.training.trainer import Trainer
from torchdl.training.updates import TrainingDiverged
