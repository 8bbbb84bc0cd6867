"""Plan the experiments to run, and collect the jobs' results: records, tables and failures.

The engine (Snakemake, see ``Snakefile``) runs what a plan lists. Every job writes a file of its own. The file is merged
into the records when the engine ends, even after failures, or else when the next plan is made.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict

from experiments.imports import hash_code
from experiments.records import Records, read_record
from experiments.registry import Experiment, Registry, choose, load
from experiments.run import Place
from experiments.tables import make_rows, short_table, write_into, write_results
from torchdl.errors import require
from torchdl.files import read_json, write_json


@dataclass(frozen=True)
class Settings:
    """Which experiments to run, on which data, and where their results go."""

    only: tuple[str, ...] = ()
    """Names of experiments, or of areas such as text; all if none is given."""
    quick: bool = False
    """Check in minutes that every command works: tiny settings on made-up data, with results only in quick.json."""
    most_minutes: float = math.inf
    """Leave out experiments that take more than about this number of CPU minutes per seed."""
    fetch: bool = False
    """Let the scripts download missing data."""
    again: bool = False
    """Also rerun what was measured with older code."""
    out: Path = Path()
    """The folder of RESULTS.md, experiments/ and results/; if it has a README.md with markers, its table is renewed."""
    data_root: Path | None = None
    """The folder of the data sets; by default $TORCHDL_DATA, the system's folders, ~/.cache/torchdl."""
    jobs: int = 1
    """Jobs at a time, of one CPU thread each; an experiment that measures time runs alone."""


class PlanFile(TypedDict):
    """What a plan's file holds."""

    out: str
    quick: bool
    data_root: str | None
    jobs: int
    todo: tuple[tuple[str, int], ...]
    chosen: tuple[str, ...]
    absent: dict[str, str]
    finished: int


@dataclass(frozen=True)
class Plan:
    """The experiments and seeds to run; a file passes them to the engine's processes."""

    out: Path
    quick: bool = False
    data_root: Path | None = None
    jobs: int = 1
    todo: tuple[tuple[str, int], ...] = ()
    chosen: tuple[str, ...] = ()
    """The experiments that were asked for, whether they can be run or not."""
    absent: dict[str, str] = field(default_factory=dict)
    """What is missing, by the experiment's name."""
    finished: int = 0
    """Number of chosen experiments and seeds that are finished already."""

    @property
    def place(self) -> Place:
        """Where results go."""
        return Place(self.out, self.quick)

    @property
    def path(self) -> Path:
        """The plan's file."""
        return self.place.folder / "plan.json"

    @cached_property
    def registry(self) -> Registry:
        """All experiments; in their quick forms if the plan is quick."""
        found = load()
        forms = tuple(e.shortened() for e in found.experiments) if self.quick else found.experiments
        return Registry(forms, found.not_run, found.scripts)

    @property
    def experiments(self) -> list[Experiment]:
        """The experiments to run."""
        names = {name for name, _ in self.todo}
        return [e for e in self.registry.experiments if e.name in names]

    def write(self) -> None:
        """Write the file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        root = None if self.data_root is None else str(self.data_root)
        values = {name: getattr(self, name) for name in ("quick", "jobs", "todo", "chosen", "absent", "finished")}
        write_json(self.path, {**values, "out": str(self.out), "data_root": root})

    @classmethod
    def read(cls, path: Path) -> Plan:
        """Read the file."""
        values = read_json(path, PlanFile)
        root = values.pop("data_root")
        return cls(**{**values, "out": Path(values["out"])}, data_root=Path(root) if root else None)


def absences(experiments: Sequence[Experiment], settings: Settings, here: bool = True) -> dict[str, str]:
    """Return what is missing, and how to get it, by the names of the experiments that cannot be run without it.

    Missing data are no obstacle if they are made up or fetched, nor is a missing GPU if the forms are quick or the jobs
    run elsewhere.
    """
    from experiments import needs  # imports PyTorch, which the engine's processes do not need

    found: dict[str, str] = {}
    known: dict[str, str] = {}
    for e in experiments:
        wanted = [
            need
            for need in e.needs
            if need in needs.PACKAGES or (not settings.quick and (here if need == needs.CUDA else not settings.fetch))
        ]
        for need in wanted:
            known.setdefault(need, needs.lacking(need, settings.data_root))
        sentences = [known[need] for need in wanted if known[need]]
        if sentences:
            found[e.name] = "; ".join(sentences)
    return found


def hashes(experiments: Sequence[Experiment]) -> dict[str, str]:
    """Return the current hash of each experiment's code."""
    return {e.name: hash_code([script.name for script in e.scripts]) for e in experiments}


def asked_for(settings: Settings, plan: Plan) -> list[Experiment]:
    """Return the experiments that are asked for."""
    return [e for e in choose(settings.only, plan.registry.experiments) if e.minutes <= settings.most_minutes]


def prepare(settings: Settings, here: bool = True) -> Plan:
    """Choose what to run, and write the plan; a quick plan starts from an empty folder and made-up data.

    A finished run is repeated only if ``again`` is set and its code has changed, or if its folder is gone and an
    experiment to run uses it.
    """
    require(settings.jobs >= 1, f"jobs must be 1 or more, not {settings.jobs}")
    plan = Plan(
        settings.out.resolve(), settings.quick, settings.data_root and settings.data_root.resolve(), settings.jobs
    )
    chosen = asked_for(settings, plan)
    absent = absences(plan.registry.experiments, settings, here)
    able = [e for e in chosen if e.name not in absent]
    folder = plan.place.folder
    if settings.quick:
        shutil.rmtree(folder, ignore_errors=True)
        if able:
            from experiments.made_up_data import make_data

            plan = replace(plan, data_root=make_data(folder / "data"))
    records = merge(plan.place)
    code = hashes(able) if settings.again else {}
    todo: list[tuple[str, int]] = []
    used: set[str] = set()  # by the experiments to run
    for e in reversed(able):  # experiments come after those that they use
        gone = {s for s in e.seeds if e.name in used and not e.launches(folder / "runs", s)[0][1].exists()}
        again = {s for s in e.seeds if settings.again and records.is_older(e, s, code[e.name])}
        left = [s for s in e.seeds if s in gone | again or not records.is_finished(e, s)]
        todo = [(e.name, seed) for seed in left] + todo
        used |= set(e.after) if left else set()
    finished = sum(len(e.seeds) for e in able) - len(todo)
    plan = replace(plan, todo=tuple(todo), chosen=tuple(e.name for e in chosen), absent=absent, finished=finished)
    plan.write()
    return plan


def merge(place: Place) -> Records:
    """Merge the jobs' files into the records, delete the files of finished jobs, and return the records.

    A finished record is kept until a new one of the same experiment and seed is finished, too.
    """
    records = Records.load(place.records)
    unfinished = sorted((place.folder / "unfinished").glob("*.json"))
    finished = sorted((place.folder / "records").glob("*.json"))
    new = [read_record(path) for path in (*unfinished, *finished)]
    new = [r for r in new if r["finished"] or not (records.find(r["experiment"], r["seed"]) or r)["finished"]]
    if new:
        records.put(*new)
    for path in finished:
        path.unlink()
    return records


@dataclass
class Outcome:
    """The experiments and seeds of a plan by their outcome."""

    finished: list[tuple[str, int]] = field(default_factory=list)
    failed: dict[tuple[str, int], str] = field(default_factory=dict)
    """With the error message of each."""
    stopped: list[tuple[str, int]] = field(default_factory=list)
    not_started: dict[tuple[str, int], str] = field(default_factory=dict)
    """With the failed runs that each waited for; an empty string if there are none."""


def look(plan: Plan) -> Outcome:
    """Return the outcome of a plan; call this before :func:`merge`, because it reads the jobs' files."""
    found = Outcome()
    since = plan.path.stat().st_mtime
    by_name = {e.name: e for e in plan.experiments}
    for name, seed in plan.todo:
        key, path = (name, seed), plan.place.unfinished(name, seed)
        if plan.place.finished(name, seed).exists():
            found.finished.append(key)
        elif path.exists() and path.stat().st_mtime >= since:
            record = read_record(path)
            if "failed" in record:
                found.failed[key] = record["failed"]
            else:
                found.stopped.append(key)
        else:
            broken = [f"{n}, seed {s}" for n, s in (*found.failed, *found.not_started) if n in by_name[name].after]
            found.not_started[key] = "; ".join(broken)
    return found


def collect(plan: Plan) -> tuple[Outcome, Path]:
    """Merge the jobs' files and write the tables; return the plan's outcome and the path of the main table."""
    found = look(plan)
    return found, write_tables(plan, merge(plan.place))


def write_tables(plan: Plan, records: Records) -> Path:
    """Write the rows and, unless they are of quick forms, RESULTS.md and the README's table; return the main file."""
    experiments, out = plan.registry.experiments, plan.out
    results = out / "results"
    results.mkdir(parents=True, exist_ok=True)
    if plan.quick:
        write_json(results / "quick.json", make_rows(experiments, records.kept, quick=True))
        return results / "quick.json"
    rows = make_rows(experiments, records.kept, hashes(experiments))
    write_json(results / "results.json", rows)
    write_results(out / "RESULTS.md", rows, experiments, plan.absent, plan.registry.not_run)
    write_into(out / "README.md", short_table(rows, experiments))
    return out / "RESULTS.md"


def show(settings: Settings, here: bool = True) -> None:
    """Print the experiments, one line each."""
    plan = Plan(settings.out.resolve())
    chosen = asked_for(settings, plan)
    records, code, absent = Records.load(plan.place.records), hashes(chosen), absences(chosen, settings, here)
    width = max((len(e.name) for e in chosen), default=0) + 2
    left = again = 0.0
    any_older = False
    for e in chosen:
        done = [seed for seed in e.seeds if records.is_finished(e, seed)]
        older = sum(records.is_older(e, seed, code[e.name]) for seed in done)
        note = f"   {absent[e.name]}" if e.name in absent else ""
        mark = "†" if older else " "
        print(
            f"{e.name:{width}}{e.area:12}{len(done)} of {len(e.seeds)} seeds{mark}, {e.minutes:5.1f} min a seed: "
            f"{e.system}{note}"
        )
        any_older |= older > 0
        if e.name not in absent:
            left += e.minutes * (len(e.seeds) - len(done))
            again += e.minutes * older
    if any_older:
        print(f"† measured with older code: --again runs it again, for about {again:.0f} min of one core")
    print(f"left to run: about {left:.0f} min of one core")


def from_config(config: Mapping[str, Any]) -> Settings:
    """Return the settings of ``snakemake --config KEY=VALUE ...``, with the names of :class:`Settings`."""
    kinds = {"most_minutes": float, "jobs": int, "out": Path, "data_root": Path}
    values = {key: kinds.get(key, lambda value: value)(value) for key, value in config.items() if key != "plan"}
    unknown = sorted(set(values) - set(Settings.__dataclass_fields__))
    require(not unknown, f"unknown config {', '.join(unknown)}: choose from {', '.join(Settings.__dataclass_fields__)}")
    if isinstance(values.get("only"), str):
        values["only"] = tuple(values["only"].replace(",", " ").split())
    return Settings(**values)


def plan_of(config: Mapping[str, Any]) -> Plan:
    """Read the plan that the engine's main process wrote, in a process on a cluster's node."""
    settings = from_config(config)
    return Plan.read(Plan(settings.out.resolve(), settings.quick).path)
