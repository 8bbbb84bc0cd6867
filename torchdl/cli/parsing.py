"""Parse a script's command line: renamed options still work, and a resumed run's options are the defaults."""

from __future__ import annotations

import dataclasses
import itertools
import os
import sys
import typing
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import msgspec
import tyro
from tyro.conf import Positional as Positional

from torchdl.cli.options import RENAMED, RENAMED_FIELDS, RENAMED_VALUES
from torchdl.cli.printing import say
from torchdl.cli.record import located, located_dataset
from torchdl.data.delimited_files import TableFormat
from torchdl.errors import InputError, require
from torchdl.files import CONFIG, read_config

ConfigT = TypeVar("ConfigT")
NOTHING: Mapping[str, Any] = MappingProxyType({})


def parse(config_class: type[ConfigT], arguments: list[str]) -> ConfigT:
    """Parse the command line. With ``--resume RUN``, options that are not given keep that run's values."""
    arguments = spell_out(config_class, rename(config_class, arguments))
    require_file_option(config_class, arguments)
    default = None
    given = [a.removeprefix("--resume=") for a in arguments if a.startswith("--resume=")]
    given += [value for option, value in itertools.pairwise(arguments) if option == "--resume"]
    if given and not {"-h", "--help"} & set(arguments):
        default = defaults(config_class, Path(given[-1]))
    parsed = tyro.cli(config_class, args=arguments, default=default, config=(tyro.conf.OmitArgPrefixes,))
    typed = {argument.split("=")[0].replace("_", "-") for argument in arguments}
    if {"--epochs", "--max-steps"} <= typed and (steps := getattr(getattr(parsed, "trainer", None), "max_steps", 0)):
        say(f"--max-steps {steps} replaces --epochs")
    return typing.cast(ConfigT, parsed)


def defaults(config_class: type[ConfigT], run: Path) -> ConfigT:
    """Return the options of a run; raise :class:`InputError` if they are not those of this configuration."""
    record = read_config(run)
    try:
        return rebuild(config_class, record["config"], run, record)
    except (KeyError, TypeError, ValueError, AttributeError) as error:  # msgspec's error is a ValueError
        raise InputError(f"{run} is not a run of this script: its {CONFIG} has other options ({error})") from error


def rename(config_class: type[Any], arguments: list[str]) -> list[str]:
    """Replace old names of options and values by their new ones, and print a note for each."""
    known = option_names(config_class)
    renamed = []
    for argument in arguments:
        parts = argument.split("=", 1)  # --option=value, or one of the two
        for number, old in enumerate(parts):
            new = RENAMED_VALUES.get(old) or RENAMED.get(old.replace("_", "-"), "")
            if old in RENAMED_VALUES or (new in known and old not in known and number == 0):
                say(f"{old} is now {new}; the old name works until 0.3")
                parts[number] = new
        renamed.append("=".join(parts))
    return renamed


def require_file_option(config_class: type[Any], arguments: list[str]) -> None:
    """Raise :class:`InputError` for one's own file where it is not expected; the message names its option."""
    hints = typing.get_type_hints(config_class, include_extras=True)
    placed = {name for name, hint in hints.items() if tyro.conf.Positional in getattr(hint, "__metadata__", ())}
    options = option_names(config_class) - {f"--{name}" for name in placed}
    if "--csv" in {argument.split("=")[0] for argument in arguments} - options:
        require("csv" not in placed, "the table needs no option here: write its name without --csv")
        require("--dataset" not in options, "the option of one's own data is --dataset here, not --csv")
    option = next((name for name in ("--csv", "--dataset") if name in options), "")
    if option and placed <= {"experiment"} and arguments and os.path.exists(arguments[0]):
        raise InputError(f"{arguments[0]} has no option before it: write {option} {arguments[0]}")


def as_written(given: TableFormat, training: TableFormat) -> TableFormat:
    """Return how a file is written: as that of the training, but for the options on the command line."""
    options = {a.split("=")[0].removeprefix("--").removeprefix("no-") for a in sys.argv[1:] if a.startswith("--")}
    changed = {each.name: getattr(given, each.name) for each in dataclasses.fields(given) if each.name in options}
    return dataclasses.replace(training, **changed)


def spell_out(config_class: type[Any], arguments: list[str]) -> list[str]:
    """Give ``--option`` and ``--no-option`` their values True and False where tyro has no flag: for ``bool | None``."""
    hints = typing.get_type_hints(config_class)
    names = {f"--{name.replace('_', '-')}" for name, hint in hints.items() if hint == bool | None}
    spelled = []
    for argument, following in itertools.zip_longest(arguments, arguments[1:]):
        option = argument.replace("_", "-")
        if option in names and following not in ("True", "False", "None"):
            spelled += [option, "True"]
        elif option.startswith("--no-") and (positive := option.replace("--no-", "--", 1)) in names:
            spelled += [positive, "False"]
        else:
            spelled.append(argument)
    return spelled


def option_names(config_class: type[Any]) -> set[str]:
    """Return the names of all options of a configuration, those of nested configurations included."""
    names = set()
    hints = typing.get_type_hints(config_class)
    for field in dataclasses.fields(config_class):
        hint = hints[field.name]
        nested = isinstance(hint, type) and dataclasses.is_dataclass(hint)
        names |= option_names(hint) if nested else {f"--{field.name.replace('_', '-')}"}
    return names


def rebuild(
    config_class: type[ConfigT], values: dict[str, Any], folder: Path = Path(), record: Mapping[str, Any] = NOTHING
) -> ConfigT:
    """Build a configuration from the dictionary that ``dataclasses.asdict`` and JSON have made of it.

    An option may have moved into a part of the configuration since then, as ``encoding`` has into ``TableFormat``.

    Args:
        config_class: The configuration's class.
        values: The dictionary.
        folder: The run's folder.
        record: The whole content of its ``config.json``, which says to which folder relative paths are relative.
    """
    hints = typing.get_type_hints(config_class)
    parts = {
        option: name
        for name, hint in hints.items()
        if isinstance(hint, type) and dataclasses.is_dataclass(hint)
        for option in typing.get_type_hints(hint)
    }
    values, built = dict(values), {}
    for key in [key for key in values if key not in hints and RENAMED_FIELDS.get(key, key) not in hints]:
        new = RENAMED_FIELDS.get(key, key)
        if new in parts and (value := values.pop(key)) is not None:  # None was the default
            values[parts[new]] = {new: value, **values.get(parts[new], {})}
    for key, value in values.items():
        key = key if key in hints else RENAMED_FIELDS.get(key, key)
        hint = hints[key]
        if dataclasses.is_dataclass(hint):
            value = rebuild(typing.cast("type[Any]", hint), msgspec.convert(value, dict[str, Any]), folder, record)
        else:
            value = RENAMED_VALUES.get(value, value) if isinstance(value, str) else value
            value = convert(value, hint, key)
            if isinstance(value, Path):
                value = Path(located(str(value), folder, record))
            elif key == "dataset" and value is not None:
                value = located_dataset(value, folder, record)
        built[key] = value
    return config_class(**built)


def convert(value: Any, hint: Any, name: str) -> Any:
    """Convert an option's value in JSON to its type; raise :class:`InputError` if it is of another type."""
    paths = {Path: str, Path | None: str | None}  # JSON has no paths
    try:
        found = msgspec.convert(value, paths.get(hint, hint))
    except msgspec.ValidationError as error:
        raise InputError(f"{name}: {error}") from error
    return Path(found) if hint in paths and found is not None else found
