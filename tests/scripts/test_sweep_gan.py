"""The sweep over pairs and losses: what it runs, what it does not run twice, and the table it makes."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from helpers.scripts import ROOT

from torchdl import InputError
from torchdl.errors import Stopped
from torchdl.training.signals import Request

SCRIPTS = ROOT / "scripts"
SHARES = {"0": 0.4, "1": 0.6}


@pytest.fixture
def sweep(monkeypatch):
    """The script as a module, its judge taken for good."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    spec = importlib.util.spec_from_file_location("sweep_gan", SCRIPTS / "sweep_gan.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "sweep_gan", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "find_extractor", lambda place, dataset: None)
    return module


class Calls:
    """In place of the scripts: write what they would, and remember how they were called."""

    def __init__(self, fail: str = "") -> None:
        self.commands: list[list[str]] = []
        self.fail = fail

    def __call__(self, command, log, request, killed, spent=None):
        words = [str(word) for word in command]
        self.commands.append(words)
        if self.fail and self.fail in " ".join(words):
            request.signal_number = signal.SIGINT
            raise Stopped("", signal.SIGINT)
        if words[0] == "evaluate_gan.py":
            run = Path(words[1])
            distance = 10.0 + int(run.name[-1]) ** 2 + 100 * ("hinge" in run.name)
            row = {"Fréchet distance": distance, "precision": 0.5, "recall": 0.6, "coverage": 0.7}
            found = {"generated": {**row, "class shares": SHARES}, "training images": {"Fréchet distance": 2.0}}
            run.joinpath("evaluation.json").write_text(json.dumps({"against held-out images": found}))
        elif "--name" in words:
            Path(words[words.index("--out") + 1], "gan", words[words.index("--name") + 1]).mkdir(parents=True)
        if spent is not None:
            spent.write_text("7.0")


TRAIN = """
import os, pathlib, signal, sys, time
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
run = pathlib.Path(options.get("--resume") or pathlib.Path(options["--out"], "gan", options["--name"]))
run.mkdir(parents=True, exist_ok="--resume" in options)
def stop(number, frame):
    (run / "checkpoint.pt").write_text("saved")
    (run / "signals").open("a").write(f"{int(number)} ")
    sys.exit(130)
signal.signal(signal.SIGINT, stop)
while time.process_time() < 0.3:
    pass
if options.get("--lr") == "nonsense":
    sys.exit("it went wrong")
(run / "ready").touch()
if "--resume" not in options:
    time.sleep(60)
"""
EVALUATE = """
import json, pathlib, sys
row = {"Fréchet distance": 1.0, "precision": 0.5, "recall": 0.6, "coverage": 0.7, "class shares": {"0": 1.0}}
found = {"generated": row, "training images": {"Fréchet distance": 2.0}}
pathlib.Path(sys.argv[1], "evaluation.json").write_text(json.dumps({"against held-out images": found}))
"""


@pytest.fixture
def small(sweep, tmp_path, monkeypatch):
    """The script as a module, with two tiny scripts in place of those that train and judge."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "train_gan.py").write_text(TRAIN)
    (tmp_path / "scripts" / "evaluate_gan.py").write_text(EVALUATE)
    monkeypatch.setattr(sweep, "SCRIPTS", tmp_path / "scripts")
    return sweep


def config(sweep, folder: Path, **options):
    options = {"models": ("simple",), "losses": ("minimax", "hinge"), "seeds": (0, 2), **options}
    return sweep.Config(out=folder, **options)


def test_every_pair_is_trained_and_judged_with_every_seed_and_the_table_is_of_their_means(
    sweep, tmp_path, monkeypatch, capsys
):
    calls = Calls()
    monkeypatch.setattr(sweep, "call", calls)
    sweep.main(config(sweep, tmp_path, epochs=3, options="--width 4", samples=50))
    names = [f"simple-{loss}-{seed}" for loss in ("minimax", "hinge") for seed in (0, 2)]
    trained = [words for words in calls.commands if words[0] == "train_gan.py"]
    assert [words[words.index("--name") + 1] for words in trained] == names
    for words, name in zip(trained, names, strict=True):
        given = dict(zip(words[1::2], words[2::2], strict=True))
        model, loss, seed = name.split("-")
        assert given.items() >= {"--model": model, "--loss": loss, "--seed": seed, "--epochs": "3"}.items()
        assert given.items() >= {"--width": "4", "--threads": "1", "--dataset": "mnist"}.items()
    rows = json.loads((tmp_path / "sweep-mnist" / "sweep.json").read_text())["rows"]
    assert [row["name"] for row in rows] == ["simple minimax", "simple hinge"]
    assert rows[0]["Fréchet distance"] == {"mean": 12.0, "std": statistics.stdev([10.0, 14.0]), "values": [10.0, 14.0]}
    assert rows[1]["Fréchet distance"]["mean"] == 112.0
    assert rows[0]["rarest class"]["values"] == [40.0, 40.0]
    assert rows[0]["seconds"]["values"] == [7.0, 7.0]
    said = capsys.readouterr().out
    assert said.index("simple minimax  ") < said.index("simple hinge  ")  # the best first
    assert "12.00 ± 2.83" in said
    assert "train against test: 2.00" in said
    assert (tmp_path / "sweep-mnist" / "sweep.png").stat().st_size > 1000
    # the same command again has nothing to do
    calls.commands.clear()
    sweep.main(config(sweep, tmp_path, epochs=3, options="--width 4", samples=50))
    assert calls.commands == []
    for options, said in ({"epochs": 5}, "--epochs 5 .* instead of"), ({"samples": 60}, "samples 60 instead of 50"):
        with pytest.raises(InputError, match=f"was made with other settings .*{said}.*: choose another --out"):
            sweep.main(config(sweep, tmp_path, **{"epochs": 3, "options": "--width 4", "samples": 50, **options}))


@pytest.mark.parametrize("name", ["checkpoint.pt", "checkpoint.previous.pt"])
def test_what_was_stopped_goes_on_and_what_was_killed_at_once_begins_anew(sweep, tmp_path, monkeypatch, name):
    runs = [tmp_path / "sweep-mnist" / "gan" / f"simple-minimax-{seed}" for seed in (0, 1)]
    for folder in runs:
        folder.mkdir(parents=True)
    (runs[0] / name).touch()  # only the previous one after a kill between the two renames of a save
    (runs[1] / "config.json").touch()
    calls = Calls()
    monkeypatch.setattr(sweep, "call", calls)
    sweep.main(config(sweep, tmp_path, losses=("minimax",), seeds=(0, 1)))
    assert calls.commands[0][:3] == ["train_gan.py", "--resume", str(runs[0])]
    assert "--resume" not in calls.commands[2]
    assert not (runs[1] / "config.json").exists()


def test_ctrl_c_stops_it_with_a_sentence_and_the_rest_is_not_begun(sweep, tmp_path, monkeypatch):
    calls = Calls(fail="simple-minimax-2")
    monkeypatch.setattr(sweep, "call", calls)
    with pytest.raises(Stopped, match="same command"):
        sweep.main(config(sweep, tmp_path, seeds=(0, 2, 3, 4)))
    assert [words[0] for words in calls.commands] == ["train_gan.py", "evaluate_gan.py", "train_gan.py"]
    assert (tmp_path / "sweep-mnist" / "gan" / "simple-minimax-0" / "evaluation.json").is_file()
    assert not (tmp_path / "sweep-mnist" / "sweep.json").exists()


def test_ctrl_c_lets_each_run_at_work_save_and_the_same_command_goes_on_and_adds_up_their_seconds(small, tmp_path):
    runs = [tmp_path / "sweep-mnist" / "gan" / f"simple-minimax-{seed}" for seed in (0, 1)]
    given = config(small, tmp_path, losses=("minimax",), seeds=(0, 1, 2), jobs=2)

    def press() -> None:
        while not all((run / "ready").exists() for run in runs):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    with pytest.raises(Stopped, match="the same command goes on"):
        small.main(given)
    thread.join()
    for run in runs:
        assert (run / "signals").read_text() == "2 "
        assert 0.3 <= json.loads((run / "seconds.json").read_text()) < 5
    assert not runs[0].with_name("simple-minimax-2").exists()
    third = runs[0].with_name("simple-minimax-2")
    third.mkdir()
    (third / "checkpoint.pt").touch()  # or it would wait
    small.main(given)
    row = json.loads((tmp_path / "sweep-mnist" / "sweep.json").read_text())["rows"][0]
    first, second, last = row["seconds"]["values"]
    assert first >= 0.6
    assert second >= 0.6
    assert 0.3 <= last < first + second


def test_a_failure_begins_no_others_and_is_one_sentence(small, tmp_path):
    with pytest.raises(InputError, match=r"^train_gan\.py .*--name simple-minimax-0 .*it went wrong"):
        small.main(config(small, tmp_path, options="--lr nonsense"))
    assert [path.name for path in (tmp_path / "sweep-mnist" / "gan").iterdir()] == ["simple-minimax-0"]
    assert not (tmp_path / "sweep-mnist" / "sweep.json").exists()


def test_a_script_that_fails_is_named_with_what_it_said_and_its_seconds_count(small, tmp_path):
    log, spent = tmp_path / "log.txt", tmp_path / "gan" / "x" / "seconds.json"
    spent.parent.mkdir(parents=True)
    spent.write_text("30.0")
    command = ["train_gan.py", "--resume", spent.parent, "--lr", "nonsense"]
    with pytest.raises(InputError, match=r"train_gan\.py --resume \S+ --lr nonsense .*it went wrong .*log\.txt"):
        small.call(command, log, Request(), threading.Event(), spent)
    assert log.read_text() == "it went wrong\n"
    assert 30.3 <= json.loads(spent.read_text()) < 90


def test_a_second_ctrl_c_ends_the_runs_at_once(small, tmp_path, ctrl_c):
    run = tmp_path / "sweep-mnist" / "gan" / "simple-minimax-0"
    (small.SCRIPTS / "train_gan.py").write_text(TRAIN.replace("sys.exit(130)", "time.sleep(60)"))

    def press() -> None:
        for name in ("ready", "signals"):
            while not (run / name).exists():
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    since = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        small.main(config(small, tmp_path, losses=("minimax",), seeds=(0,)))
    thread.join()
    assert time.monotonic() - since < 30


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells a process that its parent has ended")
def test_a_run_is_asked_to_save_when_the_sweep_is_killed(small, tmp_path):
    run = tmp_path / "gan" / "x"
    program = f"""
import sys, threading; sys.path.insert(0, {str(SCRIPTS)!r})
import sweep_gan
from pathlib import Path
from torchdl.training.signals import Request
sweep_gan.SCRIPTS = Path({str(small.SCRIPTS)!r})
sweep_gan.call(["train_gan.py", "--out", {str(tmp_path)!r}, "--name", "x"], Path({str(tmp_path / "log")!r}), Request(),
               threading.Event())
"""
    (small.SCRIPTS / "train_gan.py").write_text(TRAIN.replace("SIGINT, stop", "SIGTERM, stop"))
    with subprocess.Popen([sys.executable, "-c", program]) as parent:
        while not (run / "ready").exists():
            assert parent.poll() is None
            time.sleep(0.02)
        parent.kill()
    until = time.monotonic() + 20
    while not (run / "checkpoint.pt").exists():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize(("options", "parts"), [({"jobs": 0}, "--jobs.* 1"), ({"epochs": 0}, "--epochs.* 1")])
def test_too_few_jobs_or_epochs_are_refused(sweep, tmp_path, options, parts):
    with pytest.raises(InputError, match=parts):
        sweep.main(config(sweep, tmp_path, **options))
    assert list(tmp_path.iterdir()) == []


def test_a_missing_judge_is_one_sentence_that_says_how_to_make_it(tmp_path):
    command = [sys.executable, str(SCRIPTS / "sweep_gan.py"), "--dataset", "cifar10"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    (sentence,) = done.stderr.splitlines()
    assert "runs/lenet/judge-cifar10" in sentence
    assert "python scripts/train_lenet.py --dataset cifar10" in sentence
    assert list(tmp_path.iterdir()) == []
