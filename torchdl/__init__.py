"""torchdl: a deep-learning course and contrastive predictive coding in PyTorch."""

from torchdl.artifacts import load, save
from torchdl.data import (
    BatchLoader,
    Digits,
    ImageDataset,
    SameNumbers,
    SortedNumbers,
    load_digits,
    load_images,
    whole_batch,
)
from torchdl.errors import InputError
from torchdl.models import (
    CPC,
    GAN,
    ContextNetwork,
    Discriminator,
    Generator,
    ImageEncoder,
    Predictors,
    SignalEncoder,
    deep_gan,
    image_cpc,
    simple_gan,
)
from torchdl.tasks import CPCTask, GANTask, Supervised, Task, Update
from torchdl.training import Stopped, Trainer, TrainingDiverged

__version__ = "0.1.0"

__all__ = [
    "CPC",
    "GAN",
    "BatchLoader",
    "CPCTask",
    "ContextNetwork",
    "Digits",
    "Discriminator",
    "GANTask",
    "Generator",
    "ImageDataset",
    "ImageEncoder",
    "InputError",
    "Predictors",
    "SameNumbers",
    "SignalEncoder",
    "SortedNumbers",
    "Stopped",
    "Supervised",
    "Task",
    "Trainer",
    "TrainingDiverged",
    "Update",
    "deep_gan",
    "image_cpc",
    "load",
    "load_digits",
    "load_images",
    "save",
    "simple_gan",
    "whole_batch",
]
