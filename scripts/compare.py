"""Compare trained runs: the settings that differ, the main figures, and the curves of all in one picture."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # torchdl of this clone, installed or not

from torchdl.cli.main import run_script
from torchdl.cli.parsing import Positional
from torchdl.files import require_suffix, write_table
from torchdl.recipes.run_comparison import Comparison, compare_runs

SHOWN = 16  # figures on the console


@dataclass(frozen=True)
class Config:
    """Compare runs by the files in their folders; nothing is trained and no data set is needed."""

    runs: Positional[tuple[Path, ...]]
    """The folders of the runs, two or more."""
    out: Path | None = None
    """The file for the comparison: .png for the curves, .csv for the whole table; if not given, it is printed."""
    forecasts: Path | None = None
    """The .png file for the forecasts of all runs, if they forecast the same series."""
    x: Literal["epoch", "step"] = "epoch"
    """The horizontal axis of the curves."""


def main(config: Config) -> None:
    """Read the runs, and print the comparison or save it."""
    if config.out is not None:
        require_suffix(config.out, ".png", ".csv")
    if config.forecasts is not None:
        require_suffix(config.forecasts, ".png")
    comparison = compare_runs(config.runs)
    if config.forecasts is not None:
        comparison.plot_forecasts(config.forecasts)
        print(f"forecasts of {len(comparison.runs)} runs: {config.forecasts}")
    if config.out is None:
        show(comparison)
    elif config.out.suffix.lower() == ".png":
        comparison.plot(config.x, config.out)
    else:
        write_table(config.out, comparison.to_frame())
    for note in comparison.notes:
        print(f"note: {note}")
    if config.out is not None:
        print(f"{len(comparison.runs)} runs: {config.out}")


def show(comparison: Comparison) -> None:
    """Print the settings that differ and the main figures."""
    different = {n: v for n, v in comparison.figures.items() if any(each != v[0] for each in v)}
    shown = dict(list(different.items())[:SHOWN])
    for title, rows in (("settings that differ", comparison.settings), ("figures that differ", shown)):
        print(f"{title}:\n{table(rows, list(comparison.runs))}\n" if rows else f"{title}: none\n")
    same = {n: v[0] for n, v in comparison.figures.items() if n not in different and " / " not in n}
    if same:
        print(f"the same in all: {', '.join(f'{name} {cell(value)}' for name, value in same.items())}")
    if len(different) > len(shown):
        print(f"{len(different) - len(shown)} more figures: --out table.csv")


def table(rows: Mapping[str, Sequence[Any]], names: Sequence[str]) -> str:
    """Return a table with a row per setting or figure and a column per run, as text as wide as the console."""
    import pandas  # imported late: it takes a second

    cells = pandas.DataFrame(
        [[cell(v, 36 if len(names) < 4 else 14) for v in values] for values in rows.values()], list(rows), names
    )
    return cells.to_string(line_width=shutil.get_terminal_size((120, 24)).columns)


def cell(value: Any, width: int = 36) -> str:
    """Return a value as text of at most ``width`` characters."""
    text = "-" if value is None else f"{value:.5g}" if isinstance(value, float) else str(value)
    return text if len(text) <= width else f"{text[: width - 1]}…"


if __name__ == "__main__":
    run_script(main, Config)
