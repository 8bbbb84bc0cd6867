"""The IDX format of MNIST and similar data sets: a magic number, big-endian sizes, unsigned bytes."""

from __future__ import annotations

import gzip
import io
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from torchdl.errors import InputError, require
from torchdl.files import PathLike

MAX_BYTES = 2**30  # MNIST's largest file has 47 million


def read_idx(path: PathLike, dimensions: int, max_bytes: int = MAX_BYTES) -> Tensor:
    """Read an IDX file of unsigned bytes, gzipped (``*.gz``) or not.

    Args:
        path: The file.
        dimensions: The expected number of dimensions: 3 for images (N, H, W), 1 for labels (N,).
        max_bytes: The maximum size, unpacked. No more is unpacked than the file's header says.

    Returns:
        A uint8 tensor with that number of dimensions.

    Raises:
        InputError: The file is unreadable, damaged, too short, too long, or has other contents (labels, not images).
    """
    path, advice = Path(path), "delete it and fetch it again"
    header = 4 + 4 * dimensions
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            data = bytearray(file.read(header))
            if len(data) < header or data[:3] != bytes([0, 0, 8]):  # 8: unsigned bytes
                raise InputError(f"{path} is not an IDX file of unsigned bytes: {advice}")
            if data[3] != dimensions:
                what = {1: "labels", 3: "images"}
                found, wanted = (what.get(n, f"{n} dimensions") for n in (data[3], dimensions))
                raise InputError(f"{path} has {found} instead of {wanted}: replace it with the file of {wanted}")
            shape = [int.from_bytes(data[i : i + 4], "big") for i in range(4, header, 4)]
            expected = header + math.prod(shape)
            require(expected <= max_bytes, f"{path} has {expected:,} bytes by its header, more than {max_bytes=:,}")
            data += read_at_most(file, expected + 1 - header)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path} is damaged or incomplete ({error}): {advice}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) != expected:
        more = " or more" if len(data) > expected else ""
        raise InputError(f"{path} has {len(data):,} bytes{more} instead of the {expected:,} in its header: {advice}")
    try:
        array = np.frombuffer(data, np.uint8, offset=header).reshape(shape)
    except ValueError as error:  # one size is 0, and another is too large for any array
        raise InputError(f"{path} has impossible sizes in its header, {shape}: {advice}") from error
    return torch.from_numpy(array)


def read_at_most(file: io.BufferedIOBase, size: int) -> bytearray:
    """Read up to ``size`` bytes, and take no more memory than there are."""
    data = bytearray()
    while len(data) < size and (block := file.read(min(2**20, size - len(data)))):
        data += block
    return data
