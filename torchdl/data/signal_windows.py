"""Windows that slide over signals, in sequences for contrastive predictive coding.

Shapes: B sequences, T terms of context, K of future, C channels, L samples, W samples in a window.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from torchdl.data.arrays import ArrayLike, BatchDataset, as_tensor, require_whole
from torchdl.data.info import fingerprint
from torchdl.data.ordered_sequences import OrderedSequences
from torchdl.errors import require


class SlidingWindows(BatchDataset[Tensor]):
    """The windows of a signal (C, L) by their first sample, (C, W) each.

    Example:
        >>> from torchdl.data.signal_windows import SlidingWindows
        >>> SlidingWindows(torch.arange(5.0)[None], window=2).__getitems__([0, 3])
        tensor([[[0., 1.]],
        <BLANKLINE>
                [[3., 4.]]])
    """

    def __init__(self, signal: Tensor, window: int, origin: str = "memory", fallback: bool = False) -> None:
        self.signal, self.window, self.origin, self.fallback = signal, window, origin, fallback

    @property
    def device(self) -> torch.device:
        """The device that the signal is on."""
        return self.signal.device

    def to(self, device: str | torch.device) -> SlidingWindows:
        """Move the signal to ``device`` in place; return the data set itself."""
        self.signal = self.signal.to(device)
        return self

    def fingerprint(self) -> str:
        """Return the SHA-256 of the signal, in hexadecimal."""
        return fingerprint([self.signal], str(tuple(self.signal.shape)))

    def __len__(self) -> int:
        return self.signal.shape[1] - self.window + 1

    def __getitems__(self, indices: Tensor | Sequence[int]) -> Tensor:
        """Return the windows (B, C, W) that begin at the samples ``indices`` (B,)."""
        index = torch.as_tensor(indices, dtype=torch.int64, device=self.device)
        return self.signal.unfold(1, self.window, 1).transpose(0, 1)[index]  # (C, L - W + 1, W) is a view


class SignalWindows(OrderedSequences):
    """Sequences of windows that slide over a signal: T of context and the next K of future.

    No sequence is in two recordings, and no two sequences of an epoch have a sample in common: each epoch cuts every
    recording from a random sample on. :class:`OrderedSequences` says why, and what the loader needs.

    Args:
        signal: One recording, (L,) or (C, L), or several, a list or :class:`Recordings`, which may differ in length.
            Numbers of any kind become float32. Scale them first, by the training data's mean and deviation for example.
        window: W, the samples of a window. It must be enough for the encoder.
        hop: The samples from the start of a window to that of the next. If it is less than ``window``, the first future
            shares samples with the last context, which makes it easy to predict.
        terms: T, the number of windows of context.
        predict_terms: K, the number of windows of future.
        labels: A class for each recording, or one for each sample of all recordings in a row; a window has the class of
            its middle. None without classes, even if :class:`Recordings` have some.
        seed: The seed of the places and of the order.

    A batch is ``(context, future)``, of (B, T, C, W) and (B, K, C, W); see :class:`OrderedSequences` for ``labels``.

    Raises:
        InputError: The recordings differ in channels, or one is too short or has a value that is not a number.

    Example:
        >>> recordings = [torch.randn(2, 1000), torch.randn(2, 700)]
        >>> sequences = torchdl.SignalWindows(recordings, window=40, hop=40, terms=4, predict_terms=2)
        >>> len(sequences)  # each takes 240 samples
        5
        >>> context, future = next(iter(torchdl.BatchLoader(sequences, batch_size=5, drop_last=True)))
        >>> context.shape, future.shape
        (torch.Size([5, 4, 2, 40]), torch.Size([5, 2, 2, 40]))
    """

    items: SlidingWindows
    nouns = "samples", "hop"

    def __init__(
        self,
        signal: ArrayLike | Sequence[ArrayLike],
        window: int,
        hop: int,
        terms: int = 4,
        predict_terms: int = 4,
        labels: ArrayLike | None = None,
        seed: int = 0,
    ) -> None:
        require_whole("window", window)
        self.extent = window
        self.recordings = getattr(signal, "names", ()) if hasattr(signal, "signals") else ()  # of Recordings
        recordings = as_recordings(getattr(signal, "signals", signal), self.recordings)
        source = getattr(signal, "origin", "memory"), getattr(signal, "fallback", False)
        windows = SlidingWindows(torch.cat(recordings, 1), window, *source)
        super().__init__(windows, terms, predict_terms, hop, [r.shape[1] for r in recordings], labels, seed)
        self._check_numbers(windows.signal.T)

    @property
    def places(self) -> int:
        """The number of samples of all recordings."""
        return int(self.items.signal.shape[1])

    def order_settings(self) -> dict[str, float]:
        """Return the settings that determine the items; a checkpoint compares them."""
        return {"window": self.extent, **super().order_settings()}


def as_recordings(signal: ArrayLike | Sequence[ArrayLike], names: Sequence[str] = ()) -> list[Tensor]:
    """Return the recordings (C, L) float32 of a signal (L,) or (C, L), or of a list of such signals.

    Messages call them by their ``names``, if there are some.

    Raises:
        InputError: They are no numbers, have other shapes, or differ in the number of channels.
    """
    several = isinstance(signal, (list, tuple)) and (not signal or hasattr(signal[0], "__len__"))
    found = [signal] if not several else list(signal)
    require(len(found) > 0, "there is no recording: give one at least")
    recordings = []
    for number, each in enumerate(found):
        name = names[number] if names else f"recording {number + 1}"
        values = as_tensor(np.asarray(each) if isinstance(each, (list, tuple)) else each, name)
        shape = tuple(values.shape)
        require(values.dim() in (1, 2), f"{name} must have the shape (samples,) or (channels, samples), not {shape}")
        require(not values.is_complex(), f"{name} has complex numbers: make channels of their parts")
        values = values.float()[None] if values.dim() == 1 else values.float()  # (L,) -> (C, L)
        turned = f"{name} has {shape[0]:,} channels of {shape[-1]:,} samples: transpose it, (channels, samples)"
        require(values.shape[0] <= values.shape[1], turned)
        recordings.append(values)
    channels = sorted({len(each) for each in recordings})
    require(len(channels) == 1, f"all recordings must have the same number of channels, not {channels}")
    return recordings
