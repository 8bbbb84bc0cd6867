"""How experiments are run: one job in this process, the engine in a small clone of its own."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.registry import ROOT, config_class

import torchdl
from experiments import plan as planning, run as running
from experiments.plan import Outcome, Plan, Settings, look, merge, prepare
from experiments.records import Records
from experiments.registry import Experiment, Figure, Registry, Script, load
from experiments.run import Failed, Place, Stopped

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
data = {"stand_in": "--stand" in arguments, "fingerprint": "f00d"}
(folder / "config.json").write_text(json.dumps({"parameters": 7, "data": data}))
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
WORK = Script("worker.py", "--out {runs} --name {name} --seed {seed}", "{runs}/work/{name}")
SWEEP = Script("sweeper.py", "--out {folder}", "{runs}/sweep/{name}", goes_on=True)


def experiment(name: str = "one", options: str = "", seeds: tuple[int, ...] = (0,), **others: Any) -> Experiment:
    script = others.pop("script", WORK)
    values = {"figures": (FIGURE,), "minutes": 1, **others}
    command = f"{script.name} {options}".strip()
    return Experiment(
        name, "text", "a system", "some data", (command,), ("",), scripts=(script,), seeds=seeds, **values
    )


# one job


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder of results, with two small scripts in place of all; what listens to signals is taken away again."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "worker.py").write_text(WORKER)
    (tmp_path / "scripts" / "sweeper.py").write_text(SWEEPER)
    monkeypatch.setattr(running, "ROOT", tmp_path)
    monkeypatch.setattr(running, "hash_code", lambda scripts: "code of " + " ".join(scripts))
    monkeypatch.setattr(running, "machine", lambda: {"cpu": "a CPU", "instructions": "AVX2", "cores": os.cpu_count()})
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield Place(tmp_path)
    for number, handler in before.items():
        signal.signal(number, handler)


def run(place: Place, one: Experiment, seed: int = 0, **options: Any) -> dict[str, Any]:
    return running.run(one, seed, place, **options)


def unfinished(place: Place, name: str = "one") -> dict[str, Any]:
    return json.loads(place.unfinished(name, 0).read_text())


def calls(place: Place) -> list[str]:
    path = place.folder / "calls"
    return path.read_text().split("\n")[:-1] if path.exists() else []


def checkpoint(place: Place, name: str = "one", **record: Any) -> Path:
    """Leave what a killed run leaves: a checkpoint, and a record whose time is not known."""
    folder = place.folder / "runs" / "work" / f"{name}-0"
    folder.mkdir(parents=True)
    (folder / "checkpoint.pt").write_text("")
    known = {"experiment": name, "seed": 0, "settings": experiment(name).settings, "code": "code of worker.py"}
    place.unfinished(name, 0).parent.mkdir(parents=True)
    place.unfinished(name, 0).write_text(json.dumps({**known, "finished": False, "seconds": None, **record}))
    return folder


def test_a_record_has_the_figures_and_what_they_depend_on(place):
    record = run(place, experiment(needs=("spam",)), 3, jobs=2)
    assert json.loads(place.finished("one", 3).read_text()) == record
    assert record["figures"] == {"accuracy, %": {"value": 53.0, "reference": 50.0}}
    assert (record["finished"], record["parameters"], record["settings"]) == (True, 7, experiment().settings)
    assert (record["code"], record["commands"]) == ("code of worker.py", ["worker.py"])
    assert record["data"] == {"needs": ["spam"], "fingerprint": "f00d"}
    assert 0 < record["seconds"] < 30
    assert (record["machine"]["cores"], record["machine"]["jobs"], record["machine"]["threads"]) == (
        os.cpu_count(),
        2,
        1,
    )
    assert record["versions"]["torch"]
    assert not place.unfinished("one", 3).exists()
    assert "3 s" in running.shown(experiment(), {**record, "seconds": 3.2})
    assert "accuracy, %: 53" in running.shown(experiment(), record)


def test_a_failure_is_recorded_with_its_last_line_and_begins_anew(place):
    bad = experiment("bad", "--fail 1")
    with pytest.raises(Failed, match=r"worker\.py: it went wrong .*3.*bad-0\.log"):
        run(place, bad)
    record = unfinished(place, "bad")
    assert "it went wrong" in record["failed"]
    assert (record["finished"], record["seconds"] > 0) == (False, True)
    (place.folder / "mended").write_text("")
    assert run(place, bad)["finished"]
    assert calls(place) == ["begun bad-0", "begun bad-0"]


def test_a_killed_script_has_failed(place):
    (place.out / "scripts" / "worker.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(Failed, match="-9"):
        run(place, experiment())


def test_a_run_on_fallback_data_is_no_result_but_in_the_quick_form(place):
    stand = experiment("stand", "--stand 1")
    with pytest.raises(Failed, match="fallback data in place of some data"):
        run(place, stand)
    assert not place.finished("stand", 0).exists()
    assert run(dataclasses.replace(place, quick=True), stand)["finished"]


def test_a_figure_that_is_missing_is_a_failure(place):
    with pytest.raises(Failed, match=r"results\.json.*nothing/3.*gone"):
        run(place, experiment(figures=(Figure("gone", ("nothing", 3)),)))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_passed_on_once_as_ctrl_c_and_the_next_call_resumes(place, number):
    slow = experiment("slow", "--wait 60")
    thread = when_ready(place, ("slow-0",), lambda: os.kill(os.getpid(), number))
    with pytest.raises(Stopped):
        run(place, slow)
    thread.join()
    assert (place.folder / "runs" / "work" / "slow-0" / "signals").read_text() == f"{int(signal.SIGINT)}\n"
    stopped = unfinished(place, "slow")
    assert (stopped["finished"], "failed" in stopped, stopped["seconds"] > 0) == (False, False, True)
    record = run(place, slow)
    assert calls(place) == ["begun slow-0", "resumed slow-0"]
    assert record["seconds"] > stopped["seconds"]


def test_a_second_signal_ends_the_script_at_once(place):
    folder = place.folder / "runs" / "work" / "slow-0"

    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        wait_for(lambda: (folder / "signals").exists())
        os.kill(os.getpid(), signal.SIGINT)  # the same request still
        time.sleep(1.1)
        assert (folder / "ready").exists()
        os.kill(os.getpid(), signal.SIGINT)

    thread = when_ready(place, ("slow-0",), twice)
    since = time.monotonic()
    with pytest.raises(Stopped):
        run(place, experiment("slow", "--wait 60 --saving 60"))
    thread.join()
    assert time.monotonic() - since < 30
    assert not (folder / "checkpoint.pt").exists()
    assert unfinished(place, "slow")["seconds"] is None


def test_a_script_that_ends_well_although_it_was_to_stop_is_finished(place):
    (place.out / "scripts" / "worker.py").write_text(WORKER.replace("sys.exit(128 + number)", ""))
    thread = when_ready(place, ("one-0",), lambda: os.kill(os.getpid(), signal.SIGINT))
    assert run(place, experiment(options="--wait 1"))["finished"]
    thread.join()


def test_a_run_killed_before_its_first_checkpoint_begins_anew(place):
    folder = checkpoint(place)
    (folder / "checkpoint.pt").unlink()
    (folder / "half").write_text("")
    assert run(place, experiment())["seconds"] > 0
    assert calls(place) == ["begun one-0"]
    assert not (folder / "half").exists()


def test_a_run_killed_after_a_checkpoint_goes_on_and_its_time_is_not_known(place):
    checkpoint(place)
    assert run(place, experiment())["seconds"] is None
    assert calls(place) == ["resumed one-0"]


def test_a_run_killed_between_the_two_renames_of_a_save_goes_on_too(place):
    folder = checkpoint(place)
    (folder / "checkpoint.pt").rename(folder / "checkpoint.previous.pt")
    run(place, experiment())
    assert calls(place) == ["resumed one-0"]


@pytest.mark.parametrize(
    ("ends", "goes_on"), [("sys.exit(1)", True), ("os.kill(os.getpid(), 9)", True), ("sys.exit(2)", False)]
)
def test_a_failure_of_the_machine_goes_on_from_the_checkpoint(place, ends, goes_on):
    worker = place.out / "scripts" / "worker.py"
    worker.write_text(worker.read_text().replace("sys.exit(3)", ends))
    with pytest.raises(Failed):
        run(place, experiment("bad", "--fail 1"))
    (place.folder / "mended").write_text("")
    run(place, experiment("bad", "--fail 1"))
    assert calls(place) == ["begun bad-0", "resumed bad-0" if goes_on else "begun bad-0"]


@pytest.mark.parametrize("changed", [{"settings": "other"}, {"code": "other"}, {"failed": "it went wrong"}])
def test_a_checkpoint_of_other_settings_of_other_code_or_of_a_failure_is_not_gone_on_from(place, changed):
    checkpoint(place, **changed)
    run(place, experiment())
    assert calls(place) == ["begun one-0"]


@pytest.mark.parametrize(("goes_on", "expected"), [(True, ["cell a", "cell b"]), (False, ["cell a"] * 2 + ["cell b"])])
def test_only_a_script_that_goes_on_by_itself_finds_what_it_left_and_its_time_is_added_up(place, goes_on, expected):
    script = dataclasses.replace(SWEEP, goes_on=goes_on)
    with pytest.raises(Failed):
        run(place, experiment("cells", "--fail 1", script=script))
    place.unfinished("cells", 0).write_text(json.dumps({**unfinished(place, "cells"), "seconds": 1000.0}))
    (place.folder / "mended").write_text("")
    record = run(place, experiment("cells", "--fail 1", script=script))
    assert calls(place) == expected
    assert (record["seconds"] > 1000) == goes_on
    assert ("it went wrong" in place.log("cells", 0).read_text()) == goes_on
    run(place, experiment("cells", "--other 1", script=script))
    assert calls(place) == [*expected, "cell a", "cell b"]  # other settings begin anew


def test_the_sweep_alone_goes_on_by_itself():
    assert [name for name, script in load().scripts.items() if script.goes_on] == ["sweep_gan.py"]


def test_an_experiment_that_measures_time_may_use_all_cores(place, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # as an engine does
    alone = running.environment(experiment(alone=True), place, None)
    assert not set(alone) & set(running.THREADS)
    other = running.environment(experiment(), dataclasses.replace(place, quick=True), place.out)
    assert (other["OMP_NUM_THREADS"], other["TORCHDL_DATA"]) == ("1", str(place.out))
    assert other["XDG_CACHE_HOME"].startswith(str(place.folder))


def test_a_job_imports_no_more_than_it_needs():
    """The engine starts one for each seed."""
    program = """
import sys
import torchdl.errors, torchdl.files
before = set(sys.modules)
import experiments.run
print(sorted({name.split(".")[0] for name in set(sys.modules) - before} & {"torch", "numpy", "PIL", "snakemake"}))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def when_ready(place: Place, names: Sequence[str], then: Callable[[], None]) -> threading.Thread:
    """Call something once these runs wait."""

    def wait() -> None:
        wait_for(lambda: all((place.folder / "runs" / "work" / name / "ready").exists() for name in names))
        then()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


# the plan


@pytest.fixture
def planned(place, monkeypatch):
    """Return a function that plans to run some experiments, and one that notes results of these."""

    def plan(*experiments: Experiment, **settings: Any) -> Plan:
        monkeypatch.setattr(planning, "load", lambda: Registry(experiments))
        monkeypatch.setattr(planning, "hashes", lambda some: {e.name: "now" for e in some})
        return prepare(Settings(out=place.out, **settings))

    return plan


def finish(place: Place, one: Experiment, seed: int = 0, **changes: Any) -> None:
    """Leave what a finished job leaves, its run's folder too."""
    figures = {figure.metric: {"value": 1.0} for figure in one.figures}
    record = {"experiment": one.name, "seed": seed, "settings": one.settings, "code": "now", "finished": True}
    write(place.finished(one.name, seed), {**record, "figures": figures, **changes})
    (place.folder / "runs" / "work" / f"{one.name}-{seed}").mkdir(parents=True, exist_ok=True)


def leave(place: Place, one: Experiment, **changes: Any) -> None:
    """Leave what a job leaves that has not finished."""
    record = {"experiment": one.name, "seed": 0, "settings": one.settings, "code": "now", "finished": False}
    write(place.unfinished(one.name, 0), {**record, "seconds": 1.0, **changes})


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def test_what_has_finished_is_not_run_again_unless_its_command_or_figures_change(place, planned):
    one = experiment(seeds=(0, 1))
    assert planned(one).todo == (("one", 0), ("one", 1))
    finish(place, one, 0)
    plan = planned(one)
    assert (plan.todo, plan.finished) == ((("one", 1),), 1)
    assert Plan.read(plan.path) == plan
    assert planned(experiment(options="--more 1")).todo == (("one", 0),)
    assert planned(experiment(figures=(FIGURE, Figure("another", ("accuracy",))))).todo == (("one", 0),)
    assert planned(one, most_minutes=0.5).todo == ()


@pytest.mark.parametrize("changes", [{"code": "earlier"}, {"code": None}])
def test_what_is_older_is_run_again_only_if_asked(place, planned, changes):
    one, two = experiment("one"), experiment("two")
    finish(place, one, **changes)
    finish(place, two)
    assert planned(one, two).todo == ()
    assert planned(one, two, again=True).todo == (("one", 0),)


def test_a_run_whose_folder_is_gone_is_run_again_where_something_to_run_uses_it(place, planned):
    judge, middle = experiment("judge"), experiment("middle", after=("judge",))
    user = experiment("user", after=("middle",))
    finish(place, judge)
    finish(place, middle)
    assert planned(judge, middle).todo == ()
    shutil.rmtree(place.folder / "runs")
    assert planned(judge, middle).todo == ()
    assert planned(judge, middle, user).todo == (("judge", 0), ("middle", 0), ("user", 0))


def test_an_unfinished_run_never_replaces_a_finished_one(place, planned):
    one = experiment()
    planned(one)
    finish(place, one, code="earlier")
    leave(place, one)
    leave(place, experiment("two"), failed="it went wrong")
    records = merge(place)
    assert records.find("one", 0)["finished"]
    assert records.find("two", 0)["failed"] == "it went wrong"
    assert Records.load(place.kept / "records.json").kept == records.kept
    assert not place.finished("one", 0).exists()
    assert place.unfinished("one", 0).exists()  # to go on from
    finish(place, experiment("two"))
    assert merge(place).find("two", 0)["finished"]


def test_what_depends_on_a_failure_is_named_with_it(place, planned):
    judge, user = experiment("judge"), experiment("user", after=("judge",))
    last, other, slow = experiment("last", after=("user",)), experiment("other"), experiment("slow")
    plan = planned(judge, user, last, other, slow)
    leave(place, judge, failed="it went wrong")
    leave(place, slow)
    finish(place, other)
    found = look(plan)
    assert (found.finished, found.stopped) == ([("other", 0)], [("slow", 0)])
    assert found.failed == {("judge", 0): "it went wrong"}
    assert found.not_started == {("user", 0): "judge, seed 0", ("last", 0): "user, seed 0"}


def test_what_failed_before_has_not_failed_in_a_later_plan(place, planned):
    leave(place, experiment(), failed="it went wrong")
    old = time.time() - 100
    os.utime(place.unfinished("one", 0), (old, old))
    assert look(planned(experiment())).not_started == {("one", 0): ""}


@pytest.mark.parametrize(
    ("settings", "here", "missing"),
    [
        ({}, True, ["data", "a GPU"]),
        ({"fetch": True}, True, ["a GPU"]),
        ({"fetch": True}, False, []),  # the cluster's nodes may have one
        ({"quick": True}, True, []),
    ],
    ids=str,
)
def test_a_quick_form_needs_no_data_and_no_gpu_and_what_can_be_fetched_is_not_missing(
    monkeypatch, settings, here, missing
):
    from experiments import needs

    sentences = {"mnist": "data", needs.CUDA: "a GPU", "keras": ""}
    monkeypatch.setattr(needs, "lacking", lambda need, root: sentences[need])
    one = experiment(needs=("mnist", needs.CUDA, "keras"))
    assert planning.absences([one], Settings(**settings), here) == ({"one": "; ".join(missing)} if missing else {})
    sentences["keras"] = "a package"
    assert planning.absences([one], Settings(**settings), here) == {"one": "; ".join([*missing, "a package"])}


def test_the_engines_configuration_has_the_settings_names(place):
    given = planning.from_config({"only": "moore, text", "quick": True, "out": "x", "jobs": 3, "plan": "p"})
    assert given == Settings(only=("moore", "text"), quick=True, out=Path("x"), jobs=3)
    with pytest.raises(torchdl.InputError, match=r"onyl.*only"):
        planning.from_config({"onyl": "moore"})


# the script


@pytest.fixture
def script():
    config_class("reproduce.py")
    return sys.modules["scripts_reproduce"]


def test_the_list_says_what_is_left_and_runs_nothing(script, place, planned, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(place.out / "cache"))
    monkeypatch.delenv("TORCHDL_DATA", raising=False)
    mine, other = experiment("mine", seeds=(0, 1)), experiment("other", needs=("spam",))
    planned(mine, other)
    finish(place, mine, code="earlier")
    merge(place)
    script.main(script.Config(Settings(out=place.out), list=True))
    one, two, mark, left = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"mine +text +1 of 2 seeds†, +1\.0 min a seed: a system", one)
    assert re.fullmatch(r"other +text +0 of 1 seeds , +1\.0 min a seed: a system +spam was not found .*", two)
    assert mark == "† measured with older code: --again runs it again, for about 1 min of one core"
    assert left == "left to run: about 1 min of one core"
    assert not (place.out / "RESULTS.md").exists()


@pytest.mark.parametrize(
    ("settings", "parts"), [({"only": ("mnie",)}, ["'mnie'", "mine"]), ({"jobs": 0}, ["--jobs", "0"])]
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(script, place, planned, settings, parts):
    planned(experiment("mine"))
    shutil.rmtree(place.folder)
    with pytest.raises(torchdl.InputError) as caught:
        script.main(script.Config(Settings(out=place.out, **settings)))
    assert [part for part in parts if part not in str(caught.value)] == []
    assert not (place.out / "experiments").exists()


@pytest.mark.parametrize(
    ("executor", "package"), [("local", "snakemake"), ("slurm", "snakemake_executor_plugin_slurm")]
)
def test_without_the_engine_it_says_how_to_install_it(script, place, planned, monkeypatch, executor, package):
    planned(experiment())
    found = importlib.util.find_spec
    monkeypatch.setattr(script.importlib.util, "find_spec", lambda name: None if name == package else found("json"))
    with pytest.raises(
        torchdl.InputError, match=rf"pip install .*({'reproduce' if executor == 'local' else executor})"
    ):
        script.main(script.Config(Settings(out=place.out), executor=executor))


@pytest.mark.parametrize(("quick", "then"), [(False, "the same command continues"), (True, "begins anew")])
def test_a_stopped_plan_says_what_the_same_command_does(script, tmp_path, capsys, quick, then):
    plan, outcome = SimpleNamespace(place=Place(tmp_path, quick)), Outcome(stopped=[("slow", 0)])
    with pytest.raises(torchdl.Stopped, match=f"^stopped in slow, seed 0: .*{then}"):
        script.report(plan, outcome, 0, SimpleNamespace(signal_number=2))
    script.report(plan, outcome, 0, SimpleNamespace(signal_number=None))
    assert re.match(f"slow, seed 0: FAILED: it was stopped early.*{then}", capsys.readouterr().out)


def test_a_second_process_is_kept_out_of_the_folder(script, tmp_path):
    with (
        script.alone(tmp_path),
        pytest.raises(torchdl.InputError, match=re.escape(str(tmp_path))),
        script.alone(tmp_path),
    ):
        pass
    with script.alone(tmp_path):
        pass


# the engine

REGISTRY = """
[defaults]
data = "some data"
quick = [""]
figures = [{metric = "accuracy, %", key = ["accuracy"], reference_key = ["base"], source = "the base", scale = 100}]
"""
SCRIPTS = """
["worker.py"]
options = "--out {runs} --name {name} --seed {seed}"
folder = "{runs}/work/{name}"
"""


@pytest.fixture
def clone(tmp_path):
    """Return a function that writes a small clone with some experiments, by their names, as TOML."""
    folder = tmp_path / "a clone"
    shutil.copytree(ROOT / "experiments", folder / "experiments", ignore=lambda _, names: {*names} & {
        "registry", "pictures", "records.json", "__pycache__", "slurm"
    })  # fmt: skip
    (folder / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "reproduce.py", folder / "scripts")
    (folder / "scripts" / "worker.py").write_text(WORKER)
    (folder / "README.md").write_text("# x\n\n<!-- results: begin -->\n<!-- results: end -->\n\nlast\n")

    def with_experiments(**experiments: str) -> Place:
        lines = [REGISTRY]
        for name, options in experiments.items():
            command, *others = options.split("; ")
            lines += [f"[experiments.{name}]", 'system = "a system"', f"commands = ['worker.py {command}']"]
            lines += ["minutes = 1", *others] if "minutes" not in options else others
        (folder / "experiments" / "registry").mkdir(exist_ok=True)
        (folder / "experiments" / "registry" / "text.toml").write_text("\n".join(lines))
        (folder / "experiments" / "registry" / "scripts.toml").write_text(SCRIPTS)
        return Place(folder)

    return with_experiments


def start(place: Place, *options: str, program: Sequence[str] = ("scripts/reproduce.py",)) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if name != "TORCHDL_DATA"}
    environment |= {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(place.out.parent / "cache")}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(
        [sys.executable, *program, *options], cwd=place.out, env=environment, text=True, start_new_session=True, **pipes
    )


def reproduce(place: Place, *options: str, **others: Any) -> tuple[int, list[str], str]:
    """Return the exit status, the lines and the errors of a call."""
    with start(place, *options, **others) as process:
        out, err = process.communicate(timeout=200)
    return process.returncode, out.splitlines(), err


def kept(place: Place) -> dict[tuple[str, int], dict[str, Any]]:
    records = Records.load(place.kept / "records.json").kept
    return {(r["experiment"], r["seed"]): r for r in records}


def spans(place: Place) -> list[str]:
    return (place.folder / "spans").read_text().split()


@pytest.mark.slow
def test_every_job_is_run_a_failure_stops_nothing_else_and_the_tables_are_written(clone):
    place = clone(
        judge="--fail 1", user="--last 0; after = ['judge']", good="--last 0; seeds = [0, 1]\nlesson = '20_texts'"
    )
    code, lines, err = reproduce(place, "--jobs", "2")
    assert code == 1
    assert re.search(r"2 failed .*judge, seed 0.*user, seed 0", err)
    ends = {line.partition("] ")[2].split(":")[0]: line for line in lines if line.startswith("[")}
    assert set(ends) == {"judge, seed 0", "good, seed 0", "good, seed 1"}
    assert "FAILED: worker.py: it went wrong (exit status 3" in ends["judge, seed 0"]
    assert ends["good, seed 1"].endswith("accuracy, %: 51")
    assert [line for line in lines if line.startswith("user, seed 0: FAILED") and "judge, seed 0" in line]
    records = kept(place)
    assert records["good", 1]["finished"]
    assert records["good", 1]["machine"]["jobs"] == 2
    assert "it went wrong" in records["judge", 0]["failed"]
    assert ("user", 0) not in records
    assert "| 50.50 ± 0.71 | 50.00 (the base) |" in (place.out / "RESULTS.md").read_text()
    line = "[20](docs/lessons/20_texts.py) | `worker.py` | accuracy, %: 50.50 ± 0.71 |"
    assert f"{line}\n<!-- results: end -->\n\nlast\n" in (place.out / "README.md").read_text()
    assert [row["values"] for row in json.loads((place.folder / "results.json").read_text())] == [[50.0, 51.0]]
    (place.folder / "mended").write_text("")
    code, lines, err = reproduce(place)
    assert (code, err, lines[0]) == (0, "", "2 of 4 are finished already")
    assert calls(place)[-2:] == ["begun judge-0", "begun user-0"]


@pytest.mark.slow
def test_the_engine_by_itself_does_the_same(clone):
    place = clone(one="--last 0", bad="--fail 1", other="--last 0")
    snakemake = ("-m", "snakemake", "-s", "experiments/Snakefile", "--keep-going", "--cores", "2", "--config")
    assert reproduce(place, "only=one bad", "out=.", program=snakemake)[0] == 1
    assert sorted(calls(place)) == ["begun bad-0", "begun one-0"]
    assert kept(place)["one", 0]["finished"]
    assert "it went wrong" in kept(place)["bad", 0]["failed"]
    assert "| 50.00 (seed 0) |" in (place.out / "RESULTS.md").read_text()


@pytest.mark.slow
def test_the_longest_begins_first_and_what_measures_time_runs_alone(clone):
    place = clone(
        short="--last 0.3; minutes = 1",
        timed="--last 0.3; minutes = 5\nalone = true",
        longest="--last 0.3; minutes = 9",
        middle="--beside 4; minutes = 3\nseeds = [0, 1]",
    )
    code, _, err = reproduce(place, "--jobs", "2")
    assert (code, err) == (0, "")
    lines = spans(place)
    assert "+longest-0" in lines[:2]  # two begin together, and either may be the first to write
    begun = lines.index("+timed-0")
    assert lines[begun + 1] == "-timed-0"
    assert sum(1 if line[0] == "+" else -1 for line in lines[:begun]) == 0
    assert max(sum(1 if line[0] == "+" else -1 for line in lines[:end]) for end in range(len(lines))) == 2
    machines = [kept(place)[name, 0]["machine"] for name in ("timed", "short")]
    assert [(machine["jobs"], machine["threads"]) for machine in machines] == [(1, os.cpu_count()), (2, 1)]


@pytest.mark.slow
def test_one_signal_lets_each_job_save_and_the_same_command_goes_on(clone):
    place = clone(done="--last 0; minutes = 9", slow="--wait 60; seeds = [0, 1]", last="--last 0; minutes = 0.5")
    with start(place, "--jobs", "2") as process:
        when_ready(place, ("slow-0", "slow-1"), lambda: process.send_signal(signal.SIGTERM)).join()
        out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert re.search(r"slow, seed 0 and slow, seed 1", err)
    assert "done, seed 0" in out
    for seed in (0, 1):
        assert (place.folder / "runs" / "work" / f"slow-{seed}" / "signals").read_text() == f"{int(signal.SIGINT)}\n"
    records = kept(place)
    assert records["done", 0]["finished"]
    assert [records["slow", seed]["seconds"] > 0 for seed in (0, 1)] == [True, True]
    assert sorted(calls(place)) == ["begun done-0", "begun slow-0", "begun slow-1"]
    code, lines, err = reproduce(place, "--jobs", "2")
    assert (code, err, lines[0]) == (0, "", "1 of 4 are finished already")
    assert sorted(calls(place)[3:]) == ["begun last-0", "resumed slow-0", "resumed slow-1"]


@pytest.mark.slow
def test_what_was_measured_before_a_kill_is_merged_by_the_next_call_and_the_jobs_save(clone):
    place = clone(done="--last 0; minutes = 9", slow="--wait 60")
    with start(place) as process:
        when_ready(place, ("slow-0",), process.kill).join()
        process.communicate(timeout=60)
    assert kept(place) == {}
    folder = place.folder / "runs" / "work" / "slow-0"
    engine = [int(pid) for pid in os.listdir("/proc") if pid.isdecimal() and is_engine_of(int(pid), place)]
    for pid in engine:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: (folder / "checkpoint.pt").exists())
    wait_for(lambda: json.loads(place.unfinished("slow", 0).read_text())["seconds"] is not None)
    code, lines, err = reproduce(place)
    assert (code, err, lines[0]) == (0, "", "1 of 2 are finished already")
    assert calls(place) == ["begun done-0", "begun slow-0", "resumed slow-0"]


def is_engine_of(pid: int, place: Place) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    except OSError:
        return False
    return "snakemake" in words and str(place.folder) in words


@pytest.mark.slow
def test_a_quick_form_of_the_real_registry_leaves_marked_rows_and_no_table(tmp_path):
    command = [sys.executable, str(ROOT / "scripts" / "reproduce.py"), "--quick", "--only", "moore", "--out", "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^\[1/1\] moore, seed 0: \d+ s; slope per year: \S+$", done.stdout, re.MULTILINE)
    rows = json.loads((tmp_path / "results" / "quick.json").read_text())
    assert [row["experiment"] for row in rows] == ["moore", "moore"]
    assert all(row["quick"] and row["data"] == "made up" for row in rows)
    assert rows[0]["parameters"] == 2
    assert not (tmp_path / "RESULTS.md").exists()
    assert (tmp_path / "results" / "quick" / "pictures" / "moore-moore.png").is_file()
