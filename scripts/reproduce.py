"""Reproduce every result of this project: run each experiment with each of its seeds, and write the tables."""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # torchdl of this clone, installed or not

from experiments.plan import Outcome, Plan, Settings, absences, collect, look, merge, prepare, show, write_tables
from experiments.records import read_record
from experiments.registry import find
from experiments.run import end_with_parent, shown
from torchdl.cli.main import run_script
from torchdl.errors import InputError, Stopped, require
from torchdl.training import signals

SNAKEFILE = Path(__file__).resolve().parent.parent / "experiments" / "Snakefile"


@dataclass(frozen=True)
class Config:
    """Run experiments with Snakemake, here or on a cluster, and write RESULTS.md; finished ones are not rerun."""

    settings: Settings = field(default_factory=Settings)
    list: bool = False
    """List the experiments with what is finished and what is missing, and run nothing."""
    tables: bool = False
    """Write the tables from the records, and run nothing."""
    executor: str = "local"
    """Where Snakemake runs the jobs: local, or an installed executor plugin, such as slurm or kubernetes."""
    profile: Path | None = None
    """The folder of a Snakemake profile, with a cluster's partition, account and limits."""


def main(config: Config) -> None:
    """Choose the experiments, run them and write the tables."""
    settings, here = config.settings, config.executor == "local"
    require(settings.jobs >= 1, f"--jobs must be 1 or more, not {settings.jobs}")
    if config.list:
        show(settings, here)
        return
    with alone(settings.out.resolve() / "results") as lock, signals.requests() as request:
        if config.tables:
            plan = Plan(settings.out.resolve())
            plan.absent.update(absences(plan.registry.experiments, settings, here))
            print(f"tables: {write_tables(plan, merge(plan.place))}")
            return
        plan = prepare(settings, here)
        for name in plan.chosen:
            if name in plan.absent:
                print(f"not run: {name}: {plan.absent[name]}", flush=True)
        if plan.finished:
            print(f"{plan.finished} of {plan.finished + len(plan.todo)} are finished already", flush=True)
        try:
            code = run_engine(plan, config, lock, request) if plan.todo else 0
        finally:
            outcome, table = collect(plan)
    report(plan, outcome, code, request)
    print(f"tables: {table}")
    lost = [f"{name}, seed {seed}" for name, seed in (*outcome.failed, *outcome.not_started, *outcome.stopped)]
    if lost:
        sys.exit(f"reproduce.py: {len(lost)} failed ({', '.join(lost)}): the lines above say why")


@contextmanager
def alone(folder: Path) -> Iterator[int]:
    """Keep a second process out of a folder of results while this one or its engine is running."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"another reproduce.py is running in {folder}: wait for it, or choose --out") from error
        yield lock.fileno()


def run_engine(plan: Plan, config: Config, lock: int, request: signals.Request) -> int:
    """Run a plan's jobs with Snakemake and print a line as each ends; return Snakemake's exit status.

    The first Ctrl-C or SIGTERM is passed on to Snakemake and its jobs: no other job starts, and running jobs save.
    """
    place, here = plan.place, config.executor == "local"
    plugin = f"snakemake_executor_plugin_{config.executor.replace('-', '_')}"
    installed = importlib.util.find_spec("snakemake") is not None
    require(installed, "Snakemake, which runs the experiments, is not installed: pip install -e '.[reproduce]'")
    missing = f"the executor {config.executor} is not installed: pip install {plugin.replace('_', '-')}"
    require(here or importlib.util.find_spec(plugin) is not None, missing)
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(SNAKEFILE), "--directory", str(place.folder)]
    command += ["--config", f"plan={json.dumps(str(plan.path))}", "--executor", config.executor]
    command += ["--cores" if here else "--jobs", str(plan.jobs), "--keep-going", "--rerun-incomplete", "--nolock"]
    command += ["--nocolor", "--scheduler", "greedy"]
    command += ["--profile", str(config.profile)] if config.profile else []
    log = place.folder / "logs" / "snakemake.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "wb") as output:
        engine = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # the terminal's Ctrl-C goes to this process alone
            pass_fds=[lock],
            preexec_fn=partial(end_with_parent, signal.SIGINT),
        )
    printed: set[tuple[str, int]] = set()
    passed_on = False
    try:
        while engine.poll() is None:
            if request.signal_number and not passed_on:
                os.killpg(engine.pid, signal.SIGINT)
                passed_on = True
            print_new(plan, look(plan), printed)
            time.sleep(0.5)  # to look takes milliseconds, and a job may be measuring time
    finally:
        if engine.poll() is None:  # after a second Ctrl-C
            os.killpg(engine.pid, signal.SIGINT)
            try:
                engine.wait(timeout=5)
            except subprocess.TimeoutExpired:
                os.killpg(engine.pid, signal.SIGKILL)
                engine.wait()
    print_new(plan, look(plan), printed)
    return engine.returncode


def print_new(plan: Plan, outcome: Outcome, printed: set[tuple[str, int]]) -> None:
    """Print a line for each job that has ended since the last call."""
    for name, seed in (key for key in (*outcome.finished, *outcome.failed) if key not in printed):
        printed.add((name, seed))
        title = f"[{len(printed)}/{len(plan.todo)}] {name}, seed {seed}"
        if (name, seed) in outcome.failed:
            print(f"{title}: FAILED: {outcome.failed[name, seed]}", flush=True)
        else:
            record = read_record(plan.place.finished(name, seed))
            print(f"{title}: {shown(find(name, plan.registry.experiments), record)}", flush=True)


def report(plan: Plan, outcome: Outcome, code: int, request: signals.Request) -> None:
    """Print which runs were not started or did not finish, and why.

    Raises:
        Stopped: A signal came before the end.
    """
    log = plan.place.folder / "logs" / "snakemake.log"
    if request.signal_number and (outcome.stopped or outcome.not_started):
        where = " and ".join(f"{name}, seed {seed}" for name, seed in outcome.stopped) or "no experiment"
        raise Stopped(f"stopped in {where}: {plan.place.after_a_stop}", request.signal_number)
    for (name, seed), broken in outcome.not_started.items():
        why = f"it uses runs that failed ({broken})" if broken else f"Snakemake could not start it ({log} says why)"
        print(f"{name}, seed {seed}: FAILED: it was not started, because {why}", flush=True)
    for name, seed in outcome.stopped:
        why = f"it was stopped early, perhaps by a limit of time or memory: {plan.place.after_a_stop}"
        print(f"{name}, seed {seed}: FAILED: {why}; {log} may say more", flush=True)
    if code and not (outcome.failed or outcome.not_started or outcome.stopped):
        raise InputError(f"Snakemake failed with exit status {code}: {log} says why")


if __name__ == "__main__":
    run_script(main, Config)
