"""The speed of this project beside that of the usual way, of other libraries, and of the machine."""

from experiments.benchmark.command import main
from experiments.benchmark.config import Config

__all__ = ["Config", "main"]
