"""Rows of results, and their tables: RESULTS.md, and the README's short one."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.registry import AREAS, Experiment, Figure, NotRun
from torchdl.errors import require
from torchdl.files import replacing

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
OLDER = "†"  # after a number that was measured by older code
HEAD = """# Results

`python scripts/reproduce.py` writes this file. It runs each command below once per seed, in a process of its own. It
also writes `results/results.json`, which has the unrounded number of each seed, the commit, the versions and the
machine. A number is the mean ± the sample standard deviation over the seeds; with one seed it is that seed's number. A
mean that does not reach a goal is short by the difference. In the commands, `RUN` is the folder of the previous
command; `reproduce.py` adds the seed, a name and `--out results/runs`. Each system has its main figure here. All
figures, with times, machines and pictures, are on the results pages that `make docs` writes.
"""
OLDER_SENTENCE = (
    f"{OLDER} measured with older code: the files that the commands import have changed since or were not recorded.\n"
    "`python scripts/reproduce.py --only NAME --again` runs the experiment again.\n"
)


def make_rows(
    experiments: Iterable[Experiment],
    records: Sequence[Mapping[str, Any]],
    code: Mapping[str, str] | None = None,
    quick: bool = False,
) -> list[dict[str, Any]]:
    """Make a row for each figure of each experiment with finished records, in the registry's order.

    Args:
        experiments: The experiments.
        records: The records.
        code: The current hash of each experiment's code, by its name; records with another hash are older.
        quick: Whether these are quick forms.
    """
    rows: list[dict[str, Any]] = []
    for experiment in experiments:
        of_seed = {r["seed"]: r for r in records if r["experiment"] == experiment.name and r["finished"]}
        finished = [
            of_seed[seed]
            for seed in experiment.seeds
            if seed in of_seed and of_seed[seed]["settings"] == experiment.settings
        ]
        for figure in experiment.figures:
            measured = [r for r in finished if figure.metric in r["figures"]]
            if measured:
                rows.append(make_row(experiment, figure, measured, (code or {}).get(experiment.name, ""), quick))
    means = {(row["experiment"], row["metric"]): row["mean"] for row in rows}
    for row in rows:
        if of := row.pop("reference_of"):
            mean = means.get((of, row["metric"]))
            row["reference"] = None if mean is None else mean + (row["reference"] or 0)
            row["reference_measured"] = mean is not None
    return rows


def make_row(
    experiment: Experiment, figure: Figure, records: Sequence[Mapping[str, Any]], code: str = "", quick: bool = False
) -> dict[str, Any]:
    """Make the row of a figure that was measured with some seeds."""
    found = [record["figures"][figure.metric] for record in records]
    values = [value for each in found for value in each.get("values", [each["value"]])]
    # a record may still have the reference that an earlier form of the figure measured
    references = [each["reference"] for each in found if "reference" in each] if figure.reference_key else []
    seconds = [record["seconds"] for record in records]

    def different(key: str) -> list[Any]:
        every = [record[key] for record in records]
        return [value for n, value in enumerate(every) if value not in every[:n]]

    return {
        "experiment": experiment.name,
        "area": experiment.area,
        "system": experiment.system,
        "data": "made up" if quick else experiment.data,
        "metric": figure.metric,
        "higher_is_better": figure.higher_is_better,
        "reference": statistics.fmean(references) if references else figure.reference,
        "reference_of": figure.reference_of,
        "goal": figure.goal,
        "reference_source": figure.source,
        "reference_measured": bool(references),
        "seeds": list(range(len(values))) if figure.of_seeds else [record["seed"] for record in records],
        "values": values,
        "mean": statistics.fmean(values),
        "std": statistics.stdev(values) if len(values) > 1 else None,
        "digits": figure.digits,
        "seconds": None if None in seconds else round(statistics.fmean(seconds), 1),
        "parameters": different("parameters")[-1],
        "command": " && ".join(f"python scripts/{line}" for line in experiment.typed),
        "note": figure.note,
        "commit": ", ".join(different("commit")),
        "versions": different("versions")[-1],
        "machines": list(dict.fromkeys(map(machine_of, records))),
        "processors": list(dict.fromkeys(name for record in records for name in processors_of(record))),
        "older": not quick and any(record.get("code", "") != code for record in records),
        "quick": quick,
    }


def shortfall(row: Mapping[str, Any]) -> float:
    """Return by how much a row's mean is worse than its goal, both rounded as shown; 0 if it is not worse.

    If nearer is better, return the mean distance of the values from the goal.
    """
    if row["reference"] is None or not row["goal"]:
        return 0.0
    mean, reference = (round(row[key], row["digits"]) for key in ("mean", "reference"))
    if row["higher_is_better"] is None:
        return round(statistics.fmean(abs(value - row["reference"]) for value in row["values"]), row["digits"])
    return max(0.0, reference - mean if row["higher_is_better"] else mean - reference)


def number(value: float | None, digits: int) -> str:
    """Return a number with ``digits`` after the point; a tiny one with over six digits in scientific notation."""
    if value is None:
        return ""
    if value != 0 and abs(value) < 10 ** (2 - digits) and digits > 6:
        return f"{value:.1e}"
    return f"{value:.{digits}f}"


def measured(row: Mapping[str, Any]) -> str:
    """Return a row's mean ± deviation, or its only value and seed, with a mark if it is older."""
    mean, std = number(row["mean"], row["digits"]), number(row["std"], row["digits"])
    found = f"{mean} ± {std}" if std else f"{mean} (seed {row['seeds'][0]})"
    return f"{found} {OLDER}" if row["older"] else found


def plain_reference(row: Mapping[str, Any]) -> str:
    """Return a row's reference as text: a given one as it is, a measured one with the row's digits."""
    given = row["reference"]
    return "" if given is None else number(given, row["digits"]) if row["reference_measured"] else f"{given:g}"


def sourced_reference(row: Mapping[str, Any]) -> str:
    """Return a row's reference as text, with its source."""
    reference = plain_reference(row)
    return f"{reference} ({row['reference_source']})" if reference and row["reference_source"] else reference


def short_by(row: Mapping[str, Any]) -> str:
    """Return by how much a row is worse than its goal as text; an empty text if it is not."""
    short = shortfall(row)
    word = "off" if row["higher_is_better"] is None else "short"
    return f"**{word} by {number(short, row['digits'])}**" if short else ""


def not_run_lines(not_run: Iterable[NotRun]) -> list[str]:
    """Return a list in Markdown of what is not an experiment for lack of data."""
    return [f"- {system} (`{command}`): {fetch}" for system, command, fetch in not_run]


def duration(seconds: float | None) -> str:
    """Return a time as text, in seconds or minutes."""
    if seconds is None:
        return "?"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def lay_out(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)


def write_results(
    path: Path,
    rows: Sequence[Mapping[str, Any]],
    experiments: Sequence[Experiment],
    lacking: Mapping[str, str],
    not_run: Sequence[NotRun] = (),
) -> None:
    """Write ``RESULTS.md``: a table of main figures for each area, and a list of the experiments that are in no table.

    Args:
        path: The file.
        rows: The rows.
        experiments: Every experiment.
        lacking: What is missing, by the names of the experiments that cannot be run without it.
        not_run: Parts of the course that are not experiments for lack of data.
    """
    require(not any(row["quick"] for row in rows), "quick rows are not results: they do not belong in the main tables")
    main = main_rows(rows, experiments)
    parts = [HEAD]
    if any(row["older"] for row in main):
        parts.append(OLDER_SENTENCE)
    for area, title in AREAS.items():
        own = [row for row in main if row["area"] == area]
        if own:
            parts.append(f"## {title}\n\nMeasured on {processors(own)}.\n\n{main_table(own)}\n")
    parts.append(what_is_not_there(rows, experiments, lacking, not_run))
    with replacing(path) as temporary:
        temporary.write_text("\n".join(part for part in parts if part).rstrip() + "\n", encoding="utf-8")


def main_rows(rows: Sequence[Mapping[str, Any]], experiments: Sequence[Experiment]) -> list[Mapping[str, Any]]:
    """Return the rows of the experiments' main figures."""
    main = {(e.name, e.figures[0].metric) for e in experiments if e.figures}
    return [row for row in rows if (row["experiment"], row["metric"]) in main]


def processors(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return the CPUs, GPUs and versions of PyTorch that rows were measured with."""
    names = dict.fromkeys(name for row in rows for name in row["processors"])
    return ", ".join(sorted(names, key=lambda name: name.startswith("PyTorch")))


def main_table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return a table of main figures."""
    lines = []
    for row in rows:
        reference = "; ".join(filter(None, [sourced_reference(row), short_by(row)]))
        system = f"{row['system']}, {row['data']}"
        lines.append([system, row["metric"], measured(row), reference, f"`{row['command']}`"])
    return lay_out(("system and data", "metric", "result", "reference", "command"), lines)


def machine_of(record: Mapping[str, Any]) -> str:
    """Describe the machine of a record."""
    machine = record["machine"]
    parts = [f"{machine['cpu']} ({machine['instructions']})", f"{machine['threads']} of {machine['cores']} cores"]
    parts += [machine["gpu"]] if "gpu" in machine else []
    parts += [f"PyTorch {record['versions']['torch']}"]
    parts += [f"{machine['jobs']} at a time"] if machine.get("jobs", 1) > 1 else []
    return ", ".join(parts)


def processors_of(record: Mapping[str, Any]) -> list[str]:
    """Return the CPU of a record, its GPU if it has one, and PyTorch with its version."""
    machine = record["machine"]
    gpu = [machine["gpu"]] if "gpu" in machine else []
    return [f"{machine['cpu']} ({machine['instructions']})", *gpu, f"PyTorch {record['versions']['torch']}"]


def what_is_not_there(
    rows: Sequence[Mapping[str, Any]],
    experiments: Sequence[Experiment],
    lacking: Mapping[str, str],
    not_run: Sequence[NotRun],
) -> str:
    """Return a list of the experiments with figures but without rows, and what each lacks."""
    known = {row["experiment"] for row in rows}
    left = [e for e in experiments if e.figures and e.name not in known]
    lines = [
        f"- {e.name} (`{' && '.join(e.typed)}`): {lacking.get(e.name, 'not run yet')}"
        for e in sorted(left, key=lambda e: e.name not in lacking)
    ]
    lines += not_run_lines(not_run)
    if not lines:
        return ""
    return "\n".join(["## Not in these tables\n", *lines, ""])


def anchor(row: Mapping[str, Any]) -> str:
    """Return the link to a row's table."""
    title = AREAS[row["area"]].lower()
    return f"RESULTS.md#{''.join(c for c in title if c.isalnum() or c in ' -').replace(' ', '-')}"


def short_table(rows: Sequence[Mapping[str, Any]], experiments: Sequence[Experiment]) -> str:
    """Return the README's table: the main figure of each experiment that a lesson is about."""
    lessons = {e.name: e.lesson for e in experiments if e.lesson}
    lines = []
    for row in main_rows(rows, experiments):
        if lesson := lessons.get(row["experiment"]):
            link = f"[{lesson.split('_')[0]}](docs/lessons/{lesson}.py)"
            scripts = [f"`{command.split()[1].removeprefix('scripts/')}`" for command in row["command"].split(" && ")]
            system = f"[{row['system']}, {row['data']}]({anchor(row)})"
            lines.append([system, link, ", ".join(dict.fromkeys(scripts)), f"{row['metric']}: {measured(row)}"])
    if not lines:
        return ""
    table = lay_out(
        ("system and data, with the command", "lesson", "scripts", "result"), sorted(lines, key=lambda line: line[1])
    )
    mark = f"\n\n{OLDER} measured with older code: see [RESULTS.md](RESULTS.md)."
    return table + mark if any(OLDER in line[-1] for line in lines) else table


def write_into(path: Path, table: str) -> bool:
    """Put a table between a file's markers; return whether it has markers.

    Raises:
        InputError: A marker is missing, repeated or in the wrong place.
    """
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    counts = (text.count(BEGIN), text.count(END))
    if counts == (0, 0):
        return False
    right = counts == (1, 1) and text.index(BEGIN) < text.index(END)
    require(right, f"{path} must have {BEGIN} and then {END}, each once: correct the markers")
    before, rest = text.split(BEGIN)
    new = f"{before}{BEGIN}\n{table}\n{END}{rest.split(END)[1]}"
    if new != text:
        with replacing(path) as temporary:
            temporary.write_text(new, encoding="utf-8")
    return True
