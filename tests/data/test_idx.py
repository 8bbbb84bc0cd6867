from __future__ import annotations

import gzip
import math
import re
import tracemalloc

import numpy as np
import pytest
import torch
from helpers import idx_bytes
from hypothesis import HealthCheck, example, given, settings, strategies as st

from torchdl import InputError
from torchdl.data.idx import read_idx

IMAGES = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
LABELS = np.array([3, 1, 255], np.uint8)
FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def refusal(path, dimensions) -> str:
    with pytest.raises(InputError) as caught:
        read_idx(path, dimensions)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize("array", [IMAGES, LABELS, np.zeros((0, 28, 28), np.uint8)], ids=["images", "labels", "none"])
def test_what_was_written_is_read(tmp_path, array, gz):
    path = tmp_path / ("file.gz" if gz else "file")
    path.write_bytes(gzip.compress(idx_bytes(array)) if gz else idx_bytes(array))
    tensor = read_idx(path, array.ndim)
    assert tensor.dtype == torch.uint8
    assert tensor.shape == array.shape
    assert np.array_equal(tensor.numpy(), array)


def test_a_path_may_be_a_string_and_the_tensor_can_be_written_to(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(idx_bytes(LABELS))
    tensor = read_idx(str(path), 1)
    tensor += 1
    assert tensor.tolist() == [4, 2, 0]


@pytest.mark.parametrize("array", [IMAGES, LABELS], ids=["images", "labels"])
def test_every_truncation_is_refused(tmp_path, array):
    data, path = idx_bytes(array), tmp_path / "file"
    for length in range(len(data)):
        path.write_bytes(data[:length])
        refusal(path, array.ndim)
    path.write_bytes(data[:-1])
    assert all(f"{size} " in refusal(path, array.ndim) for size in (len(data) - 1, len(data)))


def test_every_truncation_of_a_gzip_file_is_refused(tmp_path):
    data, path = gzip.compress(idx_bytes(IMAGES)), tmp_path / "file.gz"
    for length in range(len(data)):
        path.write_bytes(data[:length])
        refusal(path, 3)


def test_a_file_that_is_too_long_is_refused(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(idx_bytes(IMAGES) + b"\0")
    assert f"{len(path.read_bytes())} bytes" in refusal(path, 3)


def test_no_more_is_unpacked_than_the_header_says(tmp_path):
    path = tmp_path / "file.gz"
    path.write_bytes(gzip.compress(idx_bytes(IMAGES) + bytes(2**26)))
    tracemalloc.start()
    assert "bytes or more instead of the 40 in its header" in refusal(path, 3)
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


@pytest.mark.parametrize("gz", [False, True])
def test_a_file_larger_than_allowed_by_its_header_is_refused(tmp_path, gz):
    path, data = tmp_path / ("file.gz" if gz else "file"), idx_bytes(IMAGES)
    path.write_bytes(gzip.compress(data) if gz else data)
    assert len(read_idx(path, 3, max_bytes=len(data))) == 2
    with pytest.raises(InputError, match=f"{len(data)} bytes by its header, more than max_bytes={len(data) - 1}"):
        read_idx(path, 3, max_bytes=len(data) - 1)
    huge = bytes([0, 0, 8, 3]) + (2**31).to_bytes(4, "big") * 3
    path.write_bytes(gzip.compress(huge) if gz else huge)
    assert "max_bytes" in refusal(path, 3)


def test_a_gzip_file_with_a_flipped_bit_is_refused(tmp_path):
    data, path = bytearray(gzip.compress(idx_bytes(IMAGES))), tmp_path / "file.gz"
    data[-6] ^= 1  # in the checksum
    path.write_bytes(bytes(data))
    assert "damaged" in refusal(path, 3)


def test_labels_and_images_are_told_apart(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(idx_bytes(np.zeros(100, np.uint8)))
    assert re.search("labels .*images", refusal(path, 3))
    path.write_bytes(idx_bytes(IMAGES))
    assert re.search("images .*labels", refusal(path, 1))
    path.write_bytes(idx_bytes(IMAGES[0]))
    assert re.search("2 dimensions .*labels", refusal(path, 1))


@pytest.mark.parametrize(
    "data", [b"", b"<html>404 Not Found</html>", bytes([0, 0, 13, 3]) + bytes(12), bytes([0, 1, 8, 1]) + bytes(4)]
)
def test_what_is_not_idx_is_refused(tmp_path, data):
    path = tmp_path / "file"
    path.write_bytes(data)
    assert "IDX" in refusal(path, 1)


def test_what_is_not_gzip_is_refused(tmp_path):
    path = tmp_path / "file.gz"
    path.write_bytes(idx_bytes(LABELS))
    assert "damaged" in refusal(path, 1)


def test_what_cannot_be_read_is_refused(tmp_path):
    assert "No such file" in refusal(tmp_path / "nothing", 1)
    assert "directory" in refusal(tmp_path, 1)


def parsed(data: bytes, dimensions: int) -> list[int] | None:
    """Give the sizes if ``data`` is an IDX file, by the format's definition."""
    if data[:4] != bytes([0, 0, 8, dimensions]) or len(data) < 4 + 4 * dimensions:
        return None
    sizes = [int.from_bytes(data[4 + 4 * k : 8 + 4 * k], "big") for k in range(dimensions)]
    whole = len(data) == 4 + 4 * dimensions + math.prod(sizes)
    addressable = math.prod(size for size in sizes if size) < 2**63  # which matters where another size is 0
    return sizes if whole and addressable else None


SIZE = st.sampled_from([0, 1, 2, 3, 255, 2**31 - 1, 2**31, 2**32 - 1])
HEADERS = st.builds(
    lambda magic, sizes, body: magic + b"".join(n.to_bytes(4, "big") for n in sizes) + body,
    st.sampled_from([bytes([0, 0, 8, 1]), bytes([0, 0, 8, 3]), bytes([0, 0, 8, 2]), bytes([0, 0, 9, 3])]),
    st.lists(SIZE, max_size=4),
    st.binary(max_size=12),
)
WELL_FORMED = st.builds(
    lambda shape, byte: idx_bytes(np.full(shape, byte, np.uint8)),
    st.one_of(st.tuples(st.integers(0, 9)), st.tuples(*[st.integers(0, 4)] * 3)),
    st.integers(0, 255),
)


def check(path, data: bytes, dimensions: int) -> None:
    sizes = parsed(data, dimensions)
    if sizes is None:
        refusal(path, dimensions)
    else:
        tensor = read_idx(path, dimensions)
        assert list(tensor.shape) == sizes
        assert tensor.numpy().tobytes() == data[4 + 4 * dimensions :]


@given(data=st.one_of(st.binary(max_size=40), HEADERS, WELL_FORMED), dimensions=st.sampled_from([1, 3]))
@FUZZ
def test_any_bytes_are_parsed_rightly_or_refused(tmp_path, data, dimensions):
    (tmp_path / "file").write_bytes(data)
    check(tmp_path / "file", data, dimensions)


@given(data=st.one_of(st.binary(max_size=40), HEADERS, WELL_FORMED), dimensions=st.sampled_from([1, 3]))
@FUZZ
def test_any_gzipped_bytes_are_parsed_rightly_or_refused(tmp_path, data, dimensions):
    (tmp_path / "file.gz").write_bytes(gzip.compress(data, 1))
    check(tmp_path / "file.gz", data, dimensions)


@given(data=st.binary(max_size=60))
@example(data=bytes([0x1F, 0x8B, 8, 4, 0, 0, 0, 0, 0, 0, 255, 255]))  # a header longer than the file
@FUZZ
def test_any_bytes_named_gz_are_refused(tmp_path, data):
    path = tmp_path / "file.gz"
    for start in (b"", bytes([0x1F, 0x8B, 8])):
        path.write_bytes(start + data)
        refusal(path, 3)


# they promise no byte more than there are, of arrays that no machine can address
@pytest.mark.parametrize("sizes", [(0, 2**32 - 1, 2**32 - 1), (2**32 - 1, 0, 2**32 - 1)])
def test_impossible_sizes_of_no_bytes_are_refused(tmp_path, sizes):
    path = tmp_path / "file"
    path.write_bytes(bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in sizes))
    assert str(list(sizes)) in refusal(path, 3)
