"""The IDX format of MNIST and similar data sets: a magic number, big-endian sizes, unsigned bytes."""

from __future__ import annotations

import gzip
import os
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from torchdl.errors import InputError


def read_idx(path: str | os.PathLike[str], dimensions: int) -> Tensor:
    """Read an IDX file of unsigned bytes, gzipped (``*.gz``) or not.

    Args:
        path: The file.
        dimensions: The expected number of dimensions: 3 for images (N, H, W), 1 for labels (N,).

    Returns:
        A uint8 tensor with that number of dimensions.

    Raises:
        InputError: The file is unreadable, damaged, too short, too long, or has other contents (labels, not images).
    """
    path, advice = Path(path), "delete it and fetch it again"
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path} is damaged or incomplete ({error}): {advice}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    header = 4 + 4 * dimensions
    if len(data) < header or data[:3] != bytes([0, 0, 8]):  # 8: unsigned bytes
        raise InputError(f"{path} is not an IDX file of unsigned bytes: {advice}")
    if data[3] != dimensions:
        what = {1: "labels", 3: "images"}
        found, wanted = (what.get(n, f"{n} dimensions") for n in (data[3], dimensions))
        raise InputError(f"{path} has {found} instead of {wanted}: replace it with the file of {wanted}")
    shape = [int.from_bytes(data[i : i + 4], "big") for i in range(4, header, 4)]
    expected = header + int(np.prod(shape, dtype=object))
    if len(data) != expected:
        raise InputError(f"{path} has {len(data):,} bytes instead of the {expected:,} in its header: {advice}")
    try:
        array = np.frombuffer(data, np.uint8, offset=header).reshape(shape)
    except ValueError as error:  # one size is 0, and another is too large for any array
        raise InputError(f"{path} has impossible sizes in its header, {shape}: {advice}") from error
    return torch.from_numpy(array.copy())
