"""Reproduce every result of this project: run each experiment with each of its seeds, and write the tables."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import _clone  # noqa: F401
import torch
from torchdl.training.command import run_script

from torchdl.data.miniature import make_data
from torchdl.errors import require
from torchdl.files import write_json
from torchdl.training import stopping
from torchdl.training.experiments import Experiment, choose
from torchdl.training.launching import preload
from torchdl.training.registry import EXPERIMENTS, NOT_RUN
from torchdl.training.reproducing import CUDA, PACKAGES, Place, Records, alone, lacking, run_all
from torchdl.training.tables import make_rows, short_table, write_into, write_results

SCRIPTS = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Config:
    """Run experiments, and write RESULTS.md and results/; what is finished is not run again."""

    only: tuple[str, ...] = ()
    """Names of experiments, or of areas such as text; all if none is given."""
    quick: bool = False
    """See in minutes that every command works: tiny settings on made-up data, kept apart in results/quick.json."""
    list: bool = False
    """Say which experiments there are, what is finished and what is lacking, and run nothing."""
    most_minutes: float = math.inf
    """Leave out what takes more CPU minutes a seed, about."""
    fetch: bool = False
    """Let the scripts download the data that is not there."""
    out: Path = Path()
    """The folder that RESULTS.md and results/ are written to; a README.md with markers there has its table renewed."""
    data_root: Path | None = None
    """The folder of the data sets; else $TORCHDL_DATA, the system's folders, ~/.cache/torchdl."""
    jobs: int = 1
    """Experiments at a time, of one CPU thread each; what measures time is run alone."""


def main(config: Config) -> None:
    """Choose, run, write."""
    require(config.jobs >= 1, f"--jobs must be 1 or more, not {config.jobs}")
    chosen = [e for e in choose(config.only, EXPERIMENTS) if e.minutes <= config.most_minutes]
    results = config.out / "results"
    place = Place(results, SCRIPTS, config.data_root, jobs=config.jobs)
    absent = {e.name: "; ".join(found) for e in EXPERIMENTS if (found := absences(e, config))}
    if config.list:
        show(chosen, Records.load(results / "records.json"), absent)
        return
    with alone(results) as lock, stopping.requests() as request:
        if config.quick:
            torch.set_num_threads(1)  # a process with several cannot be forked
            folder = results / "quick"
            shutil.rmtree(folder, ignore_errors=True)  # what works is to be seen anew
            place = Place(folder, SCRIPTS, make_data(folder / "data"), True, config.jobs)
            chosen = [e.shortened() for e in chosen]
            if len(chosen) > 5:
                preload()
        records = Records.load(place.folder / "records.json")

        def write() -> None:
            if config.quick:
                write_json(results / "quick.json", make_rows(chosen, records.kept, quick=True))
                return
            rows = make_rows(EXPERIMENTS, records.kept)
            write_json(results / "results.json", rows)
            write_results(config.out / "RESULTS.md", rows, EXPERIMENTS, absent, results / "pictures", NOT_RUN)
            write_into(config.out / "README.md", short_table(rows, EXPERIMENTS))

        able = [e for e in chosen if e.name not in absent]
        for e in chosen:
            if e.name in absent:
                print(f"not run: {e.name}: {absent[e.name]}", flush=True)
        failures = run_all(able, place, records, request, lambda text: print(text, flush=True), lock, write)
        write()
    print(f"tables: {results / 'quick.json' if config.quick else config.out / 'RESULTS.md'}")
    if failures:
        sys.exit(f"reproduce.py: {len(failures)} failed ({', '.join(failures)}): the lines above say why")


def absences(experiment: Experiment, config: Config) -> list[str]:
    """Say what an experiment cannot be run without and what is not there.

    Data is no matter where it is made up or fetched, and neither is a GPU to a quick form.
    """
    needs = [n for n in experiment.needs if n in PACKAGES or (not config.quick and (n == CUDA or not config.fetch))]
    return [text for need in needs if (text := lacking(need, config.data_root))]


def show(experiments: Sequence[Experiment], records: Records, absent: dict[str, str]) -> None:
    """Print the experiments, a line each."""
    width = max(len(e.name) for e in experiments) + 2
    for e in experiments:
        done = sum(records.is_finished(e, seed) for seed in e.seeds)
        note = f"   {absent[e.name]}" if e.name in absent else ""
        print(
            f"{e.name:{width}}{e.area:12}{done} of {len(e.seeds)} seeds, {e.minutes:5.1f} min a seed: {e.system}{note}"
        )
    able = [e for e in experiments if e.name not in absent]
    left = sum(e.minutes * sum(not records.is_finished(e, seed) for seed in e.seeds) for e in able)
    print(f"about {left:.0f} minutes of one core are left")


if __name__ == "__main__":
    run_script(main, Config)
