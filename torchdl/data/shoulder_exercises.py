"""Movements of the wrist in seven shoulder exercises, by ten people with a smartwatch (Burns et al. 2018).

The data comes in the package seglearn (BSD licence), which the authors of "Shoulder physiotherapy exercise recognition:
machine learning the inertial signals from a smartwatch" (arXiv 1802.01489) have published.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from torchdl.data.recordings import Recordings
from torchdl.errors import InputError, require

SHA256 = "eb122f23cdf06ef6bd6c6c5312958ec5cf9d038e2e6d457b8081662c75a42537"
FOLDS, PEOPLE = 5, 10


def exercises_file() -> Path | None:
    """Return the file of the recordings; None if the package is not installed."""
    found = importlib.util.find_spec("seglearn")  # does not import it
    folders = found.submodule_search_locations if found is not None else None
    return Path(folders[0]) / "data" / "watch_dataset.npy" if folders else None


def load_exercises() -> Recordings:
    """Load 140 recordings of six channels: 20 repetitions of each exercise, by ten people and with one arm at a time.

    The channels are the acceleration in three directions, in multiples of the earth's, and the angular velocity around
    them, in radians per second; there are 50 samples a second. The subjects are numbered from 1 to 10.

    Raises:
        InputError: The package seglearn is not installed, or its file is another one.
    """
    path = exercises_file()
    if path is None or not path.is_file():
        raise InputError("the recordings of exercises come with the package seglearn: pip install 'torchdl[signals]'")
    content = path.read_bytes()
    known = hashlib.sha256(content).hexdigest() == SHA256
    require(known, f"{path} is not the file of seglearn 1.2.5: install that version")
    data = np.load(io.BytesIO(content), allow_pickle=True).item()  # its checksum says that it is harmless
    signals = tuple(torch.from_numpy(signal.T.astype(np.float32)) for signal in data["X"])  # (L, C) -> (C, L)
    return Recordings(
        signals,
        torch.from_numpy(data["y"]).long(),
        torch.from_numpy(data["subject"]).long(),
        tuple(data["y_labels"]),
        "shoulder exercises in seglearn",
    )


def split_exercises(recordings: Recordings, fold: int) -> tuple[Recordings, Recordings, Recordings]:
    """Return the recordings of six people for training, of two for validation and of two for testing.

    Over the folds 0 to 4, each person is in the test part once; ``fold`` is one of them.

    Raises:
        InputError: There is no such fold.
    """
    require(0 <= fold < FOLDS, f"fold must be from 0 to {FOLDS - 1}, not {fold}")
    turn = (cast(Tensor, recordings.subjects) - 1 - 2 * fold) % PEOPLE  # 0 and 1 for testing, 2 and 3 for validation
    return tuple(recordings.select(chosen) for chosen in (turn >= 4, (turn == 2) | (turn == 3), turn < 2))  # type: ignore[return-value]
