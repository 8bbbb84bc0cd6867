from __future__ import annotations

import copy
import hashlib
import io
import math
import os
import pickle
import re
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import gaussian

import torchdl
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


# strangers' files


def write_any(path: Path, state: object) -> Path:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return write_archive(path, buffer.getvalue())


def write_archive(path: Path, data: bytes) -> Path:
    path.write_bytes(with_checksum(data[:-2] + struct.pack("<H", 64)))
    return path


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        checkpoint.read(path)
    sentence = str(caught.value)
    assert str(path) in sentence
    assert "\n" not in sentence
    return sentence


def test_a_compressed_checkpoint_is_refused_before_it_is_read(tmp_path):
    buffer = io.BytesIO()
    torch.save({"task": {"weight": torch.zeros(2_000_000)}}, buffer)
    small = io.BytesIO()
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(small, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert small.tell() < 20_000
    assert "compressed" in refusal(write_archive(tmp_path / "x.pt", small.getvalue()))


def test_members_that_overlap_are_refused(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x/data/0", b"0" * 10_000)
        for number in range(1, 9):  # each names the same bytes
            again = copy.copy(archive.filelist[0])
            again.filename = f"x/data/{number}"
            archive.filelist.append(again)
    assert "overlap" in refusal(write_archive(tmp_path / "x.pt", buffer.getvalue()))


def test_a_pickle_without_an_archive_is_refused(tmp_path):
    buffer = io.BytesIO()
    torch.save({"task": {}}, buffer, _use_new_zipfile_serialization=False)
    path = tmp_path / "x.pt"
    path.write_bytes(with_checksum(buffer.getvalue()))
    assert "not a zip archive" in refusal(path)


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ({"task": {"weight": torch.zeros(1).expand(10**12)}}, "a tensor of [1000000000000]"),
        ({"task": {"weight": torch.zeros(2, 2).to_sparse()}}, "a tensor of [2, 2]"),
        ({"task": [1]}, "Expected `object`, got `array` - at `$.task`"),
        ({"task": {1: torch.zeros(1)}}, "Expected `str`"),
        ({"updates": 5}, "Expected `object`, got `int` - at `$.updates`"),
        ({"updates": {"optimizers": {"model": 3}}}, "got `int`"),
        ({"progress": {"epoch": "1"}}, "Expected `int`, got `str` - at `$.progress.epoch`"),
        ({"progress": {"epoch": -1}}, ">= 0"),
        ({"progress": {"step": 2**60}}, "<= "),
        ({"progress": {"history": [{"loss": "0.1"}]}}, "at `$.progress.history[0]"),
        ({"progress": {"epoch_sums": {"loss": [1.0]}}}, "`array` of length 2"),
        ({"order": {"monitor": ["val/loss"]}}, "`$.order"),
    ],
    ids=str,
)
def test_a_checkpoint_that_holds_something_else_is_refused_in_one_sentence(tmp_path, state, reason):
    assert reason in refusal(write_any(tmp_path / "x.pt", state))


@pytest.mark.parametrize("state", [{"task": Malicious(Path("owned"))}, {"updates": {"x": {1, 2}, "y": hashlib.sha256}}])
def test_no_message_advises_to_load_a_strangers_file_unsafely(tmp_path, state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    sentence = refusal(write_archive(tmp_path / "x.pt", buffer.getvalue()))
    assert not [word for word in ("weights_only", "unsafe", "arbitrary code", "safe_globals") if word in sentence]


def test_a_container_that_holds_itself_is_read(tmp_path):
    state: dict[str, object] = {"numbers": [1]}
    state["self"] = state
    assert checkpoint.read(write_any(tmp_path / "x.pt", state))["numbers"] == [1]


def trained(folder: Path, **options) -> tuple[torchdl.Trainer, torchdl.Supervised, torchdl.BatchLoader]:
    x = torch.linspace(-1, 1, 8)[:, None]
    loader = torchdl.BatchLoader(torchdl.ArrayDataset(x, 2 * x), 4)
    plateau = torchdl.tasks.plateau

    def task() -> torchdl.Supervised:
        model, loss = torch.nn.Linear(1, 1), torch.nn.functional.mse_loss
        return torchdl.Supervised(model, loss, schedule=lambda adam, _: plateau(adam))

    torchdl.Trainer(epochs=1, **options).fit(task(), loader, loader, folder)
    return torchdl.Trainer(epochs=2, **options), task(), loader


def change(state: dict[str, Any], place: str, value: object) -> None:
    *way, last = place.split("/")
    for key in way:
        state = state[int(key) if key.isdigit() else key]
    state[int(last) if last.isdigit() else last] = value


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("task/model.weight", "heavy"),
        ("task/model.weight", torch.zeros(3, 3)),
        ("updates/optimizers/model/param_groups", 3),
        ("updates/optimizers/model/param_groups/0/lr", "fast"),
        ("updates/optimizers/model/param_groups/0/betas", [0.9]),
        ("updates/optimizers/model/param_groups/0/params", 7),
        ("updates/optimizers/model/state/0/exp_avg", torch.zeros(5, 7)),
        ("updates/optimizers/model/state/0/exp_avg", "average"),
        ("updates/optimizers/model/state/0/step", torch.zeros(3)),
        ("updates/optimizers/model/state", [1]),
        ("updates/schedules/model", {"step": 1}),
        ("updates/schedules/model/best", "low"),
        ("updates/schedules/model/best", None),
        ("updates/optimizers/model/param_groups/0/lr", None),
        ("updates/schedules/model/_last_lr", [1.0, 2.0]),
        ("updates/initial", {"group 1 of the optimizer 'model'": {"lr": [0.5]}}),
    ],
    ids=str,
)
def test_a_resume_from_a_checkpoint_of_other_values_is_one_sentence(tmp_path, place, value):
    trainer, task, loader = trained(tmp_path)
    state = checkpoint.read(tmp_path / CHECKPOINT)
    change(state, place, value)
    write_any(tmp_path / CHECKPOINT, state)
    with pytest.raises(InputError) as caught:
        trainer.fit(task, loader, loader, tmp_path, resume=True)
    assert "\n" not in str(caught.value)


def test_names_that_training_does_not_have_are_left_out(tmp_path):
    trainer, task, loader = trained(tmp_path, monitor="val/loss")
    state = checkpoint.read(tmp_path / CHECKPOINT)
    change(state, "progress/is_best", 5)
    change(state, "progress/state_dict", "x")
    write_any(tmp_path / CHECKPOINT, state)
    assert len(trainer.fit(task, loader, loader, tmp_path, resume=True)) == 2


def test_a_schedule_beyond_its_last_step_is_refused(tmp_path):
    x = torch.linspace(-1, 1, 8)[:, None]
    loader, trainer = torchdl.BatchLoader(torchdl.ArrayDataset(x, 2 * x), 4), torchdl.Trainer(max_steps=4)

    def task() -> torchdl.Supervised:
        model, loss = torch.nn.Linear(1, 1), torch.nn.functional.mse_loss
        return torchdl.Supervised(model, loss, schedule=torchdl.tasks.find_schedule("one_cycle"))

    trainer.fit(task(), loader, folder=tmp_path)
    before = checkpoint.read(tmp_path / CHECKPOINT)
    for key, value in (("last_epoch", 99), ("total_steps", 3)):
        state = copy.deepcopy(before)
        change(state, f"updates/schedules/model/{key}", value)
        write_any(tmp_path / CHECKPOINT, state)
        with pytest.raises(InputError, match="another number of steps"):
            trainer.fit(task(), loader, folder=tmp_path, resume=True)
