"""How experiments are run: skipped, resumed, stopped, failed; and what is read from what they leave."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.scripts import environment
from PIL import Image
from test_registry import config_class
from torchdl.training.stopping import Request, Stopped, requests

import torchdl
from torchdl.data.miniature import make_data
from torchdl.training import launching, reproducing
from torchdl.training.experiments import SCRIPTS, Experiment, Figure, Script
from torchdl.training.launching import Failed
from torchdl.training.registry import EXPERIMENTS
from torchdl.training.reproducing import CUDA, Place, Records, alone, copy_picture, lacking, read_figure, run_all

ROOT = Path(__file__).resolve().parent.parent
REPRODUCE = [sys.executable, str(ROOT / "scripts" / "reproduce.py")]
WORKER = """
import json, os, pathlib, signal, sys, time
arguments = dict(zip(sys.argv[1::2], sys.argv[2::2]))
if "--resume" in arguments:
    folder = pathlib.Path(arguments["--resume"])
else:
    folder = pathlib.Path(arguments["--out"]) / "work" / arguments["--name"]
    assert not folder.exists(), "the folder is there already"
    folder.mkdir(parents=True)
log = folder.parent.parent.parent / "calls"
log.open("a").write(("resumed " if "--resume" in arguments else "begun ") + folder.name + "\\n")
spans = log.parent / "spans"
spans.open("a").write(f"+{folder.name}\\n")
def stop(number, frame):
    (folder / "signals").open("a").write(f"{int(number)}\\n")
    time.sleep(float(arguments.get("--saving", 0.4)))  # saving takes its time, and is not to be asked for again
    (folder / "checkpoint.pt").write_text("saved")
    sys.exit(128 + number)
signal.signal(signal.SIGINT, stop)
signal.signal(signal.SIGTERM, stop)
if "--wait" in arguments and "--resume" not in arguments:
    (folder / "ready").write_text(str(os.getpid()))
    time.sleep(float(arguments["--wait"]))
if "--fail" in arguments and not (log.parent / "mended").exists():
    (folder / "checkpoint.pt").write_text("saved")
    print("before"); print("worker.py: it went wrong", file=sys.stderr); sys.exit(3)
seed = int(folder.name.rsplit("-", 1)[1])
(folder / "config.json").write_text(json.dumps({"parameters": 7, "data": {"stand_in": "--stand" in arguments}}))
(folder / "results.json").write_text(json.dumps({"accuracy": 0.5 + seed / 100, "base": [0.25, 0.75]}))
until = time.monotonic() + 60
while len(spans.read_text().split()) < int(arguments.get("--beside", 0)) and time.monotonic() < until:
    time.sleep(0.02)  # until so many have begun
time.sleep(float(arguments.get("--last", 0)))
spans.open("a").write(f"-{folder.name}\\n")
"""
SWEEPER = """
import json, pathlib, sys
folder = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
for cell in ("a", "b"):
    with (folder.parent.parent.parent / "calls").open("a") as calls:
        if not (folder / cell).exists():
            calls.write(f"cell {cell}\\n")
    (folder / cell).write_text("")
    if "--fail" in sys.argv and not (folder.parent.parent.parent / "mended").exists():
        sys.exit("sweeper.py: it went wrong")
(folder / "results.json").write_text(json.dumps({"accuracy": 0.5, "base": 0.5}))
"""
FIGURE = Figure("accuracy, %", ("accuracy",), reference_key=("base",), source="the base", scale=100)


@pytest.fixture
def place(tmp_path, monkeypatch):
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "worker.py").write_text(WORKER)
    worker = Script("--out {runs} --name {name} --seed {seed}", "{runs}/work/{name}")
    monkeypatch.setitem(SCRIPTS, "worker.py", worker)
    (tmp_path / "scripts" / "sweeper.py").write_text(SWEEPER)
    return Place(tmp_path / "results", tmp_path / "scripts")


def experiment(name: str = "one", options: str = "", seeds: tuple[int, ...] = (0, 1), **others: Any) -> Experiment:
    command = f"{others.pop('script', 'worker.py')} {options}".strip()
    minutes = others.pop("minutes", 1)
    return Experiment(name, "text", "a system", "some data", (command,), ("",), (FIGURE,), minutes, (), seeds, **others)


def records(place: Place) -> Records:
    return Records.load(place.folder / "records.json")


def calls(place: Place) -> list[str]:
    path = place.folder / "calls"
    return path.read_text().split("\n")[:-1] if path.exists() else []


def run(place: Place, *experiments: Experiment, request: Request | None = None) -> tuple[list[str], list[str]]:
    said: list[str] = []
    failed = run_all(experiments, place, records(place), request or Request(), said.append)
    return failed, said


def test_each_seed_is_run_once_and_its_figures_are_kept(place):
    failed, said = run(place, experiment())
    assert failed == []
    assert [re.sub(r"\d+ s", "T", line) for line in said] == [
        "[1/2] one, seed 0: T; accuracy, %: 50",
        "[2/2] one, seed 1: T; accuracy, %: 51",
    ]
    first = records(place).find("one", 0)
    assert first["figures"] == {"accuracy, %": {"value": 50.0, "reference": 50.0}}
    assert (first["finished"], first["parameters"], first["settings"]) == (True, 7, experiment().settings)
    assert 0 < first["seconds"] < 30
    assert first["machine"]["cores"] == os.cpu_count()
    assert first["versions"]["torch"]
    assert calls(place) == ["begun one-0", "begun one-1"]
    assert run(place, experiment()) == ([], ["2 of 2 are finished already"])
    assert calls(place) == ["begun one-0", "begun one-1"]


def test_other_settings_a_new_seed_or_a_new_figure_are_run_anew(place):
    run(place, experiment(seeds=(0,)))
    run(place, experiment(seeds=(0, 1)))
    assert calls(place) == ["begun one-0", "begun one-1"]
    run(place, experiment(options="--more 1", seeds=(0,)))
    assert calls(place)[2:] == ["begun one-0"]
    more = Figure("another", ("accuracy",))
    changed = experiment(options="--more 1", seeds=(0,))
    run(place, Experiment(**{**vars(changed), "figures": (FIGURE, more)}))
    assert set(records(place).find("one", 0)["figures"]) == {"accuracy, %", "another"}


def test_a_failure_is_reported_and_the_others_go_on(place):
    failed, said = run(place, experiment("bad", "--fail 1", (0,)), experiment("good", seeds=(0,)))
    assert failed == ["bad, seed 0"]
    assert re.fullmatch(
        r"\[1/2\] bad, seed 0: FAILED: worker\.py: it went wrong \(exit status 3; all that it said: .*bad-0\.log\)",
        said[0],
    )
    assert "good, seed 0" in said[1]
    assert records(place).find("bad", 0)["finished"] is False
    (place.folder / "mended").write_text("")
    assert run(place, experiment("bad", "--fail 1", (0,)))[0] == []
    assert calls(place) == ["begun bad-0", "begun good-0", "begun bad-0"]  # what has failed begins anew


def test_what_stood_in_for_the_data_is_no_result(place):
    failed, said = run(place, experiment("stand", "--stand 1", (0,)))
    assert failed == ["stand, seed 0"]
    assert "data that stands in for some data" in said[0]
    quick = Place(place.folder, place.scripts, quick=True)
    assert reproducing.on_stand_in_data(place.folder / "runs" / "work" / "stand-0")
    assert quick.environment()["XDG_CACHE_HOME"].endswith("results/cache")


def test_a_figure_that_is_not_there_is_a_failure(place):
    other = Experiment(**{**vars(experiment(seeds=(0,))), "figures": (Figure("gone", ("nothing", 3)),)})
    failed, said = run(place, other)
    assert failed == ["one, seed 0"]
    assert "has no 'nothing/3', where 'gone' is" in said[0]


def stop_when_ready(place: Place, request: Request, name: str, number: int) -> None:
    ready = place.folder / "runs" / "work" / name / "ready"
    while not ready.exists():
        time.sleep(0.01)
    request.signal_number = number


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_request_to_stop_is_passed_on_and_the_next_call_resumes(place, number):
    request = Request()
    slow = experiment("slow", "--wait 60", (0,))
    threading.Thread(target=stop_when_ready, args=(place, request, "slow-0", number)).start()
    with pytest.raises(Stopped, match="stopped in slow, seed 0: nothing is lost, the same command goes on") as caught:
        run(place, experiment("first", seeds=(0,)), slow, request=request)
    assert caught.value.signal_number == number
    assert records(place).find("first", 0)["finished"]
    signals = place.folder / "runs" / "work" / "slow-0" / "signals"
    assert signals.read_text() == f"{int(number)}\n"
    stopped = records(place).find("slow", 0)
    assert (stopped["finished"], stopped["seconds"] > 0) == (False, True)
    run(place, experiment("first", seeds=(0,)), slow)
    assert calls(place) == ["begun first-0", "begun slow-0", "resumed slow-0"]
    assert records(place).find("slow", 0)["seconds"] > stopped["seconds"]


def test_what_was_killed_before_its_first_checkpoint_begins_anew(place):
    slow = experiment(seeds=(0,))
    (place.folder / "runs" / "work" / "one-0").mkdir(parents=True)
    (place.folder / "runs" / "work" / "one-0" / "half").write_text("")
    records(place).put(killed(slow))
    _, said = run(place, slow)
    assert calls(place) == ["begun one-0"]
    assert not (place.folder / "runs" / "work" / "one-0" / "half").exists()
    assert re.search(r"seed 0: \d+ s;", said[0])


def killed(one: Experiment) -> dict:
    """Give the record of an experiment that was killed."""
    return {"experiment": one.name, "seed": 0, "settings": one.settings, "finished": False, "seconds": None}


def test_what_was_killed_after_a_checkpoint_goes_on_and_its_time_is_not_known(place):
    slow = experiment(seeds=(0,))
    folder = place.folder / "runs" / "work" / "one-0"
    folder.mkdir(parents=True)
    (folder / "checkpoint.pt").write_text("")
    records(place).put(killed(slow))
    _, said = run(place, slow)
    assert calls(place) == ["resumed one-0"]
    assert "seed 0: ? s" in said[0]
    assert records(place).find("one", 0)["seconds"] is None


def test_a_checkpoint_of_other_settings_is_not_gone_on_from(place):
    folder = place.folder / "runs" / "work" / "one-0"
    folder.mkdir(parents=True)
    (folder / "checkpoint.pt").write_text("")
    run(place, experiment(seeds=(0,)))
    assert calls(place) == ["begun one-0"]


def sweep(options: str = "") -> Experiment:
    return experiment("cells", options, (0,), script="sweeper.py")


@pytest.mark.parametrize(("goes_on", "expected"), [(True, ["cell a", "cell b"]), (False, ["cell a"] * 2 + ["cell b"])])
def test_only_what_goes_on_by_itself_finds_what_it_has_left_and_its_time_is_added_up(
    place, monkeypatch, goes_on, expected
):
    monkeypatch.setitem(SCRIPTS, "sweeper.py", Script("--out {folder}", "{runs}/sweep/{name}", goes_on))
    assert run(place, sweep("--fail 1"))[0] == ["cells, seed 0"]
    records(place).put({**records(place).find("cells", 0), "seconds": 1000.0})
    (place.folder / "mended").write_text("")
    assert run(place, sweep("--fail 1"))[0] == []
    assert calls(place) == expected
    assert (records(place).find("cells", 0)["seconds"] > 1000) == goes_on
    assert ("it went wrong" in (place.folder / "logs" / "cells-0.log").read_text()) == goes_on
    run(place, sweep("--other 1"))
    assert calls(place) == [*expected, "cell a", "cell b"]  # other settings begin anew
    assert records(place).find("cells", 0)["seconds"] < 1000


def test_the_sweep_is_what_goes_on_by_itself():
    assert [name for name, script in SCRIPTS.items() if script.goes_on] == ["sweep_gan.py"]


def test_a_script_ends_when_the_one_that_started_it_is_killed(place, tmp_path):
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux can tell a process that its parent has ended")
    program = f"""
import sys, time; sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from torchdl.training.launching import Started
child = Started([{str(place.scripts / "worker.py")!r}, "--out", {str(place.folder / "runs")!r}, "--name", "slow-0",
                 "--wait", "60"], Path({str(tmp_path / "log")!r}), {{}}, None)
print(child.pid, flush=True)
while child.ended() is None:
    time.sleep(0.01)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        child = int(parent.stdout.readline())
        folder = place.folder / "runs" / "work" / "slow-0"
        while not (folder / "ready").exists():
            time.sleep(0.01)
        parent.kill()
    until = time.monotonic() + 20
    while not (folder / "checkpoint.pt").exists():
        assert time.monotonic() < until
        time.sleep(0.01)
    assert child > 0


def test_a_second_one_is_kept_out_of_the_folder(tmp_path):
    with (
        alone(tmp_path),
        pytest.raises(torchdl.InputError, match=r"another reproduce\.py is at work in"),
        alone(tmp_path),
    ):
        pass
    with alone(tmp_path):
        pass


# several at a time


def spans(place: Place) -> list[str]:
    return (place.folder / "spans").read_text().split()


def most_at_once(place: Place) -> int:
    lines = spans(place)
    return max(sum(1 if line[0] == "+" else -1 for line in lines[: end + 1]) for end in range(len(lines)))


def with_jobs(place: Place, jobs: int) -> Place:
    return dataclasses.replace(place, jobs=jobs)


def test_what_is_finished_is_run_again_where_its_folder_is_gone_and_is_made_use_of(place):
    judge, middle = experiment("judge", seeds=(0,)), experiment("middle", seeds=(0,), after=("judge",))
    user = experiment("user", seeds=(0,), after=("middle",))
    assert run(place, judge, middle)[0] == []
    shutil.rmtree(place.folder / "runs")
    assert run(place, judge, middle)[1] == ["2 of 2 are finished already"]
    assert run(place, judge, middle, user)[0] == []
    assert calls(place)[2:] == ["begun judge-0", "begun middle-0", "begun user-0"]
    shutil.rmtree(place.folder / "runs" / "work" / "user-0")
    assert run(place, judge, middle, user)[1] == ["3 of 3 are finished already"]


def test_nothing_is_begun_after_a_request_to_stop_and_closing_ends_what_is_at_work():
    ended: list[int] = []

    def count(turns: int) -> Iterator[None]:
        try:
            for _ in range(turns):
                yield
            return turns
        finally:
            ended.append(turns)

    request, todo = Request(), {turns: count(turns) for turns in (1, 3, 5)}
    steps = launching.side_by_side(todo, 2, request)
    assert next(steps) == (1, 1)
    request.signal_number = signal.SIGINT
    assert list(steps) == [(3, 3)]
    assert list(todo) == [5]
    ended.clear()
    todo = {turns: count(turns) for turns in (100, 200, 0)}  # which keeps them alive
    steps = launching.side_by_side(dict(todo), 3, Request())
    assert next(steps) == (0, 0)
    assert ended == [0]
    steps.close()
    assert ended == [0, 100, 200]


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_as_many_are_at_work_as_there_are_jobs(place, jobs):
    failed, said = run(with_jobs(place, jobs), *(experiment(name, f"--beside {jobs}") for name in ("a", "b", "c")))
    assert failed == []
    assert most_at_once(place) == jobs
    assert [line.partition("]")[0] for line in said] == [f"[{n}/6" for n in range(1, 7)]
    kept = {(r["experiment"], r["seed"]): r for r in records(place).kept}
    assert set(kept) == {(name, seed) for name in ("a", "b", "c") for seed in (0, 1)}
    for (_, seed), record in kept.items():
        assert (record["finished"], record["machine"]["jobs"]) == (True, jobs)
        assert record["figures"]["accuracy, %"]["value"] == 50 + seed
        assert 0 < record["seconds"] < 60


def test_the_longest_is_begun_first_with_what_it_waits_for_unless_it_is_one_at_a_time(place):
    some = [experiment(name, seeds=(0,), minutes=m) for name, m in (("short", 1), ("long", 5), ("judge", 2))]
    some.append(experiment("longest", seeds=(0,), minutes=9, after=("judge",)))
    run(with_jobs(place, 2), *some)
    assert [r["experiment"] for r in records(place).kept][:2] == ["judge", "long"]
    (place.folder / "records.json").unlink()
    run(place, *some)
    assert [r["experiment"] for r in records(place).kept] == ["short", "long", "judge", "longest"]


@pytest.mark.parametrize("jobs", [1, 3])
def test_what_makes_use_of_others_starts_once_all_their_seeds_have_finished(place, jobs):
    user = experiment("user", seeds=(0,), after=("judge",))
    run(with_jobs(place, jobs), user, experiment("judge", "--last 0.3"), experiment("other", "--last 0.1"))
    lines = spans(place)
    assert lines.index("+user-0") > max(lines.index("-judge-0"), lines.index("-judge-1"))


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_makes_use_of_what_has_failed_is_not_started_and_says_so(place, jobs):
    place = with_jobs(place, jobs)
    some = [
        experiment("judge", "--fail 1", (0,)),
        experiment("user", seeds=(0,), after=("judge",)),
        experiment("last", seeds=(0,), after=("user",)),
        experiment("other", seeds=(0,)),
    ]
    failed, said = run(place, *some)
    assert sorted(failed) == ["judge, seed 0", "last, seed 0", "user, seed 0"]
    ends = {line.partition("] ")[2].partition(": ")[0]: line.partition(": ")[2] for line in said}
    sentence = "FAILED: it was not started, because it makes use of what has failed"
    assert ends["user, seed 0"] == f"{sentence} (judge, seed 0)"
    assert ends["last, seed 0"] == f"{sentence} (user, seed 0)"
    assert sorted(calls(place)) == ["begun judge-0", "begun other-0"]
    assert records(place).find("user", 0) is None
    (place.folder / "mended").write_text("")
    assert run(place, *some)[0] == []
    assert calls(place)[2:] == ["begun judge-0", "begun user-0", "begun last-0"]


def test_what_measures_time_has_the_machine_to_itself(place):
    timed = experiment("timed", "--last 0.1", alone=True)
    run(with_jobs(place, 3), timed, *(experiment(name, "--last 1", (0,)) for name in ("a", "b", "c")))
    lines = spans(place)
    assert most_at_once(place) >= 2
    machines = [records(place).find(name, 0)["machine"] for name in ("timed", "a")]
    assert [(machine["jobs"], machine["threads"]) for machine in machines] == [(1, os.cpu_count()), (3, 1)]
    assert place.environment(alone=True).keys() ^ place.environment().keys() == {"OMP_NUM_THREADS"}
    for seed in (0, 1):
        begun = lines.index(f"+timed-{seed}")
        assert lines[begun + 1] == f"-timed-{seed}"
        assert sorted(line[1:] for line in lines[:begun] if line[0] == "+") == sorted(
            line[1:] for line in lines[:begun] if line[0] == "-"
        )


def when_ready(place: Place, names: Sequence[str], then: Callable[[], None]) -> threading.Thread:
    """Call something once these runs wait."""

    def wait() -> None:
        until = time.monotonic() + 30
        while not all((place.folder / "runs" / "work" / name / "ready").exists() for name in names):
            assert time.monotonic() < until
            time.sleep(0.01)
        then()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_lets_each_of_those_at_work_save_and_the_next_call_resumes_them(place, number):
    place = with_jobs(place, 2)
    slow, last = experiment("slow", "--wait 60"), experiment("last", seeds=(0,), minutes=0.5)
    done = experiment("done", seeds=(0,), minutes=2)

    with requests() as request:
        thread = when_ready(place, ("slow-0", "slow-1"), lambda: os.kill(os.getpid(), number))
        with pytest.raises(Stopped, match=r"^stopped in slow, seed \d and slow, seed \d: nothing is lost") as caught:
            run(place, done, slow, last, request=request)
        thread.join()
    assert caught.value.signal_number == number
    for seed in (0, 1):
        folder = place.folder / "runs" / "work" / f"slow-{seed}"
        assert (folder / "signals").read_text() == f"{int(number)}\n"
        assert (folder / "checkpoint.pt").exists()
        assert records(place).find("slow", seed)["seconds"] > 0
    assert records(place).find("done", 0)["finished"]
    assert sorted(calls(place)) == ["begun done-0", "begun slow-0", "begun slow-1"]
    failed, said = run(place, done, slow, last)
    assert (failed, said[0]) == ([], "1 of 4 are finished already")
    assert sorted(calls(place)[3:]) == ["begun last-0", "resumed slow-0", "resumed slow-1"]


def test_a_second_signal_ends_all_at_once_and_what_was_measured_is_kept(place, ctrl_c):
    place = with_jobs(place, 2)
    slow = experiment("slow", "--wait 60 --saving 60")
    folders = [place.folder / "runs" / "work" / f"slow-{seed}" for seed in (0, 1)]

    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        while not all((folder / "signals").exists() for folder in folders):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    since = time.monotonic()
    with requests() as request:
        thread = when_ready(place, ("slow-0", "slow-1"), twice)
        with pytest.raises(KeyboardInterrupt):
            run(place, experiment("done", seeds=(0,), minutes=2), slow, request=request)
        thread.join()
    assert time.monotonic() - since < 30
    for folder in folders:
        assert not (folder / "checkpoint.pt").exists()
        with pytest.raises(ProcessLookupError):
            os.kill(int((folder / "ready").read_text()), 0)
    assert records(place).find("done", 0)["finished"]
    assert [records(place).find("slow", seed)["seconds"] for seed in (0, 1)] == [None, None]


def test_what_ends_although_it_was_to_stop_is_kept(place):
    request = Request()
    (place.scripts / "worker.py").write_text(WORKER.replace("sys.exit(128 + number)", ""))
    thread = when_ready(place, ("one-0",), lambda: setattr(request, "signal_number", signal.SIGINT))
    with pytest.raises(Stopped, match="stopped in one, seed 1: nothing is lost"):
        run(place, experiment(options="--wait 1"), request=request)
    thread.join()
    assert records(place).find("one", 0)["finished"]
    assert records(place).find("one", 1) is None


def test_forks_work_side_by_side_and_stop_even_where_they_do_not_train(place, tmp_path):
    (place.scripts / "sleeper.py").write_text(
        "import sys, time, pathlib\npathlib.Path(sys.argv[1]).touch()\ntime.sleep(60)"
    )
    program = f"""
import os, signal, sys; sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from torchdl.training.launching import run_command, side_by_side
from torchdl.training.stopping import Stopped, requests
here = Path({str(tmp_path)!r})
def asked():
    while not all((here / name).exists() for name in "ab"):
        yield
    os.kill(os.getpid(), signal.SIGTERM)
with requests() as request:
    todo = {{n: run_command(["sleeper.py", str(here / n)], here / "scripts", here / "log", {{}}, request, forked=True)
            for n in "ab"}}
    ended = dict(side_by_side({{**todo, "asked": asked()}}, 3, request))
assert all(isinstance(ended[name], Stopped) for name in "ab"), ended
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stderr) == (0, "")


# what is read


@pytest.mark.parametrize(
    ("file", "text", "key", "expected"),
    [
        ("results.json", '{"a": {"b": [1, 2, 6]}}', ("a", "b"), 3.0),
        ("results.json", '{"a": {"b": [1, 2, 6]}}', ("a", "b", -1), 6.0),
        ("results.json", '{"a": 0.25}', ("a",), 0.25),
        ("metrics.csv", "epoch,val/x\n1,0.5\n2,0.75\n3,\n", ("val/x",), 0.75),
    ],
)
def test_figures_are_read_from_json_and_from_the_last_row_of_csv(tmp_path, file, text, key, expected):
    (tmp_path / file).write_text(text)
    assert read_figure(tmp_path, Figure("m", key, file=file, scale=10)) == {"value": 10 * expected}


def test_of_a_figure_of_several_seeds_each_is_kept(tmp_path):
    (tmp_path / "results.json").write_text('{"a": [1, 2, 6], "b": [3, 3, 3]}')
    figure = Figure("m", ("a",), reference_key=("b",), scale=10, of_seeds=True)
    assert read_figure(tmp_path, figure) == {"value": 30, "reference": 30, "values": [10, 20, 60]}


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("results.json", "{"),
        ("results.json", "[]"),
        ("results.json", '{"a": "b"}'),
        ("results.json", '{"a": []}'),
        ("results.json", '{"a": null}'),
        ("results.json", '{"b": 1}'),
        ("metrics.csv", "b\n1\n"),
        ("metrics.csv", "a\n"),
        ("metrics.csv", ""),
    ],
)
def test_a_damaged_file_of_figures_is_named(tmp_path, file, text):
    (tmp_path / file).write_text(text)
    with pytest.raises(torchdl.InputError, match=rf"{file} has no 'a', where 'm' is"):
        read_figure(tmp_path, Figure("m", ("a",), file=file))


def test_a_file_of_figures_that_is_not_there_is_named(tmp_path):
    with pytest.raises(torchdl.InputError, match=r"results\.json cannot be read"):
        read_figure(tmp_path, Figure("m", ("a",)))


@pytest.mark.parametrize("text", ["{", "{}", '[{"seed": 1}]', "[3]"])
def test_damaged_records_are_named(tmp_path, text):
    (tmp_path / "records.json").write_text(text)
    if text == "{}":
        assert Records.load(tmp_path / "records.json").find("a", 0) is None
        return
    with pytest.raises(torchdl.InputError, match=r"records\.json is damaged"):
        Records.load(tmp_path / "records.json")


def test_pictures_are_copied_and_made_small_enough(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    Image.new("RGB", (30, 20), "red").save(tmp_path / "plain.png")
    assert (tmp_path / "noise.png").stat().st_size > 20_000
    copy_picture(tmp_path / "noise.png", tmp_path / "small" / "noise.png", 20_000)
    assert (tmp_path / "small" / "noise.png").stat().st_size <= 20_000
    with Image.open(tmp_path / "small" / "noise.png") as image:
        assert image.size[0] / image.size[1] == pytest.approx(1.5, abs=0.03)
        assert np.asarray(image.convert("L")).std() > 5
    copy_picture(tmp_path / "plain.png", tmp_path / "small" / "plain.png")
    assert (tmp_path / "small" / "plain.png").read_bytes() == (tmp_path / "plain.png").read_bytes()


def test_what_is_lacking_is_said_with_what_to_fetch_and_where_to_put_it(tmp_path, monkeypatch):
    monkeypatch.delenv("TORCHDL_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(reproducing.SOURCES["fashion_mnist"].__class__, "system_folders", (), raising=False)
    needs = sorted({need for e in EXPERIMENTS for need in e.needs} - {*reproducing.PACKAGES, CUDA, "fashion_mnist"})
    assert len(needs) >= 6
    for need in needs:
        sentence = lacking(need, tmp_path / "data")
        assert str(tmp_path / "data") in sentence, need
        assert "http" in sentence or need == "cifar10-jpeg"
    made = make_data(tmp_path / "data")
    assert [lacking(need, made) for need in needs] == [""] * len(needs)
    monkeypatch.setattr(reproducing.importlib.util, "find_spec", lambda name: None)
    assert lacking("keras") == "the package keras is not installed: pip install -e '.[test]'"
    for name, sentence in (("A100", ""), ("", "a CUDA device is not there: on a CPU it would take hours")):
        monkeypatch.setattr(reproducing, "gpu", lambda name=name: name)
        assert lacking(CUDA) == sentence


def test_a_gpu_is_asked_for_by_another_process_so_that_forks_can_use_it(monkeypatch):
    for name in ("is_available", "get_device_name", "init"):
        monkeypatch.setattr(torch.cuda, name, lambda: pytest.fail("CUDA was begun to be used"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    asked: list[str] = []

    def run(command: Sequence[str], **_: object) -> subprocess.CompletedProcess[str]:
        asked.append(command[2])
        return subprocess.CompletedProcess(command, 0, "A100\n")

    monkeypatch.setattr(reproducing.subprocess, "run", run)
    reproducing.gpu.cache_clear()
    try:
        assert [reproducing.machine()["gpu"] for _ in range(2)] == ["A100"] * 2
    finally:
        reproducing.gpu.cache_clear()
    assert len(asked) == 1
    compile(asked[0], "asked", "exec")


def test_made_up_data_is_the_same_for_a_seed_and_read_by_the_library(tmp_path):
    one, two = make_data(tmp_path / "one"), make_data(tmp_path / "two")
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert all((one / path).read_bytes() == (two / path).read_bytes() for path in files)
    digits = torchdl.load_images("mnist", "train", one, fetch=False)
    assert (len(digits), digits.stand_in) == (600, False)
    assert digits.labels[:100].bincount(minlength=10).tolist() == [10] * 10
    assert len(torchdl.load_images("cifar10-jpeg", "test", one)) == 30
    assert len(torchdl.load_prices(one, fetch=False)) == 120


# the script itself


def reproduce(tmp_path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [*REPRODUCE, *options]
    return subprocess.run(command, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, timeout=120)


def test_quick_runs_leave_rows_that_are_marked_and_no_table(tmp_path):
    done = reproduce(tmp_path, "--quick", "--only", "moore")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^\[1/1\] moore, seed 0: \d+ s; slope a year: \S+$", done.stdout, re.MULTILINE)
    rows = json.loads((tmp_path / "results" / "quick.json").read_text())
    assert [row["experiment"] for row in rows] == ["moore", "moore"]
    assert all(row["quick"] and row["data"] == "made up" for row in rows)
    assert rows[0]["parameters"] == 2
    assert not (tmp_path / "RESULTS.md").exists()
    assert not (tmp_path / "results" / "results.json").exists()
    assert (tmp_path / "results" / "quick" / "pictures" / "moore-moore.png").is_file()


@pytest.fixture
def script(place, monkeypatch):
    """Load reproduce.py, with two experiments in place of all: one can be run, and one lacks its data."""
    config_class("reproduce.py")
    module = sys.modules["scripts_reproduce"]
    other = Experiment(**{**vars(experiment("other", seeds=(0,))), "needs": ("spam",), "headline": True})
    mine = Experiment(**{**vars(experiment("mine")), "headline": True})
    monkeypatch.setattr(module, "EXPERIMENTS", (mine, other))
    monkeypatch.setattr(module, "SCRIPTS", place.scripts)
    monkeypatch.setenv("XDG_CACHE_HOME", str(place.folder.parent / "cache"))
    monkeypatch.delenv("TORCHDL_DATA", raising=False)
    return module


def test_results_are_written_and_what_is_lacking_is_listed(script, place, capsys):
    folder = place.folder.parent
    (folder / "README.md").write_text("# x\n\n<!-- results: begin -->\n<!-- results: end -->\n\nlast\n")
    script.main(script.Config(out=folder))
    said = capsys.readouterr().out
    assert re.search(r"^not run: other: spam was not found .* \(https://\S+spam\.csv\)$", said, re.MULTILINE)
    (row,) = json.loads((place.folder / "results.json").read_text())
    assert (row["values"], row["seeds"], row["quick"]) == ([50.0, 51.0], [0, 1], False)
    text = (folder / "RESULTS.md").read_text()
    assert "| 50.50 ± 0.71 | 50.00 (the base) |" in text
    assert "- other (`worker.py`): spam was not found" in text
    readme = (folder / "README.md").read_text()
    line = "| [a system, some data](RESULTS.md#texts) | accuracy, % | 50.50 ± 0.71 | 50.00 |"
    assert f"{line}\n<!-- results: end -->\n\nlast\n" in readme


@pytest.mark.parametrize(
    ("options", "lacks"),
    [
        ({}, ["data", "a GPU"]),
        ({"fetch": True}, ["a GPU"]),
        ({"quick": True}, []),
        ({"quick": True, "fetch": True}, []),
    ],
    ids=str,
)
def test_a_quick_form_wants_no_data_and_no_gpu_and_what_can_be_fetched_is_not_lacking(
    script, monkeypatch, options, lacks
):
    sentences = {"mnist": "data", CUDA: "a GPU", "keras": ""}
    monkeypatch.setattr(script, "lacking", lambda need, root: sentences[need])
    wanting = Experiment(**{**vars(experiment("wanting")), "needs": ("mnist", CUDA, "keras")})
    assert script.absences(wanting, script.Config(**options)) == lacks
    sentences["keras"] = "a package"
    assert script.absences(wanting, script.Config(**options)) == [*lacks, "a package"]


def test_tables_keep_what_was_measured_before_when_others_are_run(script, place, capsys):
    folder = place.folder.parent
    script.main(script.Config(out=folder, only=("mine",)))
    script.main(script.Config(out=folder, only=("other",), most_minutes=0.5))
    assert [row["experiment"] for row in json.loads((place.folder / "results.json").read_text())] == ["mine"]
    assert "other" not in capsys.readouterr().out


def test_a_failure_makes_the_exit_status_1_after_the_tables(script, place, capsys, monkeypatch):
    bad = experiment("bad", "--fail 1", (0,))
    monkeypatch.setattr(script, "EXPERIMENTS", (bad, *script.EXPERIMENTS))
    with pytest.raises(SystemExit) as ended:
        script.main(script.Config(out=place.folder.parent))
    assert ended.value.code == "reproduce.py: 1 failed (bad, seed 0): the lines above say why"
    assert "bad, seed 0: FAILED: worker.py: it went wrong" in capsys.readouterr().out
    assert (place.folder.parent / "RESULTS.md").exists()


def test_the_list_says_what_is_left_and_runs_nothing(script, place, capsys):
    script.main(script.Config(out=place.folder.parent, list=True))
    one, two, left = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"mine +text +0 of 2 seeds, +1\.0 min a seed: a system", one)
    assert re.fullmatch(r"other +text +0 of 1 seeds, +1\.0 min a seed: a system +spam was not found .*", two)
    assert left == "about 2 minutes of one core are left"
    assert not place.folder.exists()


def test_ctrl_c_stops_the_script_with_a_sentence(tmp_path):
    command = [*REPRODUCE, "--only", "optimizers"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=tmp_path, env=environment(tmp_path), text=True, **pipes) as process:
        log = tmp_path / "results" / "logs" / "optimizers-0.log"
        while not log.exists():
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said == "reproduce.py: stopped in optimizers, seed 0: nothing is lost, the same command goes on\n"
    assert json.loads((tmp_path / "results" / "records.json").read_text())[0]["finished"] is False


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"only": ("mnie",)}, "there is no experiment and no area 'mnie': did you mean mine"),
        ({"jobs": 0}, "--jobs must be 1 or more, not 0"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(script, place, options, said):
    with pytest.raises(torchdl.InputError, match=re.escape(said)):
        script.main(script.Config(out=place.folder.parent, **options))
    assert not place.folder.exists()


def test_a_script_that_is_killed_has_failed(place):
    (place.scripts / "killed.py").write_text(
        "import os, signal\nprint('x', flush=True)\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    todo = {"one": launching.run_command(["killed.py"], place.scripts, place.folder / "log", {}, Request())}
    ((name, outcome),) = launching.side_by_side(todo, 1, Request())
    assert (name, type(outcome)) == ("one", Failed)
    assert str(outcome).startswith("x (exit status -9; ")
