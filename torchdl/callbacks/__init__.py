"""What takes part in a training beside its task: callbacks, one concept in each file."""

from torchdl.callbacks.base import Callback, Training
from torchdl.callbacks.best import Best, BestCheckpoint, BestWeights, Monitoring
from torchdl.callbacks.early_stopping import EarlyStopping
from torchdl.callbacks.learning_rate_finder import LearningRateFinder
from torchdl.callbacks.progress_bar import ProgressBar
from torchdl.callbacks.weight_average import WeightAverage

__all__ = [
    "Best",
    "BestCheckpoint",
    "BestWeights",
    "Callback",
    "EarlyStopping",
    "LearningRateFinder",
    "Monitoring",
    "ProgressBar",
    "Training",
    "WeightAverage",
]
