"""Compare runs: the settings that differ, the main figures and the curves.

Shapes: R runs.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from torchdl.callbacks.best import direction
from torchdl.errors import InputError, first_line, require
from torchdl.files import (
    CONFIG,
    EVALUATION,
    FORECASTS,
    METRICS,
    PLOTS,
    PROBE,
    RESULTS,
    PathLike,
    leaves,
    read_config,
    read_json,
)
from torchdl.history import is_main, read_history
from torchdl.plots import plot_comparison, plot_forecasts

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

PLACES = {"name", "out", "resume", "data_root", "dry_run", "summary"}  # say where a run is, not what it is
LARGE = 6  # numbers in a group of results
DATA = ("fingerprint", "held_out_fingerprint", "origin", "held_out_origin")  # the origins count if the data differ


@dataclass(frozen=True)
class RunSummary:
    """What the files of a run say of it.

    Attributes:
        folder: The run's folder.
        script: The script that trained it; an empty string if that is unknown.
        settings: All settings, versions, the commit and the data's fingerprints, by flattened names.
        history: The metrics of every evaluated epoch.
        results: The numbers of its results and evaluations, by flattened names.
        finished: Whether its training has ended.
        notes: Sentences on what is missing or damaged.
    """

    folder: Path
    script: str
    settings: Mapping[str, Any]
    history: Sequence[Mapping[str, float]]
    results: Mapping[str, float]
    finished: bool
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """What :func:`compare_runs` has found.

    Attributes:
        runs: The runs by names that tell them apart.
        settings: The settings that differ: by name, the value of each run, None where it has none; (R) each.
        figures: The figures: by name, the number of each run, None where it has none; (R) each.
        notes: Sentences on what the comparison lacks.
    """

    runs: Mapping[str, RunSummary]
    settings: Mapping[str, Sequence[Any]]
    figures: Mapping[str, Sequence[float | None]]
    notes: Sequence[str]

    def to_frame(self) -> pandas.DataFrame:
        """Return a table with a row per run: its name, folder and state, its settings that differ and its figures."""
        import pandas  # imported late: it takes a second

        about = {
            "run": list(self.runs),
            "folder": [str(run.folder) for run in self.runs.values()],
            "script": [run.script for run in self.runs.values()],
            "finished": [run.finished for run in self.runs.values()],
        }
        taken = {*about, *self.settings}  # a result may have a setting's name, such as the number of words
        figures = {f"results / {name}" if name in taken else name: row for name, row in self.figures.items()}
        return pandas.DataFrame({**about, **self.settings, **figures})

    def plot(self, x: str = "epoch", path: PathLike | None = None) -> Figure:
        """Draw the curves of all runs over ``x``; ``path`` is as for :func:`torchdl.plots.plot_comparison`."""
        return plot_comparison({name: run.history for name, run in self.runs.items()}, x, path)

    def plot_forecasts(self, path: PathLike | None = None) -> Figure:
        """Draw the runs' forecasts of the same terms; ``path`` is as for :func:`torchdl.plots.plot_forecasts`.

        Raises:
            InputError: A run has no forecasts, or was tested on other terms than the first one.
        """
        read = {name: read_forecasts(run.folder) for name, run in self.runs.items()}
        (first, (actual, _, times)), *_ = read.items()
        for name, (terms, *_) in read.items():
            advice = "compare runs of one series"
            require(torch.equal(terms, actual), f"{name} was tested on other terms than {first}: {advice}")
        return plot_forecasts(actual, {name: pair for name, (_, pair, _) in read.items()}, "test terms", times, path)


def read_run(folder: PathLike) -> RunSummary:
    """Read what the files of a run say of it; the run may be somebody else's, or in the middle of its training.

    Raises:
        InputError: The folder is not that of a run.
    """
    folder, notes = Path(folder), []
    record = read_config(folder)
    history: list[dict[str, float]] = []
    results: dict[str, float] = {}
    try:
        history = read_history(folder / METRICS)
    except InputError as error:
        notes.append(f"{folder} has completed no epoch yet" if not (folder / METRICS).exists() else str(error))
    for name, prefix in ((RESULTS, ""), (EVALUATION, ""), (f"{PROBE}/probe.json", "probe / ")):
        try:
            if (folder / name).exists():
                results |= {prefix + key: value for key, value in numbers_of(read_json(folder / name)).items()}
        except InputError as error:
            notes.append(str(error))
    settings = settings_of(record)
    finished = is_finished(folder, settings, history)
    if history and not finished:
        notes.append(f"{folder} is not finished: its figures are those of {progress(settings, history)}")
    if isinstance(parameters := record.get("parameters"), int):
        results.setdefault("parameters", parameters)
    script = str(record.get("command", "")).split(" ")[0]
    return RunSummary(folder, script, settings, history, results, finished, tuple(notes))


def read_forecasts(folder: Path) -> tuple[Tensor, tuple[Tensor, Tensor], np.ndarray | None]:
    """Read the test terms (N,) of a run's ``folder``, both forecasts of them (N,), and their times, if any.

    Raises:
        InputError: It has none, or they are damaged.
    """
    import pandas  # imported late: it takes a second

    path = folder / FORECASTS
    require(path.is_file(), f"{folder} has no {FORECASTS}: compare finished runs that forecast a series")
    try:
        table = pandas.read_csv(path)
        actual, one_step, multi_step = (
            torch.tensor(table[name].to_numpy("float64")) for name in ("actual", "one_step", "multi_step")
        )
        times = pandas.to_datetime(table["time"]).to_numpy() if "time" in table.columns else None
    except (ValueError, KeyError) as error:
        raise InputError(f"{path} is damaged ({first_line(error)}): train again") from error
    return actual, (one_step, multi_step), times


def settings_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's settings, versions, commit and data by flattened names, from its ``config.json``, ``record``."""
    found = [(keys, value) for keys, value in leaves(record.get("config", {})) if keys and keys[-1] not in PLACES]
    counts = Counter(keys[-1] for keys, _ in found)
    settings = {keys[-1] if counts[keys[-1]] == 1 else ".".join(keys): value for keys, value in found}
    data = record.get("data", {})
    settings |= {f"data.{name}": data[name] for name in DATA if name in data}
    settings |= {".".join(("versions", *keys)): value for keys, value in leaves(record.get("versions", {}))}
    return settings | ({"commit": record["commit"]} if record.get("commit") else {})


def numbers_of(values: Any) -> dict[str, float]:
    """Return the numbers in nested dictionaries, ``values``, by flattened names; large groups, as of classes, last."""
    numbers = [(keys, v) for keys, v in leaves(values) if isinstance(v, (int, float)) and not isinstance(v, bool)]
    sizes = Counter(keys[:-1] for keys, _ in numbers)
    numbers.sort(key=lambda pair: len(pair[0]) > 1 and sizes[pair[0][:-1]] > LARGE)
    return {" / ".join(keys): value for keys, value in numbers}


def is_finished(folder: Path, settings: Mapping[str, Any], history: Sequence[Mapping[str, float]]) -> bool:
    """Return whether a training has ended: it has drawn its history, has results, or has come to its last epoch.

    ``folder``, ``settings`` and ``history`` are the run's.
    """
    if (folder / RESULTS).is_file() or (folder / PLOTS / "history.png").is_file():
        return True
    epochs, most = settings.get("epochs"), settings.get("max_steps")
    last = history[-1] if history else {"epoch": 0, "step": 0}
    return (isinstance(epochs, int) and last["epoch"] >= epochs) or (isinstance(most, int) and 0 < most <= last["step"])


def progress(settings: Mapping[str, Any], history: Sequence[Mapping[str, float]]) -> str:
    """Return how far a training with these ``settings`` and this ``history`` has come, in words."""
    epochs = settings.get("epochs")
    return f"epoch {history[-1]['epoch'] if history else 0}" + (f" of {epochs}" if isinstance(epochs, int) else "")


def names_of(folders: Sequence[Path]) -> list[str]:
    """Return the shortest ends of paths that tell ``folders`` apart.

    Raises:
        InputError: Two paths lead to the same folder.
    """
    paths = [folder.resolve() for folder in folders]
    for path, count in Counter(paths).items():
        require(count == 1, f"{path} is named {count} times: name every run once")
    for length in range(1, max((len(path.parts) for path in paths), default=1) + 1):
        names = ["/".join(path.parts[-length:]) for path in paths]
        if len(set(names)) == len(names):
            break
    return names


def compare_runs(folders: Sequence[PathLike]) -> Comparison:
    """Compare runs by their files: the settings that differ, the main figures and the curves.

    Settings that say where a run is are left out, and so are those of one script alone if the runs are of different
    scripts. The figures are the metrics of the last epoch and of the best one, and all numbers of the results. The best
    epoch is that of the metric that all runs have monitored; if there is none, that with the lowest validation loss, or
    training loss, that all have.

    Args:
        folders: The folders of two runs or more.

    Raises:
        InputError: There are fewer runs, one is named twice, or a folder is not that of a run.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from torchdl.recipes.run_comparison import compare_runs
        >>> folders = [Path(tempfile.mkdtemp(suffix=name)) for name in ("-first", "-second")]
        >>> for folder, lr in zip(folders, (0.1, 0.2)):
        ...     _ = (folder / "config.json").write_text('{"config": {"lr": %f, "epochs": 2}}' % lr)
        ...     _ = (folder / "metrics.csv").write_text("epoch,step,val/loss\\n1,5,3.0\\n2,10,%f\\n" % lr)
        >>> found = compare_runs(folders)
        >>> found.settings, found.figures
        ({'lr': [0.1, 0.2]}, {'last epoch': [2, 2], 'val/loss, last epoch': [0.1, 0.2]})
    """
    paths = [Path(folder) for folder in folders]
    require(len(paths) >= 2, "a comparison needs two runs or more: name their folders")
    for path in paths:
        if path.is_dir() and not (path / CONFIG).exists() and any((each / CONFIG).exists() for each in path.iterdir()):
            raise InputError(f"{path} holds runs, and is none itself: name the folders of the runs, such as {path}/*")
    runs = [read_run(path) for path in paths]
    notes = [note for run in runs for note in run.notes]
    settings: dict[str, list[Any]] = {
        name: [run.settings.get(name) for run in runs]
        for name in dict.fromkeys(n for run in runs for n in run.settings)
    }
    scripts = sorted({run.script for run in runs})
    if len(scripts) > 1:
        shared = {name for name in settings if all(name in run.settings for run in runs)}
        left_out = len(settings) - len(shared)
        notes.append(f"these are runs of {' and '.join(scripts)}: {left_out} settings that not all have are left out")
        settings = {name: values for name, values in settings.items() if name in shared}
    differing = {name: values for name, values in settings.items() if any(value != values[0] for value in values)}
    for part in ("origin", "held_out_origin"):  # another place of the same data is no difference
        if f"data.{part.replace('origin', 'fingerprint')}" not in differing:
            differing.pop(f"data.{part}", None)
    return Comparison(dict(zip(names_of(paths), runs, strict=True)), differing, figures_of(runs), notes)


def figures_of(runs: Sequence[RunSummary]) -> dict[str, list[float | None]]:
    """Return the figures of runs, the main ones first: results, and metrics of the last and the best epoch."""
    last = [run.history[-1] if run.history else {} for run in runs]
    metric, mode = criterion(runs)
    best = [best_epoch(run.history, metric, mode) for run in runs]
    figures: dict[str, list[float | None]] = {"last epoch": [row.get("epoch") for row in last]}
    kinds = {"last epoch": last}
    if metric and best != last:
        kinds["best epoch"] = best
        figures[f"best epoch ({'highest' if mode == 'max' else 'lowest'} {metric})"] = [
            row.get("epoch") for row in best
        ]
    metrics = [n for n in dict.fromkeys(name for row in (*last, *best) for name in row) if "/" in n and is_main(n)]
    validated = [name for name in metrics if not name.startswith("train/")]
    results = list(dict.fromkeys(name for run in runs for name in run.results))
    upper = [name for name in results if " / " not in name]
    for name in [*upper, *validated, *results, *metrics]:  # whatever is in an earlier one keeps its place
        if name in results:
            figures[name] = [run.results.get(name) for run in runs]
        else:
            figures |= {f"{name}, {kind}": [row.get(name) for row in rows] for kind, rows in kinds.items()}
    return figures


def criterion(runs: Sequence[RunSummary]) -> tuple[str, str]:
    """Return the metric that tells the best epoch of all ``runs``, and whether it is "min" or "max"; or two ""."""
    monitored = {(str(run.settings.get("monitor", "")), str(run.settings.get("mode", "min"))) for run in runs}
    candidates = [*monitored] if len(monitored) == 1 else []
    for metric, mode in (*candidates, ("val/loss", "auto"), ("train/loss", "auto")):
        if metric and all(any(metric in row for row in run.history) for run in runs if run.history):
            return metric, direction(metric, mode)
    return "", ""


def best_epoch(history: Sequence[Mapping[str, float]], metric: str, mode: str) -> Mapping[str, float]:
    """Return the epoch with the best value of a metric, the first of several; an empty one if none has a number.

    ``history`` is the training's, and ``mode`` is ``min`` or ``max``, whichever is best.
    """
    rows = [row for row in history if math.isfinite(row.get(metric, math.nan))]
    return (max if mode == "max" else min)(rows, key=lambda row: row[metric], default={})
