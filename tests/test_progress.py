from __future__ import annotations

import io

import pytest

from torchdl.progress import progress_bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Notebook(io.StringIO):  # ipykernel's stream is no terminal
    pass


Notebook.__module__ = "ipykernel.iostream"


@pytest.mark.parametrize(
    ("stream", "shown", "drawn"),
    [(Terminal(), True, True), (Notebook(), True, True), (Notebook(), False, False), (io.StringIO(), True, False)],
    ids=["terminal", "notebook", "not asked for", "file"],
)
def test_a_bar_is_drawn_in_terminals_and_notebooks_alone(monkeypatch, stream, shown, drawn):
    monkeypatch.setattr("sys.stderr", stream)
    progress_bar(shown, total=3, desc="steps").close()
    assert ("steps" in stream.getvalue()) == drawn


def test_a_program_without_stderr_gets_no_bar(monkeypatch):
    monkeypatch.setattr("sys.stderr", None)
    assert progress_bar(total=3).disable
