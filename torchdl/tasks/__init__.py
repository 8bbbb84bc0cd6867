"""Tasks: a model with its losses and optimizers, for the trainer to run."""

from torchdl.tasks.base import Clock, Schedule, Task, Update, plateau
from torchdl.tasks.cpc import CPCTask
from torchdl.tasks.gan import GANTask
from torchdl.tasks.optimizers import Adam, make_adam
from torchdl.tasks.supervised import Supervised, accuracy
