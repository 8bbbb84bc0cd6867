"""What ``config.json`` says of where a run began, so that it finds its files again from another working folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torchdl.data.sources import names

WORKING_FOLDER = "working_folder"  # the key in config.json


def working_folder(folder: Path, record: Mapping[str, Any]) -> Path:
    """Return the folder to which a run's relative paths are relative; runs from before 0.3 have not recorded it."""
    recorded = record.get(WORKING_FOLDER)
    if isinstance(recorded, str) and os.path.isdir(recorded):
        return Path(recorded)
    config = record.get("config")
    options = config.get("run") if isinstance(config, dict) else None
    out = Path(str(options.get("out", ""))) if isinstance(options, dict) else Path()
    runs, *above = (*folder.resolve().parents[1:], Path())  # the run is in <out>/<experiment>/<name>
    known = not out.is_absolute() and len(out.parts) <= len(above) and runs.parts[-len(out.parts) :] == out.parts
    return above[len(out.parts) - 1] if out.parts and known else Path()


def located(path: str, folder: Path, record: Mapping[str, Any]) -> str:
    """Return a path that a run has recorded as it is reached from here; others stay as they are."""
    here, place = Path(path), working_folder(folder, record) / path
    # os.path.exists is false, too, for a name that no file system takes
    elsewhere = os.path.exists(place) and not (os.path.exists(here) and here.samefile(place))
    return str(place.absolute()) if path and elsewhere else path


def located_dataset(name: str, folder: Path, record: Mapping[str, Any]) -> str:
    """Return the name of a data set that a run has recorded; if it is a folder, as it is reached from here."""
    return name if name in names() else located(name, folder, record)
