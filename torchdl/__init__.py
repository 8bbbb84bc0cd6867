"""torchdl: a deep-learning course and contrastive predictive coding in PyTorch."""

from torchdl.artifacts import load, save
from torchdl.data import (
    BatchLoader,
    Digits,
    ImageDataset,
    SameNumbers,
    ShiftedImages,
    SortedNumbers,
    load_digits,
    load_images,
    whole_batch,
)
from torchdl.errors import InputError
from torchdl.models import (
    CPC,
    GAN,
    MLP,
    Autoencoder,
    BionodalRootUnit,
    ContextNetwork,
    Discriminator,
    Generator,
    ImageEncoder,
    LenetLike,
    Predictors,
    SignalEncoder,
    StridedCNN,
    VGGLike,
    deep_gan,
    image_cpc,
    simple_gan,
)
from torchdl.recipes import fit_model_cifar10, fit_model_on, make_autoencoder_model, make_lenet_model
from torchdl.tasks import AutoencoderTask, CPCTask, GANTask, Supervised, Task, Update
from torchdl.training import Stopped, Trainer, TrainingDiverged

__version__ = "0.1.0"

__all__ = [
    "CPC",
    "GAN",
    "MLP",
    "Autoencoder",
    "AutoencoderTask",
    "BatchLoader",
    "BionodalRootUnit",
    "CPCTask",
    "ContextNetwork",
    "Digits",
    "Discriminator",
    "GANTask",
    "Generator",
    "ImageDataset",
    "ImageEncoder",
    "InputError",
    "LenetLike",
    "Predictors",
    "SameNumbers",
    "ShiftedImages",
    "SignalEncoder",
    "SortedNumbers",
    "Stopped",
    "StridedCNN",
    "Supervised",
    "Task",
    "Trainer",
    "TrainingDiverged",
    "Update",
    "VGGLike",
    "deep_gan",
    "fit_model_cifar10",
    "fit_model_on",
    "image_cpc",
    "load",
    "load_digits",
    "load_images",
    "make_autoencoder_model",
    "make_lenet_model",
    "save",
    "simple_gan",
    "whole_batch",
]
