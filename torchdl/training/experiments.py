"""What an experiment is: commands with their data and their figures, and what these are to be compared with."""

from __future__ import annotations

import difflib
import hashlib
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from torchdl.errors import InputError

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


class Script(NamedTuple):
    """How a script is told where its results go and what it draws from, and the folder that it leaves them in.

    In both, ``{runs}`` is the folder of all runs, ``{name}`` the run's name, ``{seed}`` the seed, ``{folder}`` this
    script's folder and ``{before}`` that of the command before it.
    """

    options: str
    folder: str
    goes_on: bool = False
    """Whether it goes on by itself where one that was stopped has left its folder."""


def _trains(kind: str) -> Script:
    return Script("--out {runs} --name {name} --seed {seed}", f"{{runs}}/{kind}/{{name}}")


def _shows(kind: str, options: str = "") -> Script:
    return Script(f"--out {{folder}} {options}", f"{{runs}}/{kind}/{{name}}")


SCRIPTS = {
    "adding_problem.py": _trains("adding"),
    "benchmark.py": Script("--json {folder}/results.json --png {folder}/plots/ratios.png", "{runs}/benchmark/{name}"),
    "evaluate_gan.py": Script("{before} --seed {seed}", "{before}"),
    "explore.py": _shows("explore"),
    "forecast.py": _trains("forecast"),
    "generate.py": Script("{before} --seed {seed} --out {before}/samples/generated.png", "{before}"),
    "long_distance.py": _shows("long_distance", "--seeds {seed}"),
    "probe_cpc.py": Script("{before} --seed {seed}", "{before}/probe"),
    "show_activations.py": _shows("activations", "--seed {seed}"),
    "show_convolution.py": _shows("convolution"),
    "show_optimizers.py": _shows("optimizers", "--seed {seed}"),
    "sweep_gan.py": Script("--out {folder}", "{runs}/sweep/{name}", goes_on=True),
    "train_autoencoder.py": _trains("autoencoder"),
    "train_cnn.py": _trains("cnn"),
    "train_cpc.py": _trains("cpc"),
    "train_gan.py": _trains("gan"),
    "train_lenet.py": _trains("lenet"),
    "train_moore.py": _trains("moore"),
    "train_recommender.py": _trains("recommender"),
    "train_surface.py": _trains("surface"),
    "train_tabular.py": _trains("tabular"),
    "train_text.py": _trains("text"),
    "train_transfer.py": _trains("transfer"),
}


@dataclass(frozen=True)
class Figure:
    """One number that an experiment is judged by, and where it is read."""

    metric: str
    """What it is, with its unit."""
    key: tuple[str | int, ...]
    """Where it stands in the file: names, and places in lists; of a list the mean is taken. In a ``.csv`` the column,
    of which the last row that has a value counts."""
    higher_is_better: bool | None = True
    """Whether more is better; None where nearer to the reference is."""
    reference: float | None = None
    """What it is to be compared with, in the same unit."""
    source: str = ""
    """Where the reference comes from."""
    reference_key: tuple[str | int, ...] = ()
    """Where a reference stands that was measured in the same run; in place of ``reference``."""
    file: str = "results.json"
    """The file, in the folder of the experiment's first command."""
    scale: float = 1.0
    """What the number in the file is multiplied by."""
    digits: int = 2
    """Digits after the point, in tables."""
    note: str = ""
    """What was tried, where it falls short of its reference."""
    of_seeds: bool = False
    """Whether a list stands there, of a value for each of the seeds 0, 1, ... that one command goes through."""
    reference_of: str = ""
    """An experiment whose mean of the same metric, and ``reference`` more, it is to be compared with."""


@dataclass(frozen=True)
class Experiment:
    """One or several commands with their figures."""

    name: str
    """A short name, of letters, digits and hyphens."""
    area: str
    """One of :data:`AREAS`."""
    system: str
    """What it is, in human words."""
    data: str
    """The data, in human words."""
    commands: tuple[str, ...]
    """Scripts with their arguments, as a user types them, with ``{runs}`` for the folder of all runs; the seed and the
    own folder are added (:data:`SCRIPTS`)."""
    quick: tuple[str, ...]
    """For each command, the arguments to be added to see in seconds that it works."""
    figures: tuple[Figure, ...]
    """What is measured, the main one first; none where pictures are all that it gives."""
    minutes: float
    """About how many CPU minutes one seed takes on one core."""
    needs: tuple[str, ...] = ()
    """Data sets and packages that are not part of this project, see :func:`torchdl.training.reproducing.lacking`."""
    seeds: tuple[int, ...] = (0,)
    """The seeds."""
    pictures: tuple[str, ...] = ()
    """Pictures worth showing, in the folder of the first command."""
    headline: bool = False
    """Whether the README's short table has its main figure."""
    quick_figures: int | None = None
    """How many of the figures the quick form gives, from the first on; all of them if None."""
    after: tuple[str, ...] = ()
    """Experiments whose runs it makes use of; they are chosen with it, and run before it."""
    alone: bool = False
    """Whether nothing else may be at work beside it, as where it measures time."""

    @property
    def settings(self) -> str:
        """What its results depend on, as a hash: a run with other settings is another run."""
        return hashlib.sha256(json.dumps(self.commands).encode()).hexdigest()[:16]

    @property
    def typed(self) -> tuple[str, ...]:
        """The commands as a user types them, with ``RUN`` for the folder of the command before."""
        lines = []
        for command in self.commands:
            script, *arguments = command.split(" ", 1)
            first = ["RUN"] if SCRIPTS[script].options.startswith("{before}") else []
            lines.append(" ".join([script, *first, *arguments]).replace("{runs}", "results/runs"))
        return tuple(lines)

    def shortened(self) -> Experiment:
        """Return the quick form, of one seed."""
        commands = tuple(f"{c} {q}".strip() for c, q in zip(self.commands, self.quick, strict=True))
        figures = self.figures[: self.quick_figures]
        return replace(self, commands=commands, seeds=self.seeds[:1], figures=figures, alone=False)

    def launches(self, runs: Path, seed: int) -> list[tuple[list[str], Path]]:
        """Spell out each command for a seed: the script and its arguments, and the folder of what it leaves."""
        found: list[tuple[list[str], Path]] = []
        places = {"runs": str(runs), "name": f"{self.name}-{seed}", "seed": str(seed), "before": ""}
        for command in self.commands:
            script, *arguments = shlex.split(command)
            places["folder"] = SCRIPTS[script].folder.format(**places)
            # split before it is filled in: a folder's name may have spaces
            options = [part.format(**places) for part in SCRIPTS[script].options.split()]
            given = [part.replace("{runs}", places["runs"]) for part in arguments]
            found.append(([script, *given, *options], Path(places["folder"])))
            places["before"] = places["folder"]
        return found


def choose(names: Sequence[str], experiments: Sequence[Experiment]) -> list[Experiment]:
    """Choose experiments by their names or their areas', in the registry's order, with those whose runs they use.

    All are chosen where none is named.

    Raises:
        InputError: A name is unknown; the sentence says which ones are like it.
    """
    known = [*(e.name for e in experiments), *dict.fromkeys(e.area for e in experiments)]
    for name in names:
        if name not in known:
            like = difflib.get_close_matches(name, known, 3, 0.5)
            hint = f"did you mean {', '.join(like)}?" if like else "--list says which there are"
            raise InputError(f"there is no experiment and no area {name!r}: {hint}")
    chosen = [e for e in experiments if not names or e.name in names or e.area in names]
    before = {name for e in chosen for name in e.after}
    return [e for e in experiments if e in chosen or e.name in before]
