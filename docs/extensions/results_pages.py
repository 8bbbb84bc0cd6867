"""Directives that show what was measured, from ``experiments/``: the pages of results hold no table by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from sphinx.application import Sphinx

from experiments import leaving_chance
from experiments.plan import Plan, hashes
from experiments.records import Records
from experiments.registry import AREAS, Experiment
from experiments.tables import duration, lay_out, make_rows, measured, not_run_lines, short_by, sourced_reference

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ROOT / "experiments" / "pictures"
FROM_PAGES = "../../experiments/pictures"  # as docs/results sees it


@cache
def all_rows() -> list[dict[str, Any]]:
    """Return the rows of RESULTS.md."""
    plan = Plan(ROOT)
    experiments = plan.registry.experiments
    return make_rows(experiments, Records.load(plan.place.records).kept, hashes(experiments))


def reference(row: Mapping[str, Any]) -> str:
    """Return a row's reference with its source, and by how much the row is worse."""
    by = short_by(row)
    return "; ".join(filter(None, [sourced_reference(row), f"{by}: {row['note']}" if by and row["note"] else by]))


def details(experiment: Experiment, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return an experiment in Markdown, folded: its figures, its commands and its pictures."""
    title = f"{experiment.system}, {experiment.data}"
    title += f": {rows[0]['metric']} {measured(rows[0])}" if rows else ""
    lines = [f":::{{dropdown}} {title}"]
    if rows:
        cells = [(row["metric"], measured(row), reference(row)) for row in rows]
        lines += [lay_out(("metric", "result", "reference"), cells), ""]
    lines += ["```console", *(f"$ python scripts/{line}" for line in experiment.typed), "```", ""]
    if rows:
        seeds = ", ".join(map(str, rows[0]["seeds"]))
        lines += [f"{duration(rows[0]['seconds'])} per run; seeds {seeds}; {'; '.join(rows[0]['machines'])}.", ""]
    for picture in (f"{experiment.name}-{Path(path).stem}" for path in experiment.pictures):
        if (PICTURES / f"{picture}.png").is_file():
            lines += [f"![{picture.replace('-', ' ').replace('_', ' ')}]({FROM_PAGES}/{picture}.png)", ""]
    return [*lines, ":::", ""]


def area_text(area: str) -> list[str]:
    """Return an area's results in Markdown: a line with the main figure for each experiment, which opens."""
    lines = ["Each line opens: all figures, the commands, the machine and the pictures.", ""]
    for each in (each for each in Plan(ROOT).registry.experiments if each.area == area):
        rows = [row for row in all_rows() if row["experiment"] == each.name]
        lines += details(each, rows) if rows or each.pictures else []
    return lines


class Results(Directive):
    """The results of an area, such as ``cpc``."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the area's tables."""
        if self.arguments[0] not in AREAS:
            raise self.error(f"there is no area {self.arguments[0]}: choose from {', '.join(AREAS)}")
        return parsed(self, area_text(self.arguments[0]))


class LeavingChance(Directive):
    """The steps until CPC's original loss leaves chance."""

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        return parsed(self, leaving_chance.table(json.loads(leaving_chance.RESULTS.read_text())).splitlines())


class NotMeasured(Directive):
    """What is in no table for lack of data."""

    def run(self) -> list[nodes.Node]:
        """Return a list."""
        return parsed(self, not_run_lines(Plan(ROOT).registry.not_run))


def parsed(directive: Directive, lines: list[str]) -> list[nodes.Node]:
    """Return lines of Markdown as nodes."""
    inside = nodes.container()
    inside.document = directive.state.document
    directive.state.nested_parse(StringList(lines, "experiments"), 0, inside)
    return list(inside.children)


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the directives."""
    app.add_directive("results", Results)
    app.add_directive("leaving-chance", LeavingChance)
    app.add_directive("not-measured", NotMeasured)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
