from __future__ import annotations

import io
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import gaussian

from torchdl import ArrayDataset, InputError, LenetLike, Trainer
from torchdl.cli.main import name_columns, name_options, run_script
from torchdl.cli.options import RunOptions
from torchdl.cli.printing import say
from torchdl.cli.run import Run
from torchdl.training import distributed


@dataclass(frozen=True)
class Nothing:
    """No options."""


@dataclass(frozen=True)
class Images:
    """Images."""

    image_size: int = 28
    """Pixels a side."""
    skip_corrupt: bool = False
    """Whether to skip."""


@dataclass(frozen=True)
class Config:
    """A training's options."""

    depth: int = 2
    """Convolutions."""
    na: tuple[str, ...] = ()
    """Markers."""
    images: Images = field(default_factory=Images)
    run: RunOptions = field(default_factory=RunOptions)
    trainer: Trainer = field(default_factory=lambda: Trainer(seed=3, device="cpu"))


def end_of(main, monkeypatch, config_class=Nothing, arguments=()) -> object:
    """Run a script's main, and return the exit status."""
    monkeypatch.setattr(sys, "argv", ["x.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        run_script(main, config_class)
    return ended.value.code


# errors


def test_a_machine_without_memory_is_one_sentence(monkeypatch, capsys):
    for ask in (lambda _: torch.empty(10**15), lambda _: np.empty(10**15)):
        assert end_of(ask, monkeypatch) == 1
        error = capsys.readouterr().err
        assert error.startswith("x.py: ")
        assert "memory" in error
        assert error.count("\n") == 1

    def broken(_: Nothing) -> None:
        raise RuntimeError("a mistake of ours")

    with pytest.raises(RuntimeError, match="of ours"):
        run_script(broken, Nothing)


def test_the_end_of_another_process_is_one_sentence(monkeypatch, capsys):
    def lose(_: Nothing) -> None:
        raise RuntimeError("[gloo/transport/tcp/pair.cc:561] Connection closed by peer [127.0.0.1]:15518")

    with monkeypatch.context() as patch:
        patch.setattr(distributed, "have_joined", lambda: True)
        assert end_of(lose, monkeypatch) == 1
    assert capsys.readouterr().err.startswith("x.py: another process of this training has ended: ")
    with pytest.raises(RuntimeError, match="closed by peer"):  # a single process has no others
        run_script(lose, Nothing)


@pytest.mark.parametrize(("rank", "reports"), [(0, True), (1, False)])
def test_the_first_process_alone_reports_a_shared_error(monkeypatch, capsys, rank, reports):
    def fail(_: Nothing) -> None:
        error = InputError("there is no folder")
        error.shared = True
        raise error

    monkeypatch.setattr(distributed, "rank_and_size", lambda: (rank, 2))
    assert end_of(fail, monkeypatch) == 2
    assert ("there is no folder" in capsys.readouterr().err) == reports


def test_a_character_that_the_console_lacks_is_no_error(monkeypatch):
    console = io.TextIOWrapper(io.BytesIO(), "cp1252")
    monkeypatch.setattr(sys, "stdout", console)
    assert end_of(lambda _: say("a smile: \N{GRINNING FACE}"), monkeypatch) == 0
    console.flush()
    assert console.buffer.getvalue().rstrip() == b"a smile: ?"


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("image_size must be 8 or more, not 5", "--image-size must be 8 or more, not 5"),
        ("leave them out: skip_corrupt", "leave them out: --skip-corrupt"),
        ("(image_size, max_steps)", "(--image-size, --max-steps)"),  # of nested configurations, too
        ("depth 9 is too deep", "depth 9 is too deep"),  # a word of English
        ("code_size must be positive", "code_size must be positive"),  # no option of this script
        ("there is no file image_size.png", "there is no file image_size.png"),
        ("there is no folder data/image_size", "there is no folder data/image_size"),
        ("there is no folder image_size/x", "there is no folder image_size/x"),
        ("choose one with --image-size", "choose one with --image-size"),
        ('(na=["?"], skip_corrupt=False)', "(--na '?', --no-skip-corrupt)"),
        ('name them (na=[...], depth="a b", skip_corrupt=True)', "name them (--na ..., --depth 'a b', --skip-corrupt)"),
        ('image_size=[...], other="x"', '--image-size ..., other="x"'),
        ("use another one (seed=3)", "use another one (--seed 3)"),
        (
            "code=3 is no option of this script, seed = 3 is a formula",
            "code=3 is no option of this script, seed = 3 is a formula",
        ),
    ],
)
def test_parameters_are_named_as_the_scripts_options(sentence, expected):
    assert name_options(sentence, Config) == expected


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        (
            "x.csv has no column 'close': its columns are a",
            "x.csv has no column 'close': its columns are a; name others ",
        ),
        ("there is no column 'a', 'close'", "there is no column 'a', 'close'; name others with --column and --inputs"),
        ("no column 'b'", "no column 'b'; name others with --inputs"),
        ("no column 'c'", "no column 'c'"),
        ("no column 'b': leave out --inputs", "no column 'b': leave out --inputs"),
    ],
)
def test_a_missing_column_is_named_with_its_option(sentence, expected):
    config = make_dataclass("Columns", ["column", "inputs", "length"])("close", ("a", "b"), 3)
    assert name_columns(sentence, config).startswith(expected)


def test_an_error_of_the_library_names_the_scripts_option(monkeypatch, capsys):
    def main(_: Config) -> None:
        raise InputError("image_size must be 8 or more, not 5")

    assert end_of(main, monkeypatch, Config) == 2
    assert capsys.readouterr().err == "x.py: --image-size must be 8 or more, not 5\n"


# initial weights


def test_a_model_has_the_same_weights_before_and_after_its_run_is_opened(monkeypatch, tmp_path):
    """run_script seeds before ``main``, and the run seeds again."""
    states = []

    def main(config: Config, before: bool) -> None:
        data = ArrayDataset(gaussian(4, 2), gaussian(4, 1))
        for build in (before, not before):
            if build:
                states.append(LenetLike((1, 8, 8), 3, width=2, hidden=4).state_dict())
            else:
                Run("x", config, config.run, config.trainer, data, verbose=False)

    for before in (True, False):
        torch.manual_seed(99)  # as anything before the script may do
        options = ["--out", str(tmp_path), "--name", f"before-{before}", "--seed", "5"]
        assert end_of(lambda config, before=before: main(config, before), monkeypatch, Config, options) == 0
    first, second = states
    assert first.keys() == second.keys()
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    assert end_of(lambda config: main(config, True), monkeypatch, Config, ["--out", str(tmp_path), "--seed", "6"]) == 0
    assert not all(torch.equal(tensor, states[2][name]) for name, tensor in first.items())
    assert not list(Path(tmp_path).iterdir())  # a run's folder is made when training begins


# unusual processes


def test_a_program_without_standard_streams_gets_some_that_lead_nowhere(monkeypatch):
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    assert end_of(lambda _: say("nobody reads this"), monkeypatch) == 0

    def wrong(_: Nothing) -> None:
        raise InputError("nobody reads this either")

    monkeypatch.setattr(sys, "stderr", None)
    assert end_of(wrong, monkeypatch) == 2


@pytest.mark.slow
def test_a_script_whose_error_stream_is_closed_writes_nothing_of_it_into_its_files(tmp_path):
    code = (
        "import os, sys, torchdl\n"
        "from dataclasses import dataclass\n"
        "from torchdl.cli.main import run_script\n"
        "@dataclass\n"
        "class Nothing:\n"
        "    'Nothing.'\n"
        "def main(_):\n"
        "    with open('file', 'w') as file:\n"
        "        os.write(2, b'from a library in C')\n"
        "run_script(main, Nothing)\n"
    )
    command = f"exec {shlex.quote(sys.executable)} -c {shlex.quote(code)} 2>&- >&-"
    root = str(Path(__file__).resolve().parents[2])
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, env={**os.environ, "PYTHONPATH": root})
    assert done.returncode == 0
    assert (tmp_path / "file").read_bytes() == b""
