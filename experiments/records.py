"""Records of results, one per experiment and seed, and the reading of figures (numbers) from a run's folder."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import msgspec

from experiments.registry import Experiment, Figure
from torchdl import files
from torchdl.errors import InputError
from torchdl.files import CONFIG, read_json, replacing, write_json

LARGEST_PICTURE = 200_000  # bytes


class Started(TypedDict):
    """What every record has."""

    experiment: str
    seed: int
    settings: str
    finished: bool


class Record(Started, total=False):
    """What others read of a record."""

    code: str | None
    seconds: float | None
    figures: dict[str, dict[str, float | list[float]]]
    failed: str
    machine: dict[str, Any]
    versions: dict[str, str]


def read_record(path: Path) -> dict[str, Any]:
    """Read the record of one experiment and seed; raise :class:`InputError` if the file is damaged."""
    read_json(path, Record)
    return dict(read_json(path))  # with all its keys


@dataclass
class Records:
    """The records in a JSON file, which is rewritten at each change."""

    path: Path
    kept: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def load(cls, path: Path) -> Records:
        """Read the file; without a file there are no records.

        Raises:
            InputError: It is damaged.
        """
        if not path.exists():
            return cls(path)
        try:
            read_json(path, list[Record])
        except InputError as error:
            raise InputError(f"{error}: take its last version from git, or remove it") from error
        return cls(path, read_json(path))  # with all their keys

    def find(self, experiment: str, seed: int) -> dict[str, Any] | None:
        """Return the record of an experiment with a seed."""
        return next((r for r in self.kept if (r["experiment"], r["seed"]) == (experiment, seed)), None)

    def put(self, *records: dict[str, Any]) -> None:
        """Keep records in place of earlier ones of the same experiments and seeds."""
        for record in records:
            known = self.find(record["experiment"], record["seed"])
            if known is None:
                self.kept.append(record)
            else:
                self.kept[self.kept.index(known)] = record
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, self.kept)

    def is_finished(self, experiment: Experiment, seed: int) -> bool:
        """Return whether an experiment is finished with these settings, and all its figures are known."""
        known = self.find(experiment.name, seed)
        if known is None or not known["finished"] or known["settings"] != experiment.settings:
            return False
        return {figure.metric for figure in experiment.figures} <= set(known["figures"])

    def is_older(self, experiment: Experiment, seed: int, code: str) -> bool:
        """Return whether an experiment's record was measured with other code, or its code was not recorded."""
        known = self.find(experiment.name, seed)
        return known is not None and known.get("code", "") != code


# A run's folder


def look_up(value: Any, key: Sequence[str | int]) -> list[float]:
    """Follow a key into JSON values; return the number or numbers there as a list."""
    for part in key:
        value = value[part]
    return msgspec.convert(value if isinstance(value, list) else [value], list[float])


def read_figure(folder: Path, figure: Figure) -> dict[str, Any]:
    """Read a figure's ``value`` from a run's folder, and its ``reference`` if the run measured that, too.

    Lists are averaged; ``values`` has the list if it has one value per seed.

    Raises:
        InputError: The file is missing or damaged, or has no such number.
    """
    path = folder / figure.file
    keys = {"value": figure.key} | ({"reference": figure.reference_key} if figure.reference_key else {})
    try:
        if path.suffix == ".csv":
            rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
            (column,) = figure.key
            found = {"value": [float([row[str(column)] for row in rows if row[str(column)]][-1])]}
        else:
            values = read_json(path)
            found = {name: look_up(values, key) for name, key in keys.items()}
        scaled = {name: [figure.scale * each for each in values] for name, values in found.items()}
        means = {name: sum(values) / len(values) for name, values in scaled.items()}
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): it should have {figure.metric!r}") from error
    except InputError as error:
        raise InputError(f"{error}: it should have {figure.metric!r}") from error
    except (ValueError, LookupError, TypeError, ArithmeticError, csv.Error) as error:
        raise InputError(f"{path} has no {'/'.join(map(str, figure.key))!r} for {figure.metric!r}") from error
    return {**means, "values": scaled["value"]} if figure.of_seeds else means


def read_config(folder: Path) -> dict[str, Any]:
    """Read a run's ``config.json``; scripts that train nothing write none."""
    return files.read_config(folder) if (folder / CONFIG).exists() else {}


def is_fallback(config: dict[str, Any]) -> bool:
    """Return whether a run used fallback data in place of the data that was asked for."""
    return bool(config.get("data", {}).get("stand_in"))


def fingerprints(config: dict[str, Any]) -> dict[str, str]:
    """Return the fingerprints of a run's data."""
    return {key: value for key, value in config.get("data", {}).items() if key.endswith("fingerprint")}


def copy_picture(source: Path, target: Path, most: int = LARGEST_PICTURE) -> None:
    """Copy a PNG; if it has more than ``most`` bytes, reduce its colours and then its pixels."""
    from torchdl.pictures import open_picture  # imported late, with PyTorch: few jobs need it

    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)
        scale = 1.0
        while temporary.stat().st_size > most:
            with open_picture(source) as image:
                size = [max(1, round(scale * side)) for side in image.size]
                image.convert("RGB").resize(size).quantize(128).save(temporary, format="png", optimize=True)
            scale *= 0.8
