"""Tasks: a model with its losses and optimizers, for the trainer to train."""

from torchdl.fast.adam import Adam
from torchdl.tasks.autoencoder import AutoencoderTask
from torchdl.tasks.base import StepInfo, Task, Update
from torchdl.tasks.cpc import CPCTask
from torchdl.tasks.gan import GANTask
from torchdl.tasks.optimizers import OPTIMIZERS, OptimizerName, make_optimizer
from torchdl.tasks.schedules import SCHEDULES, AnySchedule, Schedule, ScheduleName, find_schedule, milestones, plateau
from torchdl.tasks.supervised import Supervised, accuracy, binary_accuracy

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "Adam",
    "AnySchedule",
    "AutoencoderTask",
    "CPCTask",
    "GANTask",
    "OptimizerName",
    "Schedule",
    "ScheduleName",
    "StepInfo",
    "Supervised",
    "Task",
    "Update",
    "accuracy",
    "binary_accuracy",
    "find_schedule",
    "make_optimizer",
    "milestones",
    "plateau",
]
