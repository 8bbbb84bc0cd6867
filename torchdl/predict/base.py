"""What all predictors have in common: a model, and the settings between raw inputs, tensors and answers.

The settings are a frozen dataclass, saved as ``preprocessing.json`` beside the model's two files: data, never code.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from torchdl import artifacts
from torchdl.data.arrays import require_whole
from torchdl.errors import kind_of, require
from torchdl.evaluation_mode import evaluating
from torchdl.files import PREPROCESSING, PathLike, write_json
from torchdl.training.device import find_device

SettingsT = TypeVar("SettingsT")


class Predictor(Generic[SettingsT]):
    """A trained model that answers on raw inputs.

    A subclass names its ``kind`` and the class of its ``Settings``, and defines :meth:`check` and ``predict``.

    Args:
        model: The model. Answers are computed in evaluation mode and without gradients; afterwards it is as before.
        settings: What is between raw inputs and tensors, and between outputs and answers.
        device: auto, cpu, cuda, cuda:N or mps.
        batch_size: The number of inputs that are computed at once.
        workers: The number of processes that decode a data set's files, if they do not fit in memory.

    Raises:
        InputError: The model and the settings do not match.
    """

    kind: ClassVar[str]
    Settings: ClassVar[type[Any]]

    def __init__(
        self,
        model: nn.Module,
        settings: SettingsT,
        device: str | torch.device = "auto",
        batch_size: int = 500,
        workers: int = 0,
    ) -> None:
        require_whole("batch_size", batch_size)
        self.model, self.settings, self.device, self.batch_size = model, settings, find_device(device), batch_size
        self.workers = workers
        self.check()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {kind_of(self.model)}>"

    def check(self) -> None:
        """Raise :class:`InputError` unless the settings are sound and the model's."""
        raise NotImplementedError

    def predict(self, inputs: Any) -> Any:
        """Answer on raw inputs."""
        raise NotImplementedError

    @classmethod
    def read_more(cls, folder: Path) -> dict[str, Any]:
        """Read what a kind keeps in more files of a run's folder: further arguments of its constructor."""
        return {}

    def save(self, folder: PathLike) -> None:
        """Save the model and the settings in ``folder``, from which :func:`load_predictor` loads them."""
        artifacts.save(self.model, folder)
        self.save_settings(folder)

    def save_settings(self, folder: PathLike) -> None:
        """Save the settings alone, as ``preprocessing.json``, in an existing folder."""
        write_json(Path(folder) / PREPROCESSING, {"kind": self.kind, "settings": asdict(self.settings)})  # type: ignore[call-overload]

    def computed(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Apply a ``function`` of the model to inputs ``x`` (N, ...), in batches; the result is on the CPU."""
        with self.ready():
            return torch.cat([function(part.to(self.device)).cpu() for part in x.split(self.batch_size)])

    def ready(self) -> AbstractContextManager[None]:
        """Put the model on the device and in evaluation mode, without gradients; leaving undoes that."""
        return evaluating(self.model, self.device)


def require_finite(answers: Tensor) -> None:
    """Raise :class:`InputError` unless answers (N, ...) are finite numbers; the message says which is the first not."""
    finite = answers.isfinite().reshape(len(answers), -1).all(1)  # (N,)
    number = int((~finite).int().argmax()) if len(finite) else 0
    require(
        bool(finite.all()),
        f"the answer on input {number}, counted from 0, is not a finite number: the input is too different from the "
        "training's, or the training has diverged",
    )
