"""The tables say what the records say, and nothing else."""

from __future__ import annotations

import functools
import json
import re
import statistics
from dataclasses import replace

import pytest
from helpers.registry import ROOT

import torchdl
from experiments.plan import hashes
from experiments.records import Records
from experiments.registry import Experiment, Figure, NotRun, Script, load
from experiments.tables import (
    BEGIN,
    END,
    OLDER,
    make_rows,
    measured,
    number,
    plain_reference,
    short_table,
    shortfall,
    write_into,
    write_results,
)

READ, CPC, GAN = (Script(f"train_{name}.py", "", "") for name in ("text", "cpc", "gan"))
PROBE = Script("probe_cpc.py", "{before}", "{before}")
REGISTRY = load()
MAIN = Figure("accuracy, %", ("a",), reference=98, source="the | course", note="nothing helped")
ERROR = Figure("RMSE", ("e",), False, None, "means", ("m",), digits=4)
ONE = Experiment(
    "one",
    "text",
    "a reader",
    "texts",
    ("train_text.py",),
    ("",),
    (MAIN, ERROR),
    1,
    (READ,),
    (),
    (0, 1, 2),
    lesson="20_texts",
)
NOW = dict.fromkeys(("one", "two", "three"), "now")
TWO = Experiment("two", "cpc", "CPC", "digits", ("train_cpc.py", "probe_cpc.py"), ("", ""), (MAIN,), 1, (CPC, PROBE))
THREE = Experiment("three", "gan", "a GAN", "digits", ("train_gan.py",), ("",), (MAIN,), 1, (GAN,))


def record(experiment: Experiment, seed: int, **values: tuple[float, ...]) -> dict:
    names = {"accuracy": MAIN.metric, "rmse": ERROR.metric}
    return {
        "experiment": experiment.name,
        "seed": seed,
        "settings": experiment.settings,
        "code": "now",
        "finished": True,
        "seconds": 10.0 + seed,
        "figures": {names[k]: dict(zip(("value", "reference"), v, strict=False)) for k, v in values.items()},
        "parameters": 5,
        "commit": "abc",
        "versions": {"torch": "2.14"},
        "machine": {"cpu": "a CPU", "instructions": "AVX2", "cores": 2, "threads": 1},
    }


RECORDS = [
    record(ONE, 0, accuracy=(97.0,), rmse=(0.5, 0.6)),
    record(ONE, 2, accuracy=(98.5,), rmse=(0.8, 0.7)),
    record(ONE, 7, accuracy=(11.0,), rmse=(9.0, 9.0)),  # no seed of the experiment
    record(TWO, 0, accuracy=(99.0,)),
    {**record(THREE, 0, accuracy=(99.0,)), "settings": "other"},
]


def rows_of(experiments, records, **options) -> list[dict]:
    return make_rows(experiments, records, NOW, **options)


def test_rows_have_the_values_of_the_seeds_their_mean_and_deviation():
    rows = rows_of([TWO, ONE, THREE], RECORDS)
    assert [(row["experiment"], row["metric"]) for row in rows] == [
        ("two", MAIN.metric),
        ("one", MAIN.metric),
        ("one", ERROR.metric),
    ]
    _, first, second = rows
    assert (first["seeds"], first["values"]) == ([0, 2], [97.0, 98.5])
    assert first["mean"] == pytest.approx(97.75)
    assert first["std"] == pytest.approx(statistics.stdev([97.0, 98.5]))
    assert (first["reference"], first["reference_source"]) == (98, "the | course")
    assert second["reference"] == pytest.approx(0.65)
    assert (rows[0]["std"], rows[0]["seconds"], rows[0]["parameters"]) == (None, 10.0, 5)
    assert rows[0]["command"] == "python scripts/train_cpc.py && python scripts/probe_cpc.py RUN"
    wanted = "system data metric higher_is_better reference reference_source values mean std seconds parameters command"
    assert set([*wanted.split(), "commit", "versions", "machines"]) <= set(first)


def test_a_run_that_goes_through_several_seeds_makes_a_row_of_them():
    figure = Figure("accuracy, %", ("a",), of_seeds=True)
    sweep = Experiment("sweep", "gan", "every GAN", "digits", ("sweep_gan.py",), ("",), (figure,), 1, (GAN,))
    kept = {**record(sweep, 0), "figures": {figure.metric: {"value": 98.0, "values": [97.0, 98.0, 99.0]}}}
    (row,) = rows_of([sweep], [kept])
    assert (row["seeds"], row["values"], row["mean"], row["std"]) == ([0, 1, 2], [97.0, 98.0, 99.0], 98.0, 1.0)


@pytest.mark.parametrize(
    ("mean", "reference", "higher", "short"),
    [
        (97.75, 98, True, 0.25),
        (98.004, 98, True, 0),
        (97.996, 98, True, 0),  # as shown, 98.00
        (0.5, 0.4, False, 0.1),
        (0.4, 0.5, False, 0),
        (0.4, None, False, 0),
        (0.4, 0.5, None, 0.1),
        (0.6, 0.5, None, 0.1),
        (0.501, 0.499, None, 0),
    ],
)
def test_what_falls_short_is_what_is_worse_as_shown(mean, reference, higher, short):
    row = {"mean": mean, "values": [mean], "reference": reference, "higher_is_better": higher, "digits": 2}
    assert shortfall({**row, "goal": True}) == pytest.approx(short)
    assert shortfall({**row, "goal": False}) == 0


def test_values_on_both_sides_of_their_reference_do_not_make_up_for_one_another():
    row = {"mean": 0.5, "values": [0.2, 0.8], "reference": 0.5, "higher_is_better": None, "digits": 2, "goal": True}
    assert shortfall(row) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(97.25, 1, "97.2"), (0.00415, 5, "0.00415"), (None, 2, ""), (3.6e-15, 15, "3.6e-15"), (0.0, 15, "0." + 15 * "0")],
)
def test_numbers_are_written_with_their_digits(value, digits, text):
    assert number(value, digits) == text


def test_a_figure_may_be_compared_with_another_experiments():
    beside = replace(TWO, figures=(replace(MAIN, reference=0.5, reference_of="one", source="a reader, and a half"),))
    one, two = (row for row in rows_of([ONE, beside], RECORDS) if row["metric"] == MAIN.metric)
    assert (one["reference"], two["reference"]) == (98, 97.75 + 0.5)
    (alone,) = rows_of([beside], RECORDS)
    assert (alone["reference"], shortfall(alone)) == (None, 0)


def test_a_reference_measured_for_an_earlier_form_of_the_figure_does_not_count():
    """A record of a figure that was compared in its own run, and now is with another experiment."""
    beside = replace(TWO, figures=(replace(MAIN, reference=None, reference_of="one"),))
    stale = {**record(TWO, 0), "figures": {MAIN.metric: {"value": 99.0, "reference": 50.0}}}
    (row,) = (row for row in rows_of([ONE, beside], [*RECORDS[:2], stale]) if row["experiment"] == "two")
    assert row["reference"] == 97.75
    assert plain_reference(row) == "97.75"
    given = replace(TWO, figures=(replace(MAIN, reference=98),))
    (row,) = rows_of([given], [stale])
    assert (row["reference"], row["reference_measured"]) == (98, False)


def test_the_ratings_network_is_compared_with_matrix_factorisation():
    (row,) = (row for row in kept_rows() if row["experiment"] == "ratings-network")
    assert plain_reference(row) == "0.8470"


@pytest.mark.parametrize("code", ["earlier", None])
def test_what_was_measured_by_older_code_is_marked_and_explained(tmp_path, code):
    older = {**RECORDS[1], "code": code}
    if code is None:
        del older["code"]  # as in records of before hashes were kept
    rows = rows_of([ONE, TWO], [RECORDS[0], older, RECORDS[3]])
    assert [row["older"] for row in rows] == [True, True, False]
    assert measured(rows[0]) == f"97.75 ± 1.06 {OLDER}"
    assert measured(rows[2]) == "99.00 (seed 0)"
    write_results(tmp_path / "RESULTS.md", rows, [ONE, TWO], {})
    text = (tmp_path / "RESULTS.md").read_text()
    assert re.search(rf"^{OLDER} .*older.*\n.*--again", text, re.MULTILINE)
    assert text.count(f" {OLDER} |") == 1  # the main figure
    assert short_table(rows, [ONE, TWO]).splitlines()[-1].startswith(f"{OLDER} ")
    write_results(tmp_path / "RESULTS.md", rows[2:], [ONE, TWO], {})
    assert OLDER not in (tmp_path / "RESULTS.md").read_text()


def test_the_tables_have_the_main_figure_of_each_system_with_its_command_and_say_what_falls_short(tmp_path):
    rows = rows_of([ONE, TWO, THREE], RECORDS)
    lacking = {"three": "mnist was not found: put it there"}
    more = [NotRun("a fourth", "train_cpc.py", "fetch it")]
    write_results(tmp_path / "RESULTS.md", rows, [ONE, TWO, THREE], lacking, more)
    text = (tmp_path / "RESULTS.md").read_text()
    assert text.index("## Contrastive") < text.index("## Texts")
    assert "## Generative" not in text.replace("- three", "")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 2 * 2 + 2
    (accuracy,) = [line for line in lines if "a reader" in line]
    end = r"| 97.75 ± 1.06 | 98 (the \| course); **short by 0.25** | `python scripts/train_text.py` |"
    assert accuracy == f"| a reader, texts | accuracy, % {end}"
    assert "RMSE" not in text
    assert "| 99.00 (seed 0) | 98 (the" in text
    assert "- three (`train_gan.py`): mnist was not found: put it there\n- a fourth (`train_cpc.py`): fetch it" in text
    assert "11.00" not in text
    assert text.count("Measured on a CPU (AVX2), PyTorch 2.14.\n") == 2


@pytest.mark.parametrize(("jobs", "end"), [(1, ""), (3, ", 3 at a time")])
def test_the_machine_is_described_with_how_many_were_at_work_where_there_were_several(jobs, end):
    records = [{**r, "machine": {**r["machine"], "jobs": jobs}} for r in RECORDS]
    assert rows_of([ONE], records)[0]["machines"] == [f"a CPU (AVX2), 1 of 2 cores, PyTorch 2.14{end}"]


def test_an_area_names_every_processor_it_was_measured_on(tmp_path):
    elsewhere = [("two", 0), ("one", 2)]  # one of two seeds of ONE, and all of TWO
    records = [
        {**r, "machine": {**r["machine"], "gpu": "a GPU"}} if (r["experiment"], r["seed"]) in elsewhere else r
        for r in RECORDS
    ]
    rows = [row for row in rows_of([ONE, TWO], records) if row["metric"] == MAIN.metric]
    write_results(tmp_path / "RESULTS.md", rows, [ONE, TWO], {})
    text = (tmp_path / "RESULTS.md").read_text()
    assert "Measured on a CPU (AVX2), a GPU, PyTorch 2.14." in text.split("## Texts")[0]


def test_quick_rows_never_come_into_the_main_tables(tmp_path):
    rows = rows_of([ONE], RECORDS, quick=True)
    assert all(row["quick"] and row["data"] == "made up" for row in rows)
    with pytest.raises(torchdl.InputError, match="quick"):
        write_results(tmp_path / "RESULTS.md", rows, [ONE], {})
    assert not list(tmp_path.iterdir())


def test_without_records_there_are_no_tables_but_a_list(tmp_path):
    write_results(tmp_path / "RESULTS.md", [], [ONE], {})
    text = (tmp_path / "RESULTS.md").read_text()
    assert "|" not in text
    assert "- one (`train_text.py`): not run yet" in text
    assert short_table([], [ONE]) == ""


def test_the_short_table_has_the_main_figures_of_what_lessons_are_about():
    table = short_table(rows_of([ONE, TWO], RECORDS), [ONE, TWO])
    linked = "[a reader, texts](RESULTS.md#texts) | [20](docs/lessons/20_texts.py)"
    assert table.splitlines()[2:] == [f"| {linked} | `train_text.py` | accuracy, %: 97.75 ± 1.06 |"]


def test_a_table_is_put_between_the_markers_and_nothing_else_changes(tmp_path):
    path = tmp_path / "README.md"
    path.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    assert write_into(path, "| new |")
    assert path.read_text() == f"before\n{BEGIN}\n| new |\n{END}\nafter\n"
    assert write_into(path, "| new |")
    assert path.read_text() == f"before\n{BEGIN}\n| new |\n{END}\nafter\n"
    path.write_text("no markers")
    assert not write_into(path, "x")
    assert not write_into(tmp_path / "none.md", "x")
    assert path.read_text() == "no markers"


@pytest.mark.parametrize("text", [BEGIN, END, f"{END}{BEGIN}", f"{BEGIN}{END}{BEGIN}{END}"])
def test_markers_that_do_not_fit_are_refused(tmp_path, text):
    path = tmp_path / "README.md"
    path.write_text(text)
    with pytest.raises(torchdl.InputError, match=r"README\.md"):
        write_into(path, "x")
    assert path.read_text() == text


# what is in this repository


@functools.cache
def kept_rows() -> list[dict]:
    records = json.loads((ROOT / "experiments" / "records.json").read_text(encoding="utf-8"))
    return make_rows(REGISTRY.experiments, records, hashes(REGISTRY.experiments))


def numbers_in(table: str) -> list[str]:
    """List the numbers in the columns of figures and references of a short table, apart from how it is made."""
    cells = [line.rpartition(" | ")[2].rpartition(": ")[2] for line in table.splitlines()[2:]]
    return [n for cell in cells for n in re.findall(r"[-\d.]+(?:e-?\d+)?", cell) if n.strip(".-")]


def test_every_number_of_the_readmes_table_is_in_the_results():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = text.split(BEGIN)[1].split(END)[0].strip()
    known = {part for row in kept_rows() for part in numbers_in(f"\n\na | b: {measured(row)} |")}
    assert set(numbers_in(table)) <= known
    assert table == short_table(kept_rows(), REGISTRY.experiments)


def test_the_readmes_results_are_of_commits_without_changes():
    lessons = {experiment.name for experiment in REGISTRY.experiments if experiment.lesson}
    commits = {row["commit"] for row in kept_rows() if row["experiment"] in lessons}
    assert all(re.fullmatch(r"[0-9a-f]{10}(, [0-9a-f]{10})*", commit) for commit in commits)
    assert len(lessons) == 10


def test_the_readme_has_no_measured_number_outside_of_its_table():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.count("\n", 0, text.index(BEGIN)) < 70  # two screens or so come first
    text = text.split(BEGIN)[0] + text.split(END)[1]
    text = re.sub(r"```.*?```|^ {4}.*?$|`[^`]*`|Python 3\.10", "", text, flags=re.DOTALL | re.MULTILINE)
    assert re.findall(r"\d+(?:\.\d+| ?%| times| points| seconds| minutes)|±", text) == []


def test_a_number_that_is_not_in_the_results_would_be_found():
    assert numbers_in("h\n-\n| a 3 | b, %: 97.75 ± 1.06 (seed 4) |") == ["97.75", "1.06", "4"]


def test_the_tables_are_those_of_the_records(tmp_path):
    """After a change of code or records: ``python scripts/reproduce.py --tables``."""
    write_results(tmp_path / "RESULTS.md", kept_rows(), REGISTRY.experiments, {}, REGISTRY.not_run)
    assert (tmp_path / "RESULTS.md").read_text() == (ROOT / "RESULTS.md").read_text()


def test_no_record_has_been_lost():
    records = json.loads((ROOT / "experiments" / "records.json").read_text(encoding="utf-8"))
    finished = {(r["experiment"], r["seed"]) for r in records if r["finished"]}
    assert len(finished) >= 191
    wanted = {(e.name, seed): e for e in REGISTRY.experiments for seed in e.seeds}
    kept = Records(ROOT, records)
    assert [key for key, e in wanted.items() if key in finished and not kept.is_finished(e, key[1])] == []
