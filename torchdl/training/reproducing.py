"""Run experiments as their users would, in processes of their own; go on where it was stopped; keep what was measured.

What is kept is a record for each experiment and seed, whether it is finished, with the hash of its settings: a finished
one is not run again, an unfinished one goes on from its checkpoint, and one with other settings begins anew.
"""

from __future__ import annotations

import csv
import fcntl
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch

from torchdl.data.files import FILES as FILE_SOURCES
from torchdl.data.files import find_file
from torchdl.data.movielens import MOVIELENS, find_ratings
from torchdl.data.sources import FILES, SOURCES, data_roots, find
from torchdl.errors import InputError, require
from torchdl.files import replacing, write_json
from torchdl.training import checkpoint
from torchdl.training.command import CONFIG
from torchdl.training.experiments import SCRIPTS, Experiment, Figure
from torchdl.training.launching import Failed, Steps, run_command, side_by_side
from torchdl.training.stopping import Request, Stopped

PACKAGES = {  # by what is imported: how to install it
    "keras": "pip install -e '.[test]'",
    "torchvision": "pip install torchvision",
    "efficientnet_lite_pytorch": "pip install -e '.[transfer]'",
}
CUDA = "cuda"
FOLDERS = {"cifar10-jpeg": "CIFAR-10 as JPEG files of Pillow's default quality"}
LARGEST_PICTURE = 200_000  # bytes


def lacking(need: str, root: str | os.PathLike[str] | None = None) -> str:
    """Say what to fetch, and where, for a data set, a package or a device; an empty string if it is there."""
    if need in PACKAGES:
        there = importlib.util.find_spec(need) is not None
        return "" if there else f"the package {need} is not installed: {PACKAGES[need]}"
    if need == CUDA:
        return "" if gpu() else "a CUDA device is not there: on a CPU it would take hours"
    place = data_roots(root)[0]
    if need in SOURCES:
        source = SOURCES[need]
        if all(find(source, split, root) for split in FILES):
            return ""
        names = ", ".join(name for pair in FILES.values() for name in pair)
        return (
            f"{need} was not found: put {names} (gzipped or not; {source.mirrors[0]}) into {place / source.folder}/raw"
        )
    if need in FOLDERS:
        if any((r / need / "train").is_dir() for r in data_roots(root)):
            return ""
        return f"{FOLDERS[need]}: put the images into {place / need}/train/<class>/ and {place / need}/test/<class>/"
    try:
        if need in MOVIELENS:
            find_ratings(need, root, fetch=False)
        else:
            find_file(need, root, fetch=False)
    except InputError as error:
        url = MOVIELENS[need].url if need in MOVIELENS else FILE_SOURCES[need].urls[0]
        return f"{error} ({url})"
    return ""


# What a run has left


def look_up(value: Any, key: Sequence[str | int]) -> list[float]:
    """Follow a key into what JSON has given, to a list of numbers or to one."""
    for part in key:
        value = value[part]
    return [float(each) for each in (value if isinstance(value, list) else [value])]


def read_figure(folder: Path, figure: Figure) -> dict[str, Any]:
    """Read a figure's ``value``, and its ``reference`` where that was measured, too, in a run's folder.

    Of lists both are the means; where they are of several seeds, ``values`` are those of each.

    Raises:
        InputError: The file is not there, is damaged, or has no such number.
    """
    path = folder / figure.file
    keys = {"value": figure.key} | ({"reference": figure.reference_key} if figure.reference_key else {})
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".csv":
            rows = list(csv.DictReader(text.splitlines()))
            (column,) = figure.key
            found = {"value": [float([row[str(column)] for row in rows if row[str(column)]][-1])]}
        else:
            values = json.loads(text)
            found = {name: look_up(values, key) for name, key in keys.items()}
        scaled = {name: [figure.scale * each for each in values] for name, values in found.items()}
        means = {name: sum(values) / len(values) for name, values in scaled.items()}
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): where is what the script measures?") from error
    except (ValueError, KeyError, IndexError, TypeError, ZeroDivisionError) as error:
        raise InputError(f"{path} has no {'/'.join(map(str, figure.key))!r}, where {figure.metric!r} is") from error
    return {**means, "values": scaled["value"]} if figure.of_seeds else means


def count_parameters(folder: Path) -> int | None:
    """Read how many parameters a run's model has; None where a script trains none, or several."""
    try:
        return json.loads((folder / CONFIG).read_text(encoding="utf-8")).get("parameters")
    except FileNotFoundError:
        return None


def on_stand_in_data(folder: Path) -> bool:
    """Say whether a run has learnt from data that stood in for what was asked for."""
    try:
        return bool(json.loads((folder / CONFIG).read_text(encoding="utf-8"))["data"]["stand_in"])
    except FileNotFoundError:
        return False


def copy_picture(source: Path, target: Path, most: int = LARGEST_PICTURE) -> None:
    """Copy a PNG, with fewer colours and then with fewer pixels if it would have more than ``most`` bytes."""
    from PIL import Image  # imported late: few want it

    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)
        scale = 1.0
        while temporary.stat().st_size > most:
            with Image.open(source) as image:
                size = [max(1, round(scale * side)) for side in image.size]
                image.convert("RGB").resize(size).quantize(128).save(temporary, format="png", optimize=True)
            scale *= 0.8


# Where and by what it was measured


def commit(folder: Path) -> str:
    """Name the commit that a clone is at, and say whether code was changed since; empty outside of a clone."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        found = git("rev-parse", "--short=10", "HEAD")
        return f"{found} with changes" if found and git("status", "--porcelain", "--", "torchdl", "scripts") else found
    except FileNotFoundError:  # no git here
        return ""


def versions() -> dict[str, str]:
    """Give the versions of what the results depend on most."""
    names = ("torch", "numpy", "scikit-learn")
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in names}}


def machine() -> dict[str, Any]:
    """Describe the machine."""
    model = platform.processor() or platform.machine()
    cpus = Path("/proc/cpuinfo")
    if cpus.exists():
        lines = (line.partition(":") for line in cpus.read_text().splitlines())
        model = next((value.strip() for name, _, value in lines if name.strip() == "model name"), model)
    found = {"cpu": model, "instructions": torch.backends.cpu.get_cpu_capability(), "cores": os.cpu_count()}
    return {**found, "gpu": gpu()} if gpu() else found


@cache
def gpu() -> str:
    """Name the GPU that scripts will use; empty where there is none.

    Another process asks for it: a process that has begun to use CUDA cannot have forks that use it.
    """
    if not torch.cuda.device_count():  # which leaves CUDA alone
        return ""
    ask = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')"
    return subprocess.run([sys.executable, "-c", ask], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


# Records


@dataclass
class Records:
    """What was measured, a record for each experiment and seed, in a JSON file that is rewritten at each change."""

    path: Path
    kept: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def load(cls, path: Path) -> Records:
        """Read the file; none is a file without records.

        Raises:
            InputError: It is damaged.
        """
        if not path.exists():
            return cls(path)
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            assert all({"experiment", "seed", "settings", "finished"} <= set(record) for record in kept)
        except (ValueError, TypeError, AssertionError) as error:
            raise InputError(f"{path} is damaged: take its last version from git, or remove it") from error
        return cls(path, kept)

    def find(self, experiment: str, seed: int) -> dict[str, Any] | None:
        """Find what is known of an experiment with a seed."""
        return next((r for r in self.kept if (r["experiment"], r["seed"]) == (experiment, seed)), None)

    def put(self, record: dict[str, Any]) -> None:
        """Keep a record in place of an earlier one of its experiment and seed."""
        known = self.find(record["experiment"], record["seed"])
        if known is None:
            self.kept.append(record)
        else:
            self.kept[self.kept.index(known)] = record
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, self.kept)

    def is_finished(self, experiment: Experiment, seed: int) -> bool:
        """Say whether an experiment was run to its end with these settings, and all its figures are known."""
        known = self.find(experiment.name, seed)
        if known is None or not known["finished"] or known["settings"] != experiment.settings:
            return False
        return {figure.metric for figure in experiment.figures} <= set(known["figures"])


# Running


@dataclass(frozen=True)
class Place:
    """Where experiments are run, and how.

    Args:
        folder: The folder of runs, logs and pictures.
        scripts: The folder of the scripts.
        data_root: The folder of the data sets; None for where the scripts look by themselves.
        quick: Whether made-up data is right.
        jobs: Experiments at a time.
    """

    folder: Path
    scripts: Path
    data_root: Path | None = None
    quick: bool = False
    jobs: int = 1

    def environment(self, alone: bool = False) -> dict[str, str]:
        """Give what is set in the environment of the scripts; one that runs ``alone`` may use all cores."""
        found = {} if alone else {"OMP_NUM_THREADS": "1"}
        if self.data_root is not None:
            found["TORCHDL_DATA"] = str(self.data_root.resolve())
        if self.quick:  # what is kept of made-up images is of no use later
            found["XDG_CACHE_HOME"] = str((self.folder / "cache").resolve())
        return found


@contextmanager
def alone(folder: Path) -> Iterator[int]:
    """Keep a second one out of a folder of results while this one, or a script that it has started, is at work."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"another reproduce.py is at work in {folder}: wait for it, or choose --out") from error
        yield lock.fileno()


def run_experiment(
    experiment: Experiment, seed: int, place: Place, records: Records, request: Request, lock: int | None = None
) -> Steps[dict[str, Any]]:
    """Run an experiment with a seed to its end, in steps, keep its record, and return it.

    Raises:
        Failed: A script has failed, or has left no figure; the record says so.
        Stopped: A signal came; the record says how far it got.
    """
    known = records.find(experiment.name, seed)
    launches = experiment.launches(place.folder / "runs", seed)
    main_folder, trains = launches[0][1], "--name" in launches[0][0]
    same = known is not None and known["settings"] == experiment.settings
    failed = known is not None and "failed" in known
    resumes = same and not failed and trains and (main_folder / checkpoint.LAST).exists()
    goes_on = resumes or (same and SCRIPTS[launches[0][0][0]].goes_on)
    # None where a part's time is not known, because it was killed
    before = known["seconds"] if goes_on and known is not None else 0.0
    record = {"experiment": experiment.name, "seed": seed, "settings": experiment.settings, "finished": False}
    records.put({**record, "seconds": None})  # until it is known
    log = place.folder / "logs" / f"{experiment.name}-{seed}.log"
    since = time.perf_counter()

    def so_far() -> float | None:
        return None if before is None else round(before + time.perf_counter() - since, 1)

    try:
        if resumes:
            launches[0] = ([launches[0][0][0], "--resume", str(main_folder)], main_folder)
        if not goes_on:
            log.unlink(missing_ok=True)
            shutil.rmtree(main_folder, ignore_errors=True)
        for number, (command, folder) in enumerate(launches):
            if number or not trains:  # a training makes its folder itself, and insists on that
                folder.mkdir(parents=True, exist_ok=True)
            yield from run_command(
                command, place.scripts, log, place.environment(experiment.alone), request, lock, place.quick
            )
        stand_in = not place.quick and on_stand_in_data(main_folder)
        require(not stand_in, f"it was run on data that stands in for {experiment.data}: fetch that")
        figures = {figure.metric: read_figure(main_folder, figure) for figure in experiment.figures}
        parameters = count_parameters(main_folder)
        for name in experiment.pictures if seed == experiment.seeds[0] else ():
            copy_picture(main_folder / name, place.folder / "pictures" / f"{experiment.name}-{Path(name).stem}.png")
    except Stopped:
        records.put({**record, "seconds": so_far()})
        raise
    except (Failed, InputError, OSError) as error:
        records.put({**record, "seconds": so_far(), "failed": str(error)})
        raise Failed(str(error)) from error
    record |= {
        "finished": True,
        "seconds": so_far(),
        "figures": figures,
        "parameters": parameters,
        "commit": commit(place.scripts.parent),
        "versions": versions(),
        "machine": machine()
        | ({"threads": os.cpu_count(), "jobs": 1} if experiment.alone else {"threads": 1, "jobs": place.jobs}),
    }
    records.put(record)
    return record


def run_all(
    experiments: Sequence[Experiment],
    place: Place,
    records: Records,
    request: Request,
    say: Callable[[str], None],
    lock: int | None = None,
    after: Callable[[], None] = lambda: None,
) -> list[str]:
    """Run what is not finished, a line each; return the names of those that have failed, with their seeds.

    What is finished but has left no folder, as in a new clone, is run again where what is not finished makes use of it.
    Where there are several jobs, what takes longest is begun first, so that they end together.
    ``after`` is called whenever something was measured.

    Raises:
        Stopped: A signal came; what was measured before is kept.
    """
    left: list[tuple[Experiment, int]] = []
    used: set[str] = set()  # by what is left
    for e in reversed(experiments):  # what uses others comes after them
        gone = {s for s in e.seeds if e.name in used and not e.launches(place.folder / "runs", s)[0][1].exists()}
        again = [(e, seed) for seed in e.seeds if seed in gone or not records.is_finished(e, seed)]
        left = again + left
        used |= set(e.after) if again else set()
    total = sum(len(e.seeds) for e in experiments)
    if len(left) < total:
        say(f"{total - len(left)} of {total} are finished already")
    if place.jobs > 1:
        waits = {name: e.minutes for e in sorted(experiments, key=lambda e: e.minutes) for name in e.after}
        left.sort(key=lambda one: -one[0].minutes - waits.get(one[0].name, 0))
    by_name = {e.name: e for e in experiments}
    unfinished = [e.name for e, _ in left]  # a name for each seed
    failures: list[tuple[str, int]] = []
    stopped: list[tuple[str, int]] = []

    def ready(key: tuple[str, int], working: Sequence[tuple[str, int]]) -> bool:
        together = not any(by_name[name].alone for name, _ in (key, *working))
        return not set(by_name[key[0]].after) & set(unfinished) and (together or not working)

    def run(experiment: Experiment, seed: int) -> Steps[dict[str, Any]]:
        broken = [f"{name}, seed {number}" for name, number in failures if name in experiment.after]
        if broken:
            raise Failed(f"it was not started, because it makes use of what has failed ({'; '.join(broken)})")
        return (yield from run_experiment(experiment, seed, place, records, request, lock))

    todo = {(e.name, seed): run(e, seed) for e, seed in left}
    ended = side_by_side(todo, place.jobs, request, ready)
    with closing(ended):
        for key, outcome in ended:
            name, seed = key
            if isinstance(outcome, Stopped):
                stopped.append(key)
                continue
            unfinished.remove(name)
            title = f"[{len(left) - len(unfinished)}/{len(left)}] {name}, seed {seed}"
            if isinstance(outcome, Failed):
                failures.append(key)
                say(f"{title}: FAILED: {outcome}")
                continue
            main = by_name[name].figures[:1]
            shown = "".join(f"; {figure.metric}: {outcome['figures'][figure.metric]['value']:.5g}" for figure in main)
            say(f"{title}: {'?' if outcome['seconds'] is None else format(outcome['seconds'], '.0f')} s{shown}")
            after()
    if unfinished:
        where = " and ".join(f"{name}, seed {seed}" for name, seed in stopped or [next(iter(todo))])
        raise Stopped(f"stopped in {where}: nothing is lost, the same command goes on", request.signal_number)
    return [f"{name}, seed {seed}" for name, seed in failures]
