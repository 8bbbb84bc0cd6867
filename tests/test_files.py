from __future__ import annotations

import csv
import errno
import json
import os
import re
import stat
from collections import Counter, OrderedDict
from contextlib import nullcontext
from dataclasses import dataclass
from enum import Enum, IntEnum
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np
import pandas
import pytest
import torch

from torchdl import InputError
from torchdl.files import plain, read_config, read_json, read_settings, replacing, write_json, write_table


def test_a_file_is_replaced_and_no_temporary_remains(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        # until it is whole the file is the old one
        assert path.read_text() == "old"
        assert temporary.parent == path.parent
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_was_not_there_appears(tmp_path):
    with replacing(tmp_path / "file") as temporary:
        temporary.write_bytes(b"x")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_file_and_no_temporary(tmp_path, error):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def write() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        write()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_before_anything_is_written_is_the_one_that_is_raised(tmp_path):
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "file"):
        _ = 1 / 0
    assert not list(tmp_path.iterdir())


@dataclass
class Size:
    width: int
    name: str = ""


def test_what_a_json_file_holds_is_converted(tmp_path):
    path = tmp_path / "file.json"
    path.write_text('{"width": 3}')
    assert read_json(path, Size) == Size(3)
    assert read_json(path) == {"width": 3}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 100_000, "it is nested too deeply"),
        ("{", "it is not JSON, or damaged"),
        ("\udcff", "it is not JSON, or damaged"),
        ("9" * 5_000, "it is not JSON, or damaged"),
        ('{"width": "3"}', "Expected `int`, got `str` - at `$.width`"),
        ("[]", "Expected `object`, got `array`"),
        (" " * 2_000 + "{}", "it is larger than 1,000 bytes"),
    ],
)
def test_a_json_file_that_holds_something_else_is_refused_in_one_sentence(tmp_path, text, reason):
    path = tmp_path / "file.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError) as error:
        read_json(path, Size, limit=1_000 if text.startswith(" ") else 10**6)
    assert str(path) in str(error.value)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_json_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"file\.json cannot be read: No such file"):
        read_json(tmp_path / "file.json")


# names and links


def test_a_temporary_file_has_a_name_that_nobody_can_guess(tmp_path):
    names = []
    for _ in range(2):
        with replacing(tmp_path / "file") as temporary:
            names.append(temporary.name)
            assert temporary.is_file()
            assert not re.search(rf"\b{os.getpid()}\b", temporary.name)
    assert names[0] != names[1]


def test_a_link_under_the_temporary_name_is_not_followed(tmp_path, monkeypatch):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    monkeypatch.setattr("torchdl.files.secrets.token_hex", lambda _: "guessed")
    (tmp_path / ".guessed.tmp").symlink_to(victim)
    with pytest.raises(FileExistsError), replacing(tmp_path / "file") as temporary:
        temporary.write_text("new")
    assert victim.read_text() == "precious"


def test_a_link_is_replaced_and_not_followed(tmp_path):
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "file").symlink_to(tmp_path / "victim")
    with replacing(tmp_path / "file") as temporary:
        temporary.write_text("new")
    assert ((tmp_path / "file").read_text(), (tmp_path / "victim").read_text()) == ("new", "precious")


def test_the_folder_is_flushed_after_the_rename(tmp_path, monkeypatch):
    path, fsync, flushed = tmp_path / "file", os.fsync, []

    def watched(descriptor: int) -> None:
        kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        flushed.append((kind, path.exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    with replacing(path) as temporary:
        temporary.write_text("new")
    assert flushed == [("file", False), ("folder", True)]


@pytest.mark.parametrize(("number", "fails"), [(errno.EIO, True), (errno.EINVAL, False)])
def test_only_a_file_system_that_flushes_no_folders_may_leave_that_out(tmp_path, monkeypatch, number, fails):
    fsync = os.fsync

    def fail(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="error") if fails else nullcontext(), replacing(tmp_path / "file"):
        pass


@pytest.mark.parametrize("function", ["open", "fsync", "replace"])
def test_the_error_of_a_full_disk_names_the_file_that_was_to_be_written(tmp_path, monkeypatch, function):
    def fail(*_args, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, function, fail)
    with pytest.raises(OSError, match="No space") as caught, replacing(tmp_path / "file"):
        pass
    assert caught.value.filename == str(tmp_path / "file")


# plain values


class Colour(Enum):
    RED = "red"


class Number(IntEnum):
    BIG = 7


class Pair(NamedTuple):
    one: Any
    two: Any


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float32(0.5), 0.5),
        (np.float64(0.1), 0.1),
        (np.int64(-3), -3),
        (np.bool_(True), True),
        (np.str_("x"), "x"),
        (np.arange(3), [0, 1, 2]),
        (torch.tensor(2.5), 2.5),
        (torch.Size([2, 3]), (2, 3)),
        (Colour.RED, "red"),
        (Number.BIG, 7),
        (Path("a") / "b", os.path.join("a", "b")),
        (Pair(np.int8(1), [np.uint8(2)]), (1, [2])),
        ({np.int64(1): {"a": np.float16(2)}}, {1: {"a": 2.0}}),
        (Counter(a=1), {"a": 1}),
        (None, None),
    ],
)
def test_values_of_other_libraries_become_pythons_own(value, expected):
    def kinds(value: Any) -> Any:
        if isinstance(value, dict):
            return dict, [(kinds(key), kinds(item)) for key, item in value.items()]
        return (type(value), [kinds(item) for item in value]) if isinstance(value, (list, tuple)) else type(value)

    assert plain(value) == expected
    assert kinds(plain(value)) == kinds(expected)


def test_a_container_of_plain_values_stays_itself():
    state = OrderedDict(weight=torch.ones(2), sizes=[1, (2, 3)])
    state._metadata = {"": {"version": 2}}  # as of a module's state
    assert plain(state, keep=torch.Tensor) is state


def test_json_that_could_not_be_read_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file.json"
    write_json(path, {"rate": np.float32(0.5), "folder": Path("x")})
    assert json.loads(path.read_text()) == {"rate": 0.5, "folder": "x"}
    monkeypatch.setattr(json, "dumps", lambda *_, **__: "{")
    with pytest.raises(InputError, match="not JSON"):
        write_json(path, 1)
    assert json.loads(path.read_text()) == {"rate": 0.5, "folder": "x"}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "text", ["{", "[]", "3", "null", "[" * 100_000, '{"config": 1}', '{"data": []}', '{"parameters": "many"}']
)
def test_a_config_that_holds_something_else_is_refused_in_one_sentence(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=r"is not a run's folder: its config\.json cannot be read") as error:
        read_config(tmp_path)
    assert "\n" not in str(error.value)


class Learning(TypedDict, total=False):
    rate: float
    device: str


def test_settings_are_read_as_their_types(tmp_path):
    (tmp_path / "config.json").write_text('{"config": {"rate": 1, "other": 2}, "commit": "x"}')
    assert read_settings(tmp_path, Learning) == {"rate": 1.0}
    assert read_config(tmp_path)["commit"] == "x"
    (tmp_path / "config.json").write_text('{"config": {"device": null}}')
    with pytest.raises(InputError, match=r"config\.json has other settings: Expected `str`, got `null`"):
        read_settings(tmp_path, Learning)


def test_a_table_keeps_names_that_utf_8_lacks(tmp_path):
    name = os.fsdecode(b"\xff.png")  # a file's name in Latin-1
    table = pandas.DataFrame({"class": ["a\r\nb", "c"], "share": [0.25, 1 / 3], "n": [1, 2]})
    table["input"] = pandas.Series([name, "é.png"], dtype=object)  # pyarrow's texts would refuse the name
    table["time"] = pandas.to_datetime(["2020-01-01", "2020-01-02"])
    write_table(tmp_path / "table.csv", table)
    with (tmp_path / "table.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["input"] for row in rows] == ["\\udcff.png", "é.png"]
    assert rows[0]["class"] == "a\r\nb"
    assert rows[1] | {"input": "", "class": ""} == {
        "input": "",
        "class": "",
        "share": str(1 / 3),
        "n": "2",
        "time": "2020-01-02",
    }
    table.columns = pandas.Index([name if column == "n" else column for column in table], dtype=object)
    write_table(tmp_path / "table.json", table)
    first = json.loads((tmp_path / "table.json").read_text(encoding="utf-8"))[0]
    assert first == {
        "input": "\\udcff.png",
        "class": "a\r\nb",
        "share": 0.25,
        "\\udcff.png": 1,
        "time": "2020-01-01T00:00:00.000",
    }
