from __future__ import annotations

import hashlib
import io
import math
import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import gaussian

from torchdl import InputError
from torchdl.files import CHECKPOINT, PREVIOUS
from torchdl.training import checkpoint

STATE = {
    "tensors": {"weight": gaussian(3, 4), "count": torch.tensor(7), "half": gaussian(2).bfloat16()},
    "numbers": [1, 2.5, 1e-300, True, None],
    "text": "Größe",
    5: ("a", 1),
}


def same(one: object, other: object) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, (list, tuple)):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


@pytest.fixture
def path(tmp_path: Path) -> Path:
    checkpoint.write(STATE, tmp_path / CHECKPOINT)
    return tmp_path / CHECKPOINT


def with_checksum(data: bytes) -> bytes:
    return data + hashlib.sha256(data).hexdigest().encode()


def test_what_is_read_is_what_was_written(path):
    assert same(checkpoint.read(path), STATE)


def test_numbers_that_are_not_finite_come_back_too(tmp_path):
    checkpoint.write({"best": math.nan, "worst": -math.inf}, tmp_path / "x.pt")
    read = checkpoint.read(tmp_path / "x.pt")
    assert math.isnan(read["best"])
    assert read["worst"] == -math.inf


def test_pytorch_alone_reads_the_file(path):
    assert same(torch.load(path, weights_only=True), STATE)


def test_a_flipped_byte_anywhere_is_noticed(path):
    data = path.read_bytes()
    places = {*range(0, len(data), 97), *range(len(data) - 70, len(data))}
    for place in places:
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(InputError, match=r"checkpoint\.pt is damaged"):
            checkpoint.read(path)


def test_a_truncated_or_grown_file_is_noticed(path):
    data = path.read_bytes()
    for cut in (0, 1, 63, 64, 65, len(data) // 2, len(data) - 64, len(data) - 1):
        path.write_bytes(data[:cut])
        with pytest.raises(InputError, match="damaged"):
            checkpoint.read(path)
    path.write_bytes(data + b"0")
    with pytest.raises(InputError, match="damaged"):
        checkpoint.read(path)


def test_a_missing_file_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match=r"none\.pt .*No such file"):
        checkpoint.read(tmp_path / "none.pt")


class Malicious:
    """Creates a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_with_a_right_checksum_does_not_run(tmp_path, zipped):
    state, buffer = {"task": Malicious(tmp_path / "owned")}, io.BytesIO()
    if zipped:
        torch.save(state, buffer)
    else:
        pickle.dump(state, buffer)
    path = tmp_path / "evil.pt"
    path.write_bytes(with_checksum(buffer.getvalue()))
    with pytest.raises(InputError, match=r"evil\.pt") as caught:
        checkpoint.read(path)
    assert len(str(caught.value).splitlines()) == 1
    assert not re.search("weights.only|trust|allow|safe_globals", str(caught.value))  # no advice to load it unsafely
    assert not (tmp_path / "owned").exists()
    if zipped:  # the file itself would do harm
        torch.load(io.BytesIO(buffer.getvalue()), weights_only=False)
        assert (tmp_path / "owned").exists()


def test_a_file_with_a_right_checksum_but_no_state_is_an_input_error(tmp_path):
    path = tmp_path / "x.pt"
    for value in (torch.ones(3), [1]):
        buffer = io.BytesIO()
        torch.save(value, buffer)
        path.write_bytes(with_checksum(buffer.getvalue()))
        with pytest.raises(InputError, match=r"x\.pt"):
            checkpoint.read(path)
    path.write_bytes(with_checksum(b"something else"))
    with pytest.raises(InputError, match=r"x\.pt"):
        checkpoint.read(path)


def test_the_file_before_is_kept_as_the_previous_one(path):
    previous = path.with_name(PREVIOUS)
    for number in (1, 2):
        before = path.read_bytes()
        checkpoint.write({"number": number}, path, previous)
        assert previous.read_bytes() == before
        assert checkpoint.read(path) == {"number": number}
    assert sorted(p.name for p in path.parent.iterdir()) == [PREVIOUS, CHECKPOINT]


@pytest.mark.parametrize("where", ["write_bytes", "fsync", "replace"])
def test_the_old_state_survives_a_failure_while_writing(path, monkeypatch, where):
    checkpoint.write({"number": 1}, path, path.with_name(PREVIOUS))

    def fail(*args):
        if where == "write_bytes":
            with open(args[0], "wb") as file:
                file.write(args[1][:100])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(*((Path, where) if where == "write_bytes" else (os, where)), fail)
        with pytest.raises(OSError, match="No space left"):
            checkpoint.write({"number": 2}, path, path.with_name(PREVIOUS))
    state, _ = checkpoint.read_last(path.parent)
    assert state == {"number": 1}
    assert not list(path.parent.glob("*.tmp")) + list(path.parent.glob(".*.tmp"))


def test_a_state_that_cannot_be_saved_leaves_the_old_file(path):
    before = path.read_bytes()
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        checkpoint.write({"function": lambda: None}, path)
    assert path.read_bytes() == before


def test_the_last_good_checkpoint_is_read_and_what_was_warning_is_named(path):
    previous = path.with_name(PREVIOUS)
    checkpoint.write({"number": 1}, path, previous)
    assert checkpoint.read_last(path.parent) == ({"number": 1}, "")
    for damage in (lambda: path.write_bytes(path.read_bytes()[:-1]), path.unlink):
        damage()
        state, warning = checkpoint.read_last(path.parent)
        assert same(state, STATE)
        assert str(path) in warning
        assert str(previous) in warning
    previous.write_bytes(b"")
    with pytest.raises(InputError, match=r"checkpoint\.previous\.pt is damaged"):
        checkpoint.read_last(path.parent)
    previous.unlink()
    with pytest.raises(InputError, match=rf"{CHECKPOINT} .*No such file"):
        checkpoint.read_last(path.parent)


def test_numbers_of_numpy_and_paths_come_back_as_pythons_own(path):
    checkpoint.write({"lr": np.float64(0.1), "sizes": (np.int64(3),), "folder": Path("x")}, path)
    assert same(checkpoint.read(path), {"lr": 0.1, "sizes": (3,), "folder": "x"})


class Foreign:
    """It can be pickled, but not read from a file that may be anybody's."""


def test_a_state_that_could_not_be_read_again_leaves_the_old_file(path):
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"checkpoint\.pt stays as it is.*Foreign") as caught:
        checkpoint.write({"task": Foreign()}, path, path.with_name(PREVIOUS))
    assert len(str(caught.value).splitlines()) == 1
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
