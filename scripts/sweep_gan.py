"""Train every pair of networks with every loss and several seeds, measure their samples, and make one table."""

from __future__ import annotations

import ctypes
import os
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # torchdl of this clone, installed or not

from torchdl.cli.finished_runs import comes_with_torchdl, default_extractor, find_extractor
from torchdl.cli.main import run_script
from torchdl.cli.printing import say
from torchdl.errors import InputError, Stopped, require
from torchdl.files import EVALUATION, has_checkpoint, read_json, write_json
from torchdl.plots import plot_bars
from torchdl.training import checkpoint, signals

SCRIPTS = Path(__file__).parent
PR_SET_PDEATHSIG = 1  # linux/prctl.h
LIBC = ctypes.CDLL(None) if sys.platform.startswith("linux") else None
COLUMNS = {
    "Fréchet distance": "Fréchet distance",
    "precision": "precision",
    "recall": "recall",
    "coverage": "coverage",
    "rarest class, %": "rarest class",
    "CPU seconds": "seconds",
}


@dataclass(frozen=True)
class Config:
    """Compare pairs of networks and losses: run train_gan.py and evaluate_gan.py for each with every seed.

    The same command skips finished runs and resumes stopped ones.
    """

    dataset: str = "mnist"
    """mnist, fashion_mnist, cifar10, cifar100, mnist_5k (needs no download), or a folder with train/ and test/."""
    models: tuple[Literal["simple", "deep", "conv"], ...] = ("simple", "deep", "conv")
    """The pairs of networks to compare."""
    losses: tuple[Literal["non_saturating", "minimax", "least_squares", "hinge", "wgan_gp"], ...] = (
        "non_saturating",
        "minimax",
        "least_squares",
        "hinge",
        "wgan_gp",
    )
    """The losses to train each pair with."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """The seeds of weights, data order and noise."""
    epochs: int = 5
    """Passes over the data, for every run."""
    options: str = ""
    """More options of train_gan.py for every run, such as --options="--spectral-norm True --average 0.999"."""
    samples: int = 10_000
    """Number of samples to measure per run."""
    jobs: int = 1
    """Number of runs at a time, each with one thread."""
    out: Path = Path("runs")
    """The folder of all runs; the sweep is in OUT/sweep-DATASET."""
    feature_extractor: Path | None = None
    """A finished run of train_lenet.py on the same data. If not given: OUT/lenet/judge-DATASET if that is there, or the
    classifier of mnist or fashion_mnist that comes with torchdl."""
    data_root: Path | None = None
    """The folder of the data sets."""


class Cell(NamedTuple):
    """One run of the sweep."""

    model: str
    loss: str
    seed: int


def main(config: Config) -> None:
    """Do the missing runs, print the table, and write it as JSON and PNG."""
    require(min(len(config.models), len(config.losses), len(config.seeds)) >= 1, "name a model, a loss and a seed")
    require(config.epochs >= 1 and config.jobs >= 1, "--epochs and --jobs must be at least 1")
    name = Path(config.dataset).name
    folder = config.out / f"sweep-{name}"
    extractor = config.feature_extractor or default_extractor(config.out, config.dataset)
    find_extractor(extractor, config.dataset)  # find mistakes before hours of training
    cells = [Cell(*parts) for parts in product(config.models, config.losses, config.seeds)]
    ended = threading.Event()  # if set, no other run starts
    killed = threading.Event()  # if set, the current runs are killed

    def attempt(cell: Cell) -> dict[str, Any] | None:
        if ended.is_set() or request.signal_number:
            return None
        try:
            return evaluate(config, cell, folder, extractor, request, killed)
        except Stopped:
            return None
        except BaseException:
            ended.set()  # the current runs continue to their ends
            raise

    with signals.requests() as request, ThreadPoolExecutor(config.jobs) as pool:
        futures = {cell: pool.submit(attempt, cell) for cell in cells}
        try:
            wait(futures.values())
        except BaseException:  # a second Ctrl-C
            ended.set()
            killed.set()
            raise
    errors = [error for future in futures.values() if (error := future.exception()) is not None]
    if errors:
        known = all(isinstance(error, InputError) for error in errors)
        raise InputError("; ".join(map(str, errors))) if known else errors[0]
    found = {cell: result for cell, future in futures.items() if (result := future.result()) is not None}
    if len(found) < len(cells):
        raise Stopped("stopped; the same command goes on from here", request.signal_number)
    rows = [summary(pair, [found[cell] for cell in cells if cell[:2] == pair]) for pair in pairs(cells)]
    write_json(folder / "sweep.json", {"command": shlex.join(sys.argv), "rows": rows})
    show(rows)
    panels = {"Fréchet distance": {row["name"]: row["Fréchet distance"]["mean"] for row in rows}}
    plot_bars(panels, f"{config.dataset}, --epochs {config.epochs}: lower is better", path=folder / "sweep.png")
    say(f"table: {folder / 'sweep.json'}, picture: {folder / 'sweep.png'}")


def evaluate(
    config: Config, cell: Cell, folder: Path, extractor: Path, request: signals.Request, killed: threading.Event
) -> dict[str, Any]:
    """Train and evaluate one cell, or read its earlier results."""
    name = f"{cell.model}-{cell.loss}-{cell.seed}"
    run, log, settings = folder / "gan" / name, folder / f"{name}.log", folder / f"{name}.json"
    root = ["--data-root", config.data_root] if config.data_root else []
    options = f"--model {cell.model} --loss {cell.loss} --seed {cell.seed} --epochs {config.epochs} {config.options}"
    measured_by = ["--feature-extractor", extractor]
    train = ["--dataset", config.dataset, *options.split(), "--name", name, "--out", folder, *measured_by, *root]
    judge = str(extractor if comes_with_torchdl(extractor) else extractor.resolve())
    asked = {"options": options, "samples": config.samples, "judge": judge}
    known = read_json(settings, dict[str, str | int]) if settings.is_file() else asked
    changed = checkpoint.differences(known, asked)
    require(not changed, f"{run} was made with other settings ({changed}): choose another --out, or remove {folder}")
    settings.parent.mkdir(parents=True, exist_ok=True)
    write_json(settings, asked)
    if (run / EVALUATION).is_file() and (run / "seconds.json").is_file():
        return read(run)
    if has_checkpoint(run):
        train = ["--resume", run]
    else:
        shutil.rmtree(run, ignore_errors=True)  # of a run that was killed before its first checkpoint
    test = [run, *measured_by, "--samples", config.samples, *root]
    call(["train_gan.py", *train, "--threads", 1], log, request, killed, run / "seconds.json")
    call(["evaluate_gan.py", *test, "--threads", 1], log, request, killed)
    result = read(run)
    say(f"{name}: Fréchet distance {result['Fréchet distance']:.2f}, {result['seconds']:.0f} CPU seconds")
    return result


def call(
    command: Sequence[object], log: Path, request: signals.Request, killed: threading.Event, spent: Path | None = None
) -> None:
    """Run a script with its output appended to ``log``, and add its CPU seconds to the number in ``spent``.

    A request to stop is passed on to the script once, so that it saves.

    Raises:
        InputError: The script failed; the message has the last line of its output.
        Stopped: The script was asked to stop.
    """
    script, *arguments = map(str, command)
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as output:
        child = subprocess.Popen(
            [sys.executable, str(SCRIPTS / script), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # the terminal's Ctrl-C goes to this process alone
            preexec_fn=end_with_parent,
        )
    passed_on, pid = False, 0
    while not pid:
        time.sleep(0.02)
        if killed.is_set():
            os.killpg(child.pid, signal.SIGKILL)
        elif request.signal_number and not passed_on:
            child.send_signal(request.signal_number)
            passed_on = True
        pid, status, used = os.wait4(child.pid, os.WNOHANG)  # Popen.wait does not return the resources used
    code = child.returncode = os.waitstatus_to_exitcode(status)
    if spent is not None and spent.parent.is_dir():
        before = read_json(spent, float) if spent.is_file() else 0.0
        write_json(spent, before + used.ru_utime + used.ru_stime)
    if code and request.signal_number:
        raise Stopped("", request.signal_number)
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    last = "".join(lines[-1:])
    require(code == 0, f"{shlex.join([script, *arguments])} failed: {last} (exit status {code}; its output: {log})")


def end_with_parent() -> None:
    """Have Linux ask this process to stop, and to save, when the process that started it ends."""
    if LIBC is not None:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def read(run: Path) -> dict[str, Any]:
    """Read the results of one run."""
    found = read_json(run / EVALUATION, dict[str, Any])
    try:  # no TypedDict declares it all, because msgspec 0.22 may miss a declared key such as "Fréchet distance"
        measured = msgspec.convert(found["against held-out images"], dict[str, dict[str, Any]])
        generated, training = (measured[kind] for kind in ("generated", "training images"))
        numbers: dict[str, Any] = {
            key: generated[key] for key in ("Fréchet distance", "precision", "recall", "coverage")
        }
        numbers["rarest class"] = 100 * min(msgspec.convert(generated["class shares"], dict[str, float]).values())
        numbers["train against test"] = training["Fréchet distance"]
        numbers["seconds"] = read_json(run / "seconds.json", float)
        return msgspec.convert(numbers, dict[str, float])
    except (KeyError, ValueError) as error:  # msgspec's error is a ValueError
        raise InputError(f"{run / EVALUATION} has other results ({error}): remove {run} to do it again") from error


def pairs(cells: Sequence[Cell]) -> list[tuple[str, str]]:
    """Return every pair of a model and a loss once."""
    return list(dict.fromkeys((cell.model, cell.loss) for cell in cells))


def summary(pair: tuple[str, str], found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return a row of the table: mean, standard deviation and values over the seeds."""

    def over(key: str) -> dict[str, Any]:
        values = [result[key] for result in found]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        return {"mean": statistics.fmean(values), "std": spread, "values": values}

    return {"name": " ".join(pair), "model": pair[0], "loss": pair[1], **{key: over(key) for key in found[0]}}


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print the table, sorted by Fréchet distance."""
    say(f"{'':24}" + "".join(f"{column:>20}" for column in COLUMNS))
    for row in sorted(rows, key=lambda row: row["Fréchet distance"]["mean"]):
        cells = [f"{row[key]['mean']:.2f} ± {row[key]['std']:.2f}" for key in COLUMNS.values()]
        say(f"{row['name']:24}" + "".join(f"{cell:>20}" for cell in cells))
    say(f"train against test: {rows[0]['train against test']['mean']:.2f}")


if __name__ == "__main__":
    run_script(main, Config)
