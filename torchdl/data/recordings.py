"""Recordings of signals, which may differ in length: in memory, or from files.

Shapes: R recordings, C channels, L samples (of each recording its own), N segments, S samples in a segment.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchdl.data.arrays import read_npy, require_whole
from torchdl.data.delimited_files import CSV, TableFormat
from torchdl.data.info import fingerprint
from torchdl.data.series import Series, read_series
from torchdl.data.signal_windows import as_recordings
from torchdl.errors import InputError, first_line, require
from torchdl.field_docs import with_field_docs
from torchdl.files import PathLike

TABLES = (".csv", ".tsv", ".txt")
SUFFIXES = (*TABLES, ".npy", ".wav")


@with_field_docs
@dataclass(frozen=True)
class Recordings:
    """Recordings (C, L) float32 with the same channels, their classes and the subjects that they are of.

    Example:
        >>> recordings = torchdl.Recordings((torch.zeros(2, 500), torch.ones(2, 300)), labels=torch.tensor([0, 1]))
        >>> mean, deviation = recordings.statistics()
        >>> mean
        tensor([0.3750, 0.3750])
        >>> segments, labels = recordings.scaled(mean, deviation).segments(length=200, hop=100)
        >>> segments.shape, labels
        (torch.Size([6, 2, 200]), tensor([0, 0, 0, 0, 1, 1]))
    """

    signals: tuple[Tensor, ...]
    """(C, L) each."""
    labels: Tensor | None = None
    """(R,) int64, the class of each recording."""
    subjects: Tensor | None = None
    """(R,) int64, the number of the person or machine that each recording is of."""
    classes: tuple[str, ...] = ()
    """The names of the classes."""
    origin: str = "memory"
    """Where the recordings come from, in words."""
    fallback: bool = False
    """Whether they replace data that was not found."""
    names: tuple[str, ...] = ()
    """What each recording is called, such as its file."""
    channel_names: tuple[str, ...] = ()
    """What each channel is called, such as a column of a file."""
    rate: int | None = None
    """Samples a second, if the files say so, as those of sounds do."""

    def __post_init__(self) -> None:
        count = len(self.signals)
        require(count > 0, "there is no recording: give or choose one at least")
        for name, of_each in (("labels", self.labels), ("subjects", self.subjects)):
            fits = of_each is None or of_each.shape == (count,)
            require(fits, f"{name} must have one number for each of the {count} recordings")
        require(len(self.names) in (0, count), f"names must have one for each of the {count} recordings")
        channels = self.channels
        require(
            len(self.channel_names) in (0, channels), f"channel_names must have one for each of the {channels} channels"
        )

    def __len__(self) -> int:
        return len(self.signals)

    @property
    def channels(self) -> int:
        """C, the number of channels."""
        return len(self.signals[0])

    def fingerprint(self) -> str:
        """Return the SHA-256 of all signals, labels and subjects, in hexadecimal."""
        numbers = [tensor for tensor in (self.labels, self.subjects) if tensor is not None]
        return fingerprint([*self.signals, *numbers], str([tuple(signal.shape) for signal in self.signals]))

    def select(self, chosen: Tensor) -> Recordings:
        """Return the recordings with these indices (n,), or those for which a mask (R,) is true."""
        chosen = chosen.nonzero()[:, 0] if chosen.dtype == torch.bool else chosen
        labels, subjects = (None if of_each is None else of_each[chosen] for of_each in (self.labels, self.subjects))
        signals = tuple(self.signals[i] for i in chosen.tolist())
        names = tuple(self.names[i] for i in chosen.tolist()) if self.names else ()
        return replace(self, signals=signals, labels=labels, subjects=subjects, names=names)

    def split_in_time(self, span: int = 1) -> tuple[Recordings, Recordings]:
        """Return the first four fifths of each recording for training, and the rest for validation.

        Args:
            span: The samples that each part for validation needs, such as those of a sequence.

        Raises:
            InputError: A part for validation has fewer samples.
        """
        at = [signal.shape[1] * 4 // 5 for signal in self.signals]
        first = tuple(signal[:, :end] for signal, end in zip(self.signals, at, strict=True))
        rest = tuple(signal[:, end:] for signal, end in zip(self.signals, at, strict=True))
        names = self.names or [f"recording {number}" for number in range(1, len(self) + 1)]
        shortest, name = min((signal.shape[1], name) for signal, name in zip(rest, names, strict=True))
        require(
            shortest >= span,
            f"the last fifth of each recording is for validation, and {name} has only {shortest:,} samples there, "
            f"fewer than the {span:,} of a sequence: choose fewer terms, a smaller window or hop, or longer recordings",
        )
        return replace(self, signals=first), replace(self, signals=rest)

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Return the mean and the standard deviation (C,) of each channel over all samples.

        Raises:
            InputError: A channel is constant.
        """
        samples = torch.cat(self.signals, 1).double()  # (C, samples)
        mean, deviation = samples.mean(1), samples.std(1, correction=0)
        constant = (deviation <= 1e-12 * mean.abs()).nonzero()[:, 0].tolist()
        names = [repr(self.channel_names[c]) if self.channel_names else f"channel {c + 1}" for c in constant]
        require(not names, f"nothing can be learnt from constant channels: leave out {', '.join(names)}")
        return mean.float(), deviation.float()

    def scaled(self, mean: Tensor, deviation: Tensor) -> Recordings:
        """Subtract a mean and divide by a deviation, (C,) each: those of the training part, for all parts."""
        return replace(self, signals=tuple((signal - mean[:, None]) / deviation[:, None] for signal in self.signals))

    def segments(self, length: int, hop: int) -> tuple[Tensor, Tensor]:
        """Cut all recordings into segments (N, C, S) of ``length`` samples, ``hop`` apart, with their classes (N,).

        Raises:
            InputError: The recordings have no labels, or one is shorter than a segment.
        """
        require(self.labels is not None, "segments need recordings with labels")
        require_whole("hop", hop)
        shortest = min(signal.shape[1] for signal in self.signals)
        require(shortest >= length >= 1, f"segments must have from 1 to {shortest:,} samples, not {length}")
        cut = [signal.unfold(1, length, hop).transpose(0, 1) for signal in self.signals]  # (n, C, S) each
        counts = torch.tensor([len(part) for part in cut])
        return torch.cat(cut), self.labels.repeat_interleave(counts)  # type: ignore[union-attr]


def read_recordings(path: PathLike, format: TableFormat = CSV, columns: Sequence[str] = ()) -> Recordings:
    """Read recordings from a file, or from all files of a folder in the order of their names.

    A ``.csv``, ``.tsv`` or ``.txt`` has a sample in each row, see :func:`torchdl.read_series`. A ``.npy`` has an array
    (L,) or (C, L), and a ``.wav`` a sound, whose samples are scaled to [-1, 1]. Texts (``.txt``) beside other kinds of
    recordings are notes, and are left out.

    Args:
        path: The file or folder.
        format: How tables are written.
        columns: The columns of tables to read as channels, in this order; by default those of the first table, all that
            are numbers, but for times and indices. Others must have the same ones, in any order.

    Raises:
        InputError: There is no such file, one cannot be read, or the files differ in channels or in the sampling rate.

    Example:
        >>> import os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "sound.wav")
        >>> from scipy.io import wavfile
        >>> wavfile.write(path, 16000, (16384 * torch.ones(800, 2)).short().numpy())
        >>> recordings = torchdl.read_recordings(path)
        >>> recordings.signals[0].shape, recordings.signals[0].max()
        (torch.Size([2, 800]), tensor(0.5000))
    """
    place = Path(path)
    require(place.exists(), f"there is no file or folder {place}")
    files = files_in(place) if place.is_dir() else [place]
    signals: list[Tensor] = []
    rates: dict[int, Path] = {}  # a file with each rate
    said, channel_names = "", tuple[str, ...]()
    for file in files:
        if file.suffix.lower() in TABLES:
            series = read_series(file, columns, format)
            if not channel_names:
                said, channel_names = series.origin.partition(f" from {file}")[2], series.columns
            values: Any = in_order(series, channel_names, file).values.T.numpy()  # (L, C) -> (C, L)
        else:
            values, rate = read_signal(file)
            if rate is not None:
                rates.setdefault(rate, file)
        one_rate(rates)
        (signal,) = as_recordings([values], [str(file)])
        wrong = (~signal.isfinite()).nonzero()
        if len(wrong):
            raise InputError(f"{file} has NaN or an infinite value at sample {int(wrong[0, 1])}: repair it")
        signals.append(signal)
        channels = [len(signals[0]), len(signal)]
        differ = f"{files[0]} has {channels[0]} channels, but {file} has {channels[1]}: choose files with the same ones"
        require(channels[0] == channels[1], differ)
    named = f", channels {', '.join(channel_names)}" if channel_names else ""
    names = tuple(file.name if place.is_dir() else str(file) for file in files)
    origin, rate = f"{place}{named}{said}", one_rate(rates)
    return Recordings(tuple(signals), origin=origin, names=names, channel_names=channel_names, rate=rate)


def one_rate(rates: Mapping[int, Any]) -> int | None:
    """Return the sampling rate of recordings, given one of each rate; None if no rate is known.

    Raises:
        InputError: There are several rates.
    """
    differ = " and ".join(f"{name} has {rate:,} samples a second" for rate, name in rates.items())
    require(len(rates) < 2, f"{differ}: resample the sounds to one rate")
    return next(iter(rates), None)


def files_in(folder: Path) -> list[Path]:
    """Return the recordings in a folder, in the order of their names."""
    found = sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())
    found = [file for file in found if not file.name.startswith(".")]  # a system's own
    files = [file for file in found if file.suffix.lower() != ".txt"] or found
    require(bool(files), f"{folder} has no recordings, files ending in {', '.join(SUFFIXES)}")
    return files


def in_order(series: Series, columns: tuple[str, ...], file: Path) -> Series:
    """Return a file's series with its columns in this order; raise :class:`InputError` if it has others."""
    differ = f"{file} has the channels {', '.join(series.columns)}, other files have {', '.join(columns)}"
    require(set(series.columns) == set(columns), f'{differ}: choose among them, columns=["..."], or rename them')
    return series.select(columns)


def read_signal(path: Path) -> tuple[np.ndarray, int | None]:
    """Read the signal (L,) or (C, L) of an array or sound, and its samples per second if the file says so."""
    suffix = path.suffix.lower()
    require(suffix in SUFFIXES, f"{path} is no recording: its name must end in {', '.join(SUFFIXES)}")
    if suffix == ".npy":
        return read_npy(path, np.float32), None
    try:
        from scipy.io import wavfile

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=wavfile.WavFileWarning)  # of chunks with notes
            warnings.filterwarnings("error", "Reached EOF", wavfile.WavFileWarning)
            rate, samples = wavfile.read(path, mmap=True)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # damaged files raise many kinds
        raise InputError(f"{path} cannot be read: {first_line(error)}") from error
    zero = 128.0 if samples.dtype == np.uint8 else 0.0  # of sounds of eight bits
    largest = 1.0 if samples.dtype.kind == "f" else 128.0 if zero else -float(np.iinfo(samples.dtype).min)
    return ((np.asarray(samples, np.float32) - zero) / largest).T, int(rate)  # (L,) or (L, C) -> (C, L)
