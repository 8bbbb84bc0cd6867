"""Write what was measured as rows, as tables for people, and as the README's short one."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torchdl.errors import require
from torchdl.files import replacing
from torchdl.training.experiments import AREAS, Experiment, Figure

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
HEAD = """# Results

Written by `python scripts/reproduce.py`, which runs each command below with each of the seeds, in a process of its own;
`results/results.json` has these numbers unrounded, one a seed, with the commit, the versions and the machine of each.
Mean ± sample standard deviation over the seeds; the number alone where there is one seed. A reference is what the
figure is to be compared with; where the mean falls short of it, it says by how much, and, where there is more to say,
why. In the commands `RUN` is the folder that the one before has left; `reproduce.py` adds the seed, a name and
`--out results/runs`, so that the judge is `train_lenet.py --dataset mnist --out results/runs --name judge-mnist-0`.
"""


def make_rows(
    experiments: Iterable[Experiment], records: Sequence[Mapping[str, Any]], quick: bool = False
) -> list[dict[str, Any]]:
    """Make a row for each figure of each experiment of which there are finished records, in the registry's order."""
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
                rows.append(make_row(experiment, figure, measured, quick))
    means = {(row["experiment"], row["metric"]): row["mean"] for row in rows}
    for row in rows:
        if (of := row.pop("reference_of")) and (mean := means.get((of, row["metric"]))) is not None:
            row["reference"] = mean + (row["reference"] or 0)
        elif of:
            row["reference"] = None  # it was not run
    return rows


def make_row(
    experiment: Experiment, figure: Figure, records: Sequence[Mapping[str, Any]], quick: bool
) -> dict[str, Any]:
    """Make the row of a figure that was measured with some seeds."""
    found = [record["figures"][figure.metric] for record in records]
    values = [value for each in found for value in each.get("values", [each["value"]])]
    references = [each["reference"] for each in found if "reference" in each]
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
        "quick": quick,
    }


def shortfall(row: Mapping[str, Any]) -> float:
    """Say by how much a row's mean is worse than its reference, as both are shown; 0 where it is not.

    Where nearer is better, it is how far from the reference its values are, on the average.
    """
    if row["reference"] is None:
        return 0.0
    mean, reference = (round(row[key], row["digits"]) for key in ("mean", "reference"))
    if row["higher_is_better"] is None:
        return round(statistics.fmean(abs(value - row["reference"]) for value in row["values"]), row["digits"])
    return max(0.0, reference - mean if row["higher_is_better"] else mean - reference)


def number(value: float | None, digits: int) -> str:
    """Write a number with some digits after the point, without the zeros at its end where it has many."""
    if value is None:
        return ""
    if value != 0 and abs(value) < 10 ** (2 - digits) and digits > 6:
        return f"{value:.1e}"
    return f"{value:.{digits}f}"


def measured(row: Mapping[str, Any]) -> str:
    """Write a row's mean and deviation, or its one value and seed."""
    mean = number(row["mean"], row["digits"])
    return f"{mean} (seed {row['seeds'][0]})" if row["std"] is None else f"{mean} ± {number(row['std'], row['digits'])}"


def plain_reference(row: Mapping[str, Any]) -> str:
    """Write a row's reference: as it was given, or as the row is written where it was measured."""
    given = row["reference"]
    return "" if given is None else number(given, row["digits"]) if row["reference_measured"] else f"{given:g}"


def duration(seconds: float | None) -> str:
    """Write a time."""
    if seconds is None:
        return "?"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def lay_out(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Lay a Markdown table out."""
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)


def write_results(
    path: Path,
    rows: Sequence[Mapping[str, Any]],
    experiments: Sequence[Experiment],
    lacking: Mapping[str, str],
    pictures: Path,
    not_run: Sequence[tuple[str, str, str]] = (),
) -> None:
    """Write ``RESULTS.md``: a table an area, and what is not in them.

    Args:
        path: The file.
        rows: The rows.
        experiments: Every experiment.
        lacking: What to fetch, by the names of those that cannot be run without.
        pictures: The folder of the pictures, which are linked to where they are there.
        not_run: What is no experiment for want of data: the system, its command, what to fetch.
    """
    require(not any(row["quick"] for row in rows), "quick rows are no results: they have no place in the main tables")
    parts = [HEAD]
    machines = list(dict.fromkeys(machine for row in rows for machine in row["machines"]))
    if machines:
        numbered = [f"[{n}] {machine}" for n, machine in enumerate(machines, 1)] if len(machines) > 1 else machines
        parts.append(f"Measured on: {'; '.join(numbered)}.\n")
    for area, title in AREAS.items():
        own = [row for row in rows if row["area"] == area]
        of_area = {e.name: e for e in experiments if e.area == area}
        shown = [
            f"[{picture.stem}]({picture.relative_to(path.parent).as_posix()})"
            for name, e in of_area.items()
            for picture in (pictures / f"{name}-{Path(p).stem}.png" for p in e.pictures)
            if picture.exists()
        ]
        if not own and not shown:
            continue
        parts.append(f"## {title}\n")
        if own:
            parts.append(area_table(own, machines) + "\n")
        if shown:
            parts.append(f"Pictures: {', '.join(shown)}.\n")
    parts.append(what_is_not_there(rows, experiments, lacking, not_run))
    with replacing(path) as temporary:
        temporary.write_text("\n".join(part for part in parts if part).rstrip() + "\n", encoding="utf-8")


def machine_of(record: Mapping[str, Any]) -> str:
    """Describe the machine that a record was measured on."""
    machine = record["machine"]
    parts = [f"{machine['cpu']} ({machine['instructions']})", f"{machine['threads']} of {machine['cores']} cores"]
    parts += [machine["gpu"]] if "gpu" in machine else []
    parts += [f"PyTorch {record['versions']['torch']}"]
    parts += [f"{machine['jobs']} at a time"] if machine.get("jobs", 1) > 1 else []
    return ", ".join(parts)


def area_table(rows: Sequence[Mapping[str, Any]], machines: Sequence[str]) -> str:
    """Lay the rows of an area out; what is the same as in the row above is left out.

    Where there are several machines, each has its number.
    """
    header = ("system", "data", "metric", "here", "reference", "", "a run takes", "command")
    lines = []
    for before, row in zip([None, *rows], rows, strict=False):
        again = before is not None and before["experiment"] == row["experiment"]
        said = before is not None and again and before["note"] == row["note"] and shortfall(before) > 0
        short = shortfall(row)
        reference = plain_reference(row)
        if reference and row["reference_source"]:
            reference += f" ({row['reference_source']})"
        by = f"**{'off' if row['higher_is_better'] is None else 'short'} by {number(short, row['digits'])}**"
        note = by + (f": {row['note']}" if row["note"] and not said else "") if short else ""
        numbers = ", ".join(str(machines.index(machine) + 1) for machine in row["machines"])
        where = f" [{numbers}]" if len(machines) > 1 else ""
        same = [row["system"], row["data"], duration(row["seconds"]) + where, f"`{row['command']}`"]
        system, data, seconds, command = ["″", "″", "", "″"] if again else same
        lines.append([system, data, row["metric"], measured(row), reference, note, seconds, command])
    return lay_out(header, lines)


def what_is_not_there(
    rows: Sequence[Mapping[str, Any]],
    experiments: Sequence[Experiment],
    lacking: Mapping[str, str],
    not_run: Sequence[tuple[str, str, str]],
) -> str:
    """List the experiments with figures that have no row: for want of data, or because nobody has run them yet."""
    known = {row["experiment"] for row in rows}
    left = [e for e in experiments if e.figures and e.name not in known]
    lines = [
        f"- {e.name} (`{' && '.join(e.typed)}`): {lacking.get(e.name, 'not run yet')}"
        for e in sorted(left, key=lambda e: e.name not in lacking)
    ]
    lines += [f"- {system} (`{command}`): {fetch}" for system, command, fetch in not_run]
    if not lines:
        return ""
    return "\n".join(["## Not in these tables\n", *lines, ""])


def anchor(row: Mapping[str, Any]) -> str:
    """Link to the table that has a row."""
    title = AREAS[row["area"]].lower()
    return f"RESULTS.md#{''.join(c for c in title if c.isalnum() or c in ' -').replace(' ', '-')}"


def short_table(rows: Sequence[Mapping[str, Any]], experiments: Sequence[Experiment]) -> str:
    """Lay out the README's table: the main figure of each experiment that is a headline, with a link to its command."""
    main = {(e.name, e.figures[0].metric) for e in experiments if e.headline and e.figures}
    lines = [
        [f"[{row['system']}, {row['data']}]({anchor(row)})", row["metric"], measured(row), plain_reference(row)]
        for row in rows
        if (row["experiment"], row["metric"]) in main
    ]
    return lay_out(("system and data", "metric", "here", "reference"), lines) if lines else ""


def write_into(path: Path, table: str) -> bool:
    """Put a table between the markers of a file, which may be anywhere in it; whether it has markers.

    Raises:
        InputError: There is one marker without the other, or they are in the wrong order.
    """
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    counts = (text.count(BEGIN), text.count(END))
    if counts == (0, 0):
        return False
    right = counts == (1, 1) and text.index(BEGIN) < text.index(END)
    require(right, f"{path} must have {BEGIN} and then {END}, each once: mend the markers")
    before, rest = text.split(BEGIN)
    new = f"{before}{BEGIN}\n{table}\n{END}{rest.split(END)[1]}"
    if new != text:
        with replacing(path) as temporary:
            temporary.write_text(new, encoding="utf-8")
    return True
