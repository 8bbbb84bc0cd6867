"""Run one experiment with one seed: run its commands in turn, and write its figures (numbers) to a record.

In a clone: ``python -m experiments.run moore 0``.

A finished run leaves ``records/NAME-SEED.json``. A run that failed, was stopped or was killed leaves
``unfinished/NAME-SEED.json``; a stopped or killed one continues from its checkpoint the next time.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from experiments.imports import hash_code
from experiments.machine import cpu, machine, versions
from experiments.records import copy_picture, fingerprints, is_fallback, read_config, read_figure, read_record
from experiments.registry import Experiment, find, load
from torchdl.cli.commit import commit
from torchdl.errors import InputError, require
from torchdl.files import has_checkpoint, write_json

ROOT = Path(__file__).resolve().parent.parent
PR_SET_PDEATHSIG = 1  # linux/prctl.h
#: Variables that an engine sets for a job; they are removed for an experiment that measures time.
THREADS = (*(f"{n}_NUM_THREADS" for n in ("OMP", "MKL", "OPENBLAS", "GOTO", "NUMEXPR")), "VECLIB_MAXIMUM_THREADS")


class Failed(Exception):  # not an error of this program
    """A script failed; the message has the last line of its output.

    ``goes_on``: whether the machine was at fault (a full disk, no memory, a kill), so that the run can be resumed.
    """

    def __init__(self, message: str, goes_on: bool = False) -> None:
        super().__init__(message)
        self.goes_on = goes_on


class Stopped(Exception):  # not an error: somebody asked for it
    """A signal stopped the script before its end."""


@dataclass(frozen=True)
class Place:
    """Where results go; quick forms have a folder of their own."""

    out: Path
    quick: bool = False

    @property
    def folder(self) -> Path:
        """The folder of runs, logs and other files of the jobs."""
        return self.out / "results" / "quick" if self.quick else self.out / "results"

    @property
    def kept(self) -> Path:
        """The folder of the records and pictures that are kept."""
        return self.folder if self.quick else self.out / "experiments"

    @property
    def records(self) -> Path:
        """The file of all records."""
        return self.kept / "records.json"

    @property
    def after_a_stop(self) -> str:
        """What the same command does after a stop."""
        return "a quick check begins anew" if self.quick else "nothing is lost, the same command continues"

    def finished(self, name: str, seed: int) -> Path:
        """Return the file of a finished run's record."""
        return self.folder / "records" / f"{name}-{seed}.json"

    def unfinished(self, name: str, seed: int) -> Path:
        """Return the file of an unfinished run's record."""
        return self.folder / "unfinished" / f"{name}-{seed}.json"

    def log(self, name: str, seed: int) -> Path:
        """Return the file of the scripts' output."""
        return self.folder / "logs" / f"{name}-{seed}.log"


@dataclass
class Commands:
    """Run scripts, and pass the first Ctrl-C or SIGTERM on to the running script, so that it saves.

    It is passed on as SIGINT: a cluster may send SIGTERM to every process of a job, and a second SIGTERM would end the
    script at once. A second request ends the script at once. Signals within a second of the first are the same request,
    because Linux may tell a process several times that its parent has ended.
    """

    environment: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = None
    signals: list[int] = field(default_factory=list)
    since: float = 0.0

    def __post_init__(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.receive)

    def receive(self, number: int, _frame: FrameType | None) -> None:
        """Note a signal and pass it on."""
        if self.signals and time.monotonic() - self.since < 1:
            return
        self.since = time.monotonic()
        self.signals.append(number)
        if self.process is not None and self.process.returncode is None:
            if len(self.signals) == 1:
                self.process.send_signal(signal.SIGINT)
            else:
                os.killpg(self.process.pid, signal.SIGKILL)

    def run(self, command: Sequence[str], log: Path) -> None:
        """Run a script to its end, and append its output to a log."""
        if self.signals:
            raise Stopped
        with open(log, "ab") as output:
            output.write(f"$ python scripts/{shlex.join(command)}\n".encode())
            output.flush()
            self.process = subprocess.Popen(
                [sys.executable, str(ROOT / "scripts" / command[0]), *command[1:]],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self.environment,
                start_new_session=True,  # the terminal's Ctrl-C goes to this process alone
                preexec_fn=end_with_parent,
            )
        code = self.process.wait()
        if code and self.signals:
            raise Stopped
        if code:
            lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise Failed(
                f"{''.join(lines[-1:])} (exit status {code}; its output: {log})", goes_on=code < 0 or code == 1
            )


def end_with_parent(number: int = signal.SIGINT) -> None:
    """Have Linux send this process a signal when the process that started it ends."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)


def environment(experiment: Experiment, place: Place, data_root: Path | None) -> dict[str, str]:
    """Return the scripts' environment: one thread, or all cores if time is measured."""
    found = {name: value for name, value in os.environ.items() if name not in THREADS}
    found["PYTHONUNBUFFERED"] = "1"  # so that the last line of a log is the last that was printed
    if not experiment.alone:
        found["OMP_NUM_THREADS"] = "1"
    if data_root is not None:
        found["TORCHDL_DATA"] = str(data_root)
    if place.quick:  # cached features of made-up images are of no use later
        found["XDG_CACHE_HOME"] = str(place.folder / "cache")
    return found


def run(
    experiment: Experiment, seed: int, place: Place, data_root: Path | None = None, jobs: int = 1
) -> dict[str, Any]:
    """Run an experiment with a seed, and return and write its record.

    Raises:
        Failed: A script has failed, a figure is missing, or fallback data was used.
        Stopped: A signal came.
    """
    name = experiment.name
    unfinished, log = place.unfinished(name, seed), place.log(name, seed)
    launches = experiment.launches(place.folder / "runs", seed)
    folder, trains = launches[0][1], "--name" in launches[0][0]
    code = "" if place.quick else hash_code([script.name for script in experiment.scripts])
    record = {"experiment": name, "seed": seed, "settings": experiment.settings, "code": code, "finished": False}
    for each in (unfinished, log):
        each.parent.mkdir(parents=True, exist_ok=True)
    known = read_record(unfinished) if unfinished.exists() else {}
    same = all(known.get(key) == record[key] for key in ("settings", "code"))
    resumes = same and known.get("goes_on", "failed" not in known) and trains and has_checkpoint(folder)
    goes_on = resumes or (same and experiment.scripts[0].goes_on)
    before = known["seconds"] if goes_on else 0.0  # None if the time of a killed part is unknown
    write_json(unfinished, {**record, "seconds": None})
    commands = Commands(environment(experiment, place, data_root))
    since = time.perf_counter()

    def seconds() -> float | None:
        return None if before is None or len(commands.signals) > 1 else round(before + time.perf_counter() - since, 3)

    try:
        if resumes:
            launches[0] = ([launches[0][0][0], "--resume", str(folder)], folder)
        if not goes_on:
            shutil.rmtree(folder, ignore_errors=True)
            log.write_bytes(b"")  # the file must stay: it is also the lock
        for number, (command, own) in enumerate(launches):
            if number or not trains:  # a training creates its folder, and refuses an old one
                own.mkdir(parents=True, exist_ok=True)
            commands.run(command, log)
        config = read_config(folder)
        fallback = is_fallback(config) and not place.quick
        require(not fallback, f"it used fallback data in place of {experiment.data}: fetch the data")
        figures = {figure.metric: read_figure(folder, figure) for figure in experiment.figures}
        for picture in experiment.pictures if seed == experiment.seeds[0] else ():
            copy_picture(folder / picture, place.kept / "pictures" / f"{name}-{Path(picture).stem}.png")
    except Stopped:
        write_json(unfinished, {**record, "seconds": seconds()})
        raise
    except (Failed, InputError, OSError) as error:
        fate = {"failed": str(error), "goes_on": getattr(error, "goes_on", False)}
        write_json(unfinished, {**record, "seconds": seconds(), **fate})
        raise Failed(str(error)) from error
    # the instructions come from PyTorch, which takes seconds to import
    described = {"cpu": cpu(), "instructions": "", "cores": os.cpu_count()} if place.quick else machine()
    used = {"threads": os.cpu_count(), "jobs": 1} if experiment.alone else {"threads": 1, "jobs": jobs}
    record |= {
        "finished": True,
        "seconds": seconds(),
        "figures": figures,
        "parameters": config.get("parameters"),
        "commands": list(experiment.commands),
        "data": {"needs": list(experiment.needs), **fingerprints(config)},
        "commit": commit(ROOT),
        "versions": versions(),
        "machine": {**described, **used},
    }
    target = place.finished(name, seed)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_json(target, record)
    unfinished.unlink()
    return record


def shown(experiment: Experiment, record: Mapping[str, Any]) -> str:
    """Return one line of a finished run: its time and its main figure."""
    seconds = "?" if record["seconds"] is None else f"{record['seconds']:.0f}"
    main = [f"; {figure.metric}: {record['figures'][figure.metric]['value']:.5g}" for figure in experiment.figures[:1]]
    return "".join([f"{seconds} s", *main])


def main() -> int:
    """Run one experiment with one seed; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", help="an experiment of experiments/registry")
    parser.add_argument("seed", type=int)
    parser.add_argument("--out", type=Path, default=Path(), help="the folder of results/ and experiments/")
    parser.add_argument("--data-root", type=Path, help="the folder of the data sets")
    parser.add_argument("--quick", action="store_true", help="run the quick form, on the data of --data-root")
    parser.add_argument("--jobs", type=int, default=1, help="number of jobs at a time, to be recorded")
    given = parser.parse_args()
    end_with_parent(signal.SIGTERM)
    root = None if given.data_root is None else given.data_root.resolve()
    title = f"{given.name}, seed {given.seed}"
    place = Place(given.out.resolve(), given.quick)
    try:
        experiment = find(given.name, load().experiments)
        experiment = experiment.shortened() if given.quick else experiment
        lock = place.log(given.name, given.seed)
        lock.parent.mkdir(parents=True, exist_ok=True)
        with open(lock, "ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                print(f"{title}: FAILED: another process is running it in {place.folder}: wait for it", file=sys.stderr)
                return 1
            record = run(experiment, given.seed, place, root, given.jobs)
    except Stopped:
        print(f"{title}: stopped: {place.after_a_stop}", flush=True)
        return 130
    except (Failed, InputError) as error:
        print(f"{title}: FAILED: {error}", flush=True)
        return 1
    print(f"{title}: {shown(experiment, record)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
