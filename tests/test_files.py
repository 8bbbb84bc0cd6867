from __future__ import annotations

from dataclasses import dataclass

import pytest

from torchdl import InputError
from torchdl.files import read_json, replacing


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
