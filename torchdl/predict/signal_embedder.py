"""Embed the windows of recordings by a CPC model of signals.

Shapes: R recordings, C channels, L samples (of each recording its own), N windows of all recordings, W samples in a
window, D numbers per embedding, H per context.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from torchdl.data import Recordings, read_recordings
from torchdl.data.delimited_files import CSV, TableFormat
from torchdl.data.recordings import one_rate
from torchdl.data.signal_windows import as_recordings
from torchdl.errors import InputError, kind_of, require
from torchdl.features import CPCFeatures
from torchdl.models import CPC, SignalEncoder
from torchdl.predict.base import Predictor
from torchdl.predict.embeddings import EmbeddingAnswers

LARGEST = 2**31  # samples of a window or hop


@dataclass(frozen=True)
class SignalInput:
    """The windows that a network takes, and how recordings become such windows.

    Attributes:
        channels: C.
        window: W.
        hop: The samples from the start of a window to that of the next.
        mean: Is subtracted from each channel (C numbers).
        deviation: Each channel is then divided by it (C numbers).
        channel_names: The columns of tables that are the channels, in this order; none if the training had no tables.
        format: How tables are written.
        rate: Samples a second; None if the training's files do not say.
    """

    channels: int
    window: int
    hop: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    channel_names: tuple[str, ...] = ()
    format: TableFormat = CSV
    rate: int | None = None

    @classmethod
    def of(cls, recordings: Recordings, window: int, hop: int, format: TableFormat = CSV) -> SignalInput:
        """Describe windows of recordings that are scaled by the mean and deviation of these, the training part.

        Args:
            recordings: The training part.
            window: The number of samples per window.
            hop: The number of samples from one window to the next.
            format: How files of recordings are written.
        """
        mean, deviation = recordings.statistics()
        scale = tuple(mean.tolist()), tuple(deviation.tolist())
        return cls(recordings.channels, window, hop, *scale, recordings.channel_names, format, recordings.rate)

    def check(self) -> None:
        """Raise :class:`InputError` unless these are windows."""
        sizes = (self.channels, self.window, self.hop)
        require(min(sizes) >= 1 and max(sizes) <= LARGEST, f"channels, window and hop must be from 1 to {LARGEST:,}")
        fits = len(self.mean) == len(self.deviation) == self.channels
        require(
            fits and all(map(math.isfinite, (*self.mean, *self.deviation))), "each channel has a mean and deviation"
        )
        require(min(self.deviation) > 0, "deviations must be positive")
        require(self.rate is None or self.rate > 0, f"there must be 1 or more samples a second, not {self.rate}")
        require(len(self.channel_names) in (0, self.channels), "channel_names must have one for each channel")

    def scaled(self, recordings: Recordings) -> Recordings:
        """Scale recordings as in training.

        Raises:
            InputError: The channels or the sampling rate are not those of training.
        """
        require(
            recordings.channels == self.channels,
            f"the network takes recordings of {self.channels} channels, not of {recordings.channels}",
        )
        rates = self.rate, recordings.rate
        differ = f"the network takes {self.rate} samples a second, not {recordings.rate}: resample the recordings"
        require(None in rates or rates[0] == rates[1], differ)
        ours, theirs = self.channel_names, recordings.channel_names
        wanted = f"the network takes the channels {', '.join(ours)}, not {', '.join(theirs)}"
        require(ours == theirs or not ours or not theirs, f"{wanted}: put them in this order")
        return recordings.scaled(torch.tensor(self.mean), torch.tensor(self.deviation))

    def windows(self, recordings: Recordings) -> list[Tensor]:
        """Return the windows (n, C, W) of each recording, scaled, from its first sample on.

        Raises:
            InputError: The recordings have another number of channels, or one is shorter than a window.
        """
        for name, signal in zip(recordings.names, recordings.signals, strict=True):
            length = signal.shape[1]
            require(length >= self.window, f"{name} has {length:,} samples, fewer than the {self.window:,} of a window")
        signals = self.scaled(recordings).signals
        return [signal.unfold(1, self.window, self.hop).transpose(0, 1) for signal in signals]  # (C, n, W) -> (n, C, W)


class SignalEmbedder(Predictor[SignalInput]):
    """Embed windows of recordings by a :class:`torchdl.CPC` of signals, or by an encoder alone.

    Args:
        model, settings, device, batch_size, workers: As for :class:`Predictor`; the settings are a
            :class:`SignalInput`.

    Example:
        >>> from torchdl.predict import SignalEmbedder
        >>> recordings = torchdl.Recordings((torch.randn(2, 500), torch.randn(2, 300)))
        >>> settings = SignalEmbedder.Settings.of(recordings, window=40, hop=20)
        >>> encoder = torchdl.SignalEncoder(channels=2, code_size=16, kernels=(8, 4), strides=(4, 2))
        >>> embedder = SignalEmbedder(encoder, settings)
        >>> answers = embedder.predict(recordings)
        >>> answers.embeddings.shape, answers.inputs[24]
        (torch.Size([38, 16]), '1, sample 0')
    """

    kind = "signal embedder"
    Settings = SignalInput

    def check(self) -> None:
        """Raise :class:`InputError` unless the settings are sound and the model's."""
        self.settings.check()
        encoder = getattr(self.model, "encoder", self.model)
        if not isinstance(encoder, SignalEncoder):
            raise InputError(f"{kind_of(self.model)} does not embed signals")
        least = math.prod(encoder.strides)
        fits = encoder.channels == self.settings.channels and self.settings.window >= least
        wanted = f"{least} or more samples in {encoder.channels} channels"
        given = f"{self.settings.window} in {self.settings.channels}"
        require(fits, f"the model takes windows of {wanted}, not of {given}")

    @cached_property
    def features(self) -> CPCFeatures:
        """Computes embeddings of windows, and contexts of sequences of them, that are scaled already."""
        return CPCFeatures(self.model, self.batch_size, self.device)

    def predict(self, inputs: Any) -> EmbeddingAnswers:
        """Return the embedding of each window, and the recording and first sample of the window.

        Args:
            inputs: A file or a folder of recordings, see :func:`torchdl.read_recordings`; :class:`torchdl.Recordings`;
                an array (L,) or (C, L); or a list of files, folders and arrays.

        Raises:
            InputError: There are no recordings, one cannot be read or is too short, or has other channels.
        """
        recordings = self.recordings(inputs)
        windows = self.settings.windows(recordings)
        with self.ready():
            embeddings = self.features.encode(torch.cat(windows))
        starts = [range(0, len(own) * self.settings.hop, self.settings.hop) for own in windows]
        named = zip(recordings.names, starts, strict=True)
        return EmbeddingAnswers(embeddings, [f"{name}, sample {start}" for name, own in named for start in own])

    def recordings(self, inputs: Any) -> Recordings:
        """Return recordings, with names, of anything that :meth:`predict` takes."""
        return find_recordings(inputs, self.settings.format, self.settings.channel_names)

    def embed(self, inputs: Any) -> Tensor:
        """Return the embeddings (N, D) of windows, float32; see :meth:`predict`."""
        return self.predict(inputs).embeddings

    def contexts(self, inputs: Any) -> Tensor:
        """Return the context (N, H) at each window: a summary of its recording from the start up to the window's end.

        Args:
            inputs: See :meth:`predict`.

        Raises:
            InputError: The model is an encoder alone.
        """
        require(isinstance(self.model, CPC), f"{kind_of(self.model)} has no contexts: train a CPC model")
        windows = self.settings.windows(self.recordings(inputs))
        with self.ready():
            return torch.cat([self.features.contexts(own[None])[0] for own in windows])  # (1, n, H) -> (n, H)


def find_recordings(inputs: Any, format: TableFormat = CSV, columns: Sequence[str] = ()) -> Recordings:
    """Return recordings, with names, of anything that :meth:`SignalEmbedder.predict` takes."""
    if isinstance(inputs, Recordings):
        return inputs if inputs.names else replace(inputs, names=tuple(map(str, range(len(inputs)))))
    if isinstance(inputs, (str, os.PathLike)):
        return read_recordings(inputs, format, columns)
    several = isinstance(inputs, Sequence) and any(isinstance(each, (str, os.PathLike)) for each in inputs)
    parts = [find_recordings(each, format, columns) for each in inputs] if several else []
    if len(parts) > 1:
        parts = [_named(part, each, number) for number, (part, each) in enumerate(zip(parts, inputs, strict=True))]
    signals = tuple(chain.from_iterable(part.signals for part in parts)) if several else tuple(as_recordings(inputs))
    names = tuple(chain.from_iterable(part.names for part in parts)) or tuple(map(str, range(len(signals))))
    finite = all(bool(signal.isfinite().all()) for signal in signals)
    require(finite, "a recording has NaN or an infinite value: repair it")
    rate = one_rate({part.rate: part.names[0] for part in parts if part.rate is not None})
    return Recordings(tuple(as_recordings(list(signals))), names=names, rate=rate)


def _named(recordings: Recordings, given: Any, number: int) -> Recordings:
    """Give recordings names that differ from those of others: of a folder with the folder's, of arrays a number."""
    if not isinstance(given, (str, os.PathLike)):
        return replace(recordings, names=(str(number),) * len(recordings))
    if not os.path.isdir(given):
        return recordings
    return replace(recordings, names=tuple(os.path.join(given, name) for name in recordings.names))
