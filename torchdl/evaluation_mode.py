"""Use of a trained model for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import nn


@contextmanager
def evaluating(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Put a model on a device and in evaluation mode, without gradients; afterwards it is as before."""
    modes = [(module, module.training) for module in model.modules()]
    place = next(chain(model.parameters(), model.buffers()), torch.zeros(())).device
    model.to(device).eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.to(place)
        for module, training in modes:
            module.training = training
