"""The experiments: read from ``registry/*.toml``, checked, and chosen by name or by area."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from torchdl.errors import InputError, require
from torchdl.files import RESULTS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = Path(__file__).parent / "registry"
SCRIPTS_FILE = "scripts.toml"
AREAS = {
    "cpc": "Contrastive predictive coding",
    "gan": "Generative adversarial networks",
    "images": "Images",
    "tabular": "Tables, and what optimizers do",
    "forecasting": "Sequences and forecasting",
    "text": "Texts",
    "ratings": "Ratings",
    "transfer": "Transfer learning",
    "speed": "Speed",
}


@dataclass(frozen=True)
class Script:
    """How a script is told the folder of its results and its seed.

    In ``options`` and ``folder``, ``{runs}`` is the folder of all runs, ``{name}`` the run's name, ``{seed}`` the seed,
    ``{folder}`` this script's folder and ``{before}`` the folder of the command before it.
    """

    name: str
    options: str
    folder: str
    goes_on: bool = False
    """Whether the script itself continues from what it left in its folder when it was stopped."""


@dataclass(frozen=True)
class Figure:
    """One number (not a picture) that an experiment measures, and where to read it."""

    metric: str
    """The name, with the unit."""
    key: tuple[str | int, ...]
    """Its place in the JSON file: names, and positions in lists; a list is averaged. In a ``.csv`` file: the column;
    its last value counts."""
    higher_is_better: bool | None = True
    """Whether more is better; None if nearer to the reference is better."""
    reference: float | None = None
    """The number to compare with, in the same unit."""
    source: str = ""
    """Where the reference comes from."""
    reference_key: tuple[str | int, ...] = ()
    """The place of a reference that the same run measured; replaces ``reference``."""
    file: str = RESULTS
    """The file, in the folder of the experiment's first command."""
    scale: float = 1.0
    """The factor from the file's unit to this one."""
    digits: int = 2
    """Digits after the point, in tables."""
    note: str = ""
    """Why the mean is worse than the reference."""
    of_seeds: bool = False
    """Whether the file has a list, one value for each of the seeds 0, 1, ... of one command."""
    reference_of: str = ""
    """Name of an experiment; its mean of the same metric plus ``reference`` is the number to compare with."""
    goal: bool = True
    """Whether the reference is to be reached, and not only to compare with."""


@dataclass(frozen=True)
class Experiment:
    """One or several commands with the figures that they measure."""

    name: str
    area: str
    system: str
    """What is trained or shown, for readers."""
    data: str
    """The data, for readers."""
    commands: tuple[str, ...]
    """Scripts with their arguments, as a user types them; ``{runs}`` is the folder of all runs."""
    quick: tuple[str, ...]
    """For each command, the arguments to add for the quick form."""
    figures: tuple[Figure, ...]
    """The main figure first; none for an experiment of pictures alone."""
    minutes: float
    """Approximate CPU minutes per seed on one core."""
    scripts: tuple[Script, ...]
    """The script of each command."""
    needs: tuple[str, ...] = ()
    """Data sets, packages and devices, see :func:`experiments.needs.lacking`."""
    seeds: tuple[int, ...] = (0,)
    pictures: tuple[str, ...] = ()
    """Pictures to keep, in the folder of the first command."""
    lesson: str = ""
    """The lesson on it; the README's table has the main figure of each experiment with a lesson."""
    quick_figures: int | None = None
    """Number of figures that the quick form measures, from the first on; all if None."""
    after: tuple[str, ...] = ()
    """Experiments whose runs this one uses."""
    alone: bool = False
    """Whether it measures time, so that nothing else may run beside it."""

    @property
    def settings(self) -> str:
        """Return the hash of the commands: a run with other settings is another run."""
        return hashlib.sha256(json.dumps(self.commands).encode()).hexdigest()[:16]

    @property
    def typed(self) -> tuple[str, ...]:
        """Return the commands as a user types them, with ``RUN`` for the folder of the previous command."""
        lines = []
        for command, script in zip(self.commands, self.scripts, strict=True):
            name, *arguments = command.split(" ", 1)
            first = ["RUN"] if script.options.startswith("{before}") else []
            lines.append(" ".join([name, *first, *arguments]).replace("{runs}", "results/runs"))
        return tuple(lines)

    def shortened(self) -> Experiment:
        """Return the quick form, of one seed."""
        commands = tuple(f"{c} {q}".strip() for c, q in zip(self.commands, self.quick, strict=True))
        figures = self.figures[: self.quick_figures]
        return replace(self, commands=commands, seeds=self.seeds[:1], figures=figures, alone=False)

    def launches(self, runs: Path, seed: int) -> list[tuple[list[str], Path]]:
        """Return each command's script with its arguments, and the folder of its results."""
        found: list[tuple[list[str], Path]] = []
        places = {"runs": str(runs), "name": f"{self.name}-{seed}", "seed": str(seed), "before": ""}
        for command, script in zip(self.commands, self.scripts, strict=True):
            name, *arguments = shlex.split(command)
            places["folder"] = script.folder.format(**places)
            # split first, then filled in: a folder's name may have spaces
            options = [part.format(**places) for part in script.options.split()]
            given = [part.replace("{runs}", places["runs"]) for part in arguments]
            found.append(([name, *given, *options], Path(places["folder"])))
            places["before"] = places["folder"]
        return found


class NotRun(NamedTuple):
    """A part of the course that was not run for lack of data."""

    system: str
    command: str
    fetch: str


@dataclass(frozen=True)
class Registry:
    """Every experiment, in the order of the areas and of their files."""

    experiments: tuple[Experiment, ...]
    not_run: tuple[NotRun, ...] = ()
    scripts: Mapping[str, Script] = field(default_factory=dict)


# Checking


class Kind(NamedTuple):
    """What a key's value must be."""

    name: str
    fits: Callable[[Any], bool]


def _is(kind: type | tuple[type, ...], value: Any) -> bool:
    return isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool)


def _list_of(kind: type | tuple[type, ...], value: Any) -> bool:
    return isinstance(value, list) and all(_is(kind, each) for each in value)


TEXT = Kind("a text", partial(_is, str))
NUMBER = Kind("a number", partial(_is, (int, float)))
WHOLE = Kind("a whole number", partial(_is, int))
YES = Kind("true or false", partial(_is, bool))
TEXTS = Kind("a list of texts", partial(_list_of, str))
WHOLES = Kind("a list of whole numbers", partial(_list_of, int))
PATH = Kind("a list of names and positions", partial(_list_of, (str, int)))
TABLE = Kind("a table", partial(_is, dict))
TABLES = Kind("a list of tables", partial(_list_of, dict))
FIGURES = Kind("a list of figures and names of figures", partial(_list_of, (str, dict)))
BETTER = {"higher": True, "lower": False, "nearer": None}

FIGURE_KEYS = {
    "metric": TEXT,
    "key": PATH,
    "better": Kind("higher, lower or nearer", lambda value: value in list(BETTER)),
    "reference": NUMBER,
    "source": TEXT,
    "reference_key": PATH,
    "file": TEXT,
    "scale": NUMBER,
    "digits": WHOLE,
    "note": TEXT,
    "of_seeds": YES,
    "reference_of": TEXT,
    "goal": YES,
}
EXPERIMENT_KEYS = {
    "system": TEXT,
    "data": TEXT,
    "commands": TEXTS,
    "quick": TEXTS,
    "figures": FIGURES,
    "minutes": NUMBER,
    "needs": TEXTS,
    "seeds": WHOLES,
    "pictures": TEXTS,
    "lesson": TEXT,
    "quick_figures": WHOLE,
    "after": TEXTS,
    "alone": YES,
}
FILE_KEYS = {"defaults": TABLE, "figures": TABLE, "experiments": TABLE, "not_run": TABLES}
SCRIPT_KEYS = {"options": TEXT, "folder": TEXT, "goes_on": YES}


def check(where: str, table: Mapping[str, Any], kinds: Mapping[str, Kind], required: Sequence[str] = ()) -> None:
    """Check a table's keys and values.

    Raises:
        InputError: A key is unknown or missing, or its value has the wrong type.
    """
    for key, value in table.items():
        if key not in kinds:
            like = difflib.get_close_matches(key, kinds, 1)
            raise InputError(
                f"{where}: unknown key {key!r}: {f'did you mean {like[0]}?' if like else ', '.join(kinds)}"
            )
        require(kinds[key].fits(value), f"{where}: {key} must be {kinds[key].name}, not {value!r}")
    missing = [key for key in required if key not in table]
    require(not missing, f"{where}: the key {', '.join(missing)} is missing")


def load(folder: Path = FOLDER) -> Registry:
    """Read and check ``scripts.toml`` and the areas' files in a folder.

    Raises:
        InputError: A file is invalid; the message has the file, the experiment, the key and what was expected.
    """
    scripts: dict[str, Script] = {}
    for name, table in read(folder / SCRIPTS_FILE).items():
        check(f"{folder / SCRIPTS_FILE}: {name}", table, SCRIPT_KEYS, ("options", "folder"))
        scripts[name] = Script(name, **table)
    experiments: list[Experiment] = []
    not_run: list[NotRun] = []
    files = {path.stem for path in folder.glob("*.toml")} - {Path(SCRIPTS_FILE).stem}
    require(files <= set(AREAS), f"{folder}: {', '.join(sorted(files - set(AREAS)))}: areas are {', '.join(AREAS)}")
    for area in (area for area in AREAS if area in files):
        path = folder / f"{area}.toml"
        found = read(path)
        check(str(path), found, FILE_KEYS)
        for name, table in found.get("experiments", {}).items():
            where = f"{path}: experiment {name}"
            require(isinstance(table, dict), f"{where}: it must be a table, not {table!r}")
            require(name not in [e.name for e in experiments], f"{where}: another experiment has this name")
            whole = {**found.get("defaults", {}), **table}
            experiments.append(build(where, name, area, whole, found.get("figures", {}), scripts))
        for table in found.get("not_run", ()):
            check(f"{path}: not_run", table, dict.fromkeys(NotRun._fields, TEXT), NotRun._fields)
            not_run.append(NotRun(**table))
    for number, experiment in enumerate(experiments):
        check_links(f"{folder / experiment.area}.toml: experiment {experiment.name}", experiment, experiments[:number])
    for e in experiments:
        for figure in (f for f in e.figures if f.reference_of):
            others = [other for other in experiments if other.name == figure.reference_of]
            there = any(figure.metric == f.metric for other in others for f in other.figures)
            where = f"{folder / e.area}.toml: experiment {e.name}: figure {figure.metric}"
            require(there, f"{where}: reference_of must be an experiment with this figure, not {figure.reference_of!r}")
    return Registry(tuple(experiments), tuple(not_run), scripts)


def read(path: Path) -> dict[str, Any]:
    """Read a TOML file."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def build(
    where: str, name: str, area: str, table: Mapping[str, Any], named: Mapping[str, Any], scripts: Mapping[str, Script]
) -> Experiment:
    """Build an experiment from its table, which includes the file's defaults."""
    check(where, table, EXPERIMENT_KEYS, ("system", "data", "commands", "quick", "figures", "minutes"))
    require(re.fullmatch(r"[a-z0-9-]+", name) is not None, f"{where}: a name has lower-case letters, digits, hyphens")
    require(name not in AREAS, f"{where}: an area has this name")
    used = [command.split(" ")[0] for command in table["commands"]]
    unknown = [script for script in used if script not in scripts]
    require(bool(used) and not unknown, f"{where}: commands must begin with a script of {SCRIPTS_FILE}: {unknown}")
    same = len(table["quick"]) == len(used)
    require(same, f"{where}: quick must have as many texts as commands, {len(used)}, not {len(table['quick'])}")
    require(table["minutes"] > 0, f"{where}: minutes must be more than 0, not {table['minutes']}")
    figures = tuple(build_figure(where, one) for entry in table["figures"] for one in expand(where, entry, named))
    metrics = [figure.metric for figure in figures]
    twice = sorted({metric for metric in metrics if metrics.count(metric) > 1})
    require(not twice, f"{where}: figures must have different names: {', '.join(twice)} is repeated")
    seeds = table.get("seeds", [0])
    require(len(set(seeds)) == len(seeds) > 0, f"{where}: seeds must be different whole numbers, not {seeds}")
    require(bool(figures or table.get("pictures")), f"{where}: figures or pictures must be given")
    values = {
        **frozen(table),
        "name": name,
        "area": area,
        "figures": figures,
        "scripts": tuple(scripts[script] for script in used),
    }
    return Experiment(**values)


def expand(where: str, entry: str | Mapping[str, Any], named: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the tables of an entry: itself, those in ``[figures]`` with this name, or these with changes."""
    if isinstance(entry, str):
        return expand(where, {"use": entry}, named)
    changes = {key: value for key, value in entry.items() if key != "use"}
    if "use" not in entry:
        return [changes]
    use = entry["use"]
    require(use in named, f"{where}: no figure {use!r} in [figures]: there are {', '.join(named) or 'none'}")
    others = {name: value for name, value in named.items() if name != use}  # so that none uses itself
    entries = named[use] if isinstance(named[use], list) else [named[use]]
    require(FIGURES.fits(entries), f"{where}: figure {use!r} must be {FIGURES.name}, not {named[use]!r}")
    return [{**one, **changes} for each in entries for one in expand(where, each, others)]


def build_figure(where: str, table: Mapping[str, Any]) -> Figure:
    """Build and check one figure."""
    where = f"{where}: figure {table.get('metric', '')}".rstrip()
    check(where, table, FIGURE_KEYS, ("metric", "key"))
    values = frozen(table)
    if "better" in values:
        values["higher_is_better"] = BETTER[values.pop("better")]
    figure = Figure(**values)
    given = [key for key in ("reference", "reference_key") if table.get(key) not in (None, [])]
    require(len(given) < 2, f"{where}: either reference or reference_key, not both")
    require(not (figure.reference_key and figure.reference_of), f"{where}: either reference_key or reference_of")
    referred = bool(given or figure.reference_of)
    require(referred == bool(figure.source), f"{where}: a reference needs a source, and a source needs a reference")
    require(referred or not figure.note, f"{where}: a note is for a figure with a reference")
    require(referred or figure.higher_is_better is not None, f"{where}: nearer is better only with a reference")
    return figure


def frozen(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table with tuples in place of lists."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}


def check_links(where: str, experiment: Experiment, before: Sequence[Experiment]) -> None:
    """Check that an experiment comes after the experiments whose runs it uses."""
    unknown = sorted(set(experiment.after) - {other.name for other in before})
    require(not unknown, f"{where}: after must name experiments that stand before it, not {', '.join(unknown)}")


def choose(names: Sequence[str], experiments: Sequence[Experiment]) -> list[Experiment]:
    """Choose experiments by their names or areas, in the registry's order, with those whose runs they use.

    Without names, all are chosen.

    Raises:
        InputError: A name is unknown; the message has similar ones.
    """
    known = [*(e.name for e in experiments), *dict.fromkeys(e.area for e in experiments)]
    for name in names:
        if name not in known:
            like = difflib.get_close_matches(name, known, 3, 0.5)
            hint = f"did you mean {', '.join(like)}?" if like else "--list shows them all"
            raise InputError(f"there is no experiment and no area {name!r}: {hint}")
    chosen = {e.name for e in experiments if not names or e.name in names or e.area in names}
    for e in reversed(experiments):
        if e.name in chosen:
            chosen |= set(e.after)
    return [e for e in experiments if e.name in chosen]


def find(name: str, experiments: Sequence[Experiment]) -> Experiment:
    """Return the experiment with a name.

    Raises:
        InputError: There is no such experiment.
    """
    (*_, found) = choose([name], experiments)  # the last, after those whose runs it uses
    require(found.name == name, f"{name!r} is an area: name one experiment")
    return found
