"""What a trained CPC model makes of data: embeddings of inputs, and contexts of sequences.

Shapes: N inputs or sequences, T terms, D numbers per embedding, H per context.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from torchdl import artifacts
from torchdl.data import BatchLoader
from torchdl.data.arrays import as_tensor
from torchdl.errors import InputError, kind_of, require
from torchdl.evaluation_mode import evaluating
from torchdl.files import PathLike
from torchdl.training.device import find_device, move


class CPCFeatures:
    """Compute embeddings and contexts with a trained CPC model, in batches and on a device.

    The model computes in evaluation mode and without gradients. Afterwards it is as before: in its modes, on its
    device. The results are on the CPU.

    Args:
        model: A :class:`CPC`; or the folder of a run that saved one; or just an encoder, for :meth:`encode`.
        batch_size: The number of inputs, or of sequences, that are computed at once.
        device: auto, cpu, cuda, cuda:N or mps.

    Raises:
        InputError: The folder holds no model that can be loaded, or the device is not there.

    Example:
        >>> encoder = torchdl.SignalEncoder(channels=2, code_size=16, kernels=(8, 4), strides=(4, 2))
        >>> cpc = torchdl.CPC(encoder, torchdl.ContextNetwork(16, 32), torchdl.Predictors(32, 16, steps=2))
        >>> features = torchdl.CPCFeatures(cpc, device="cpu")
        >>> features.encode(torch.zeros(100, 2, 40)).shape  # 100 windows of two channels
        torch.Size([100, 16])
        >>> sequences = torchdl.SignalWindows(torch.randn(2, 4000), window=40, hop=40, terms=5, predict_terms=2)
        >>> features.contexts(sequences).shape
        torch.Size([13, 5, 32])
    """

    def __init__(self, model: nn.Module | PathLike, batch_size: int = 500, device: str | torch.device = "auto") -> None:
        loaded = artifacts.load(model) if isinstance(model, (str, os.PathLike)) else model
        require(
            isinstance(loaded, nn.Module), f"CPCFeatures needs a model or the folder of a run, not {kind_of(loaded)}"
        )
        require(batch_size >= 1, f"batch_size must be at least 1, not {batch_size}")
        self.model, self.batch_size, self.device = loaded, batch_size, find_device(device)

    def encode(self, inputs: Any, epoch: int = 0) -> Tensor:
        """Return the embeddings (N, D) of inputs, such as images or windows of a signal.

        Args:
            inputs: (N, ...) floating-point numbers, a tensor or array; or a data set of inputs, or of tuples that begin
                with one.
            epoch: The epoch whose items are encoded, for a data set that draws them anew in each.
        """
        return self._compute(getattr(self.model, "encoder", self.model), inputs, epoch)

    def contexts(self, sequences: Any, epoch: int = 0) -> Tensor:
        """Return the contexts (N, T, H) of sequences; each depends only on the terms up to its own.

        Args:
            sequences: (N, T, ...) floating-point numbers, a tensor or array; or a data set of such sequences, or of
                tuples that begin with one, as those of :class:`SignalWindows` do with their contexts.
            epoch: The epoch whose sequences are used, for a data set that draws them anew in each.

        Raises:
            InputError: The model is an encoder alone.
        """
        cpc = self.model
        whole = hasattr(cpc, "encode") and hasattr(cpc, "context")
        require(whole, f"contexts need a whole CPC model, with encoder and context network, not {kind_of(cpc)}")
        return self._compute(lambda sequences: cpc.context(cpc.encode(sequences)), sequences, epoch)  # type: ignore[operator]

    def _compute(self, compute: Callable[[Tensor], Tensor], inputs: Any, epoch: int) -> Tensor:
        """Return what ``compute`` makes of all inputs, on the CPU."""
        require(not hasattr(inputs, "__len__") or len(inputs) > 0, "there are no inputs")
        first = next(chain(self.model.parameters(), self.model.buffers()), torch.zeros(()))
        kind, found = first.dtype if first.is_floating_point() else torch.float32, []
        with evaluating(self.model, self.device):
            for batch in self._batches(inputs, epoch):
                values = batch[0] if isinstance(batch, (tuple, list)) else batch
                if not isinstance(values, Tensor) or not values.is_floating_point():
                    given = f"{values.dtype}: scale them" if isinstance(values, Tensor) else f"{type(values).__name__}"
                    raise InputError(f"features need inputs that are decimals, not {given}")
                found.append(compute(move(values, self.device).to(kind)).cpu())
        return torch.cat(found)

    def _batches(self, inputs: Any, epoch: int) -> Iterator[Any]:
        """Yield the batches of a tensor or array, or those of an epoch of a data set."""
        if hasattr(inputs, "dtype"):
            yield from as_tensor(inputs, "inputs").split(self.batch_size)
            return
        loader = BatchLoader(inputs, self.batch_size)
        place = torch.device(getattr(loader.source, "device", None) or "cpu")
        loader.to(self.device)
        try:
            yield from (batch for batch, _ in loader.batches(epoch))
        finally:
            loader.to(place)
