"""What builds the site's pages: the API from the code, results from the records, notebooks from lessons."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib.pyplot as plt
import pytest
from PIL import Image

import torchdl

pytest.importorskip("sphinx", reason="needs torchdl[docs]")
pytest.importorskip("pypandoc", reason="needs torchdl[docs]")

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def extension(monkeypatch) -> Any:
    """Import a module of docs/extensions by its name."""
    monkeypatch.syspath_prepend(DOCS / "extensions")
    return importlib.import_module


def test_the_api_lists_every_public_name_once(extension):
    api = extension("api_pages")
    names = [name for area in api.AREAS for name in api.names_of(area)]
    found = [id(api.find(name)) for name in names]
    assert len(found) == len(set(found))
    listed = {id(getattr(importlib.import_module(module), name)) for module, name in api.explained()} | set(found)
    modules = [
        torchdl,
        *(getattr(torchdl, name) for name in torchdl.__all__ if isinstance(getattr(torchdl, name), ModuleType)),
    ]
    public = [(each, name) for each in modules for name in getattr(each, "__all__", []) if each is not torchdl.recipes]
    left = [name for each, name in public if id(getattr(each, name)) not in listed]
    assert [name for name in left if not isinstance(getattr(torchdl, name, None), ModuleType)] == []


def test_a_public_name_without_an_area_is_an_error(extension, monkeypatch):
    api = extension("api_pages")
    monkeypatch.setattr(api, "AREAS", api.AREAS[1:])
    with pytest.raises(ValueError, match=r"torchdl\.BatchLoader"):
        list(api.pages())


def test_references_find_names_in_every_form(extension):
    meant = extension("references").meant
    for path in ("BatchLoader", "torchdl.BatchLoader", "torchdl.data.loader.BatchLoader", "data.BatchLoader"):
        assert meant(path, "torchdl.data.loader") is torchdl.BatchLoader
    assert meant("BatchLoader.batches", None) is torchdl.BatchLoader.batches
    assert meant("torch.nn.functional.relu", None)
    assert meant("torchdl.Series.times", None)
    assert meant("torchdl.NoSuchName", None) is None
    assert meant("NoSuchName", "torchdl.data.loader") is None


def test_every_area_of_results_has_a_page_with_all_its_rows(extension, monkeypatch):
    results = extension("results_pages")
    monkeypatch.setattr(results, "hashes", lambda experiments: {})  # which take seconds
    results.all_rows.cache_clear()
    for area in results.AREAS:
        assert f"```{{results}} {area}\n" in (DOCS / "results" / f"{area}.md").read_text(encoding="utf-8")
        text = "\n".join(results.area_text(area))
        rows = [row for row in results.all_rows() if row["area"] == area]
        assert rows
        for row in rows:
            assert f" {results.measured(row)} " in text
            assert row["metric"].replace("|", "\\|") in text
            assert row["command"].split(" && ")[0] in text
    results.all_rows.cache_clear()


def test_a_lesson_becomes_a_notebook(extension, tmp_path):
    lesson = tmp_path / "01_short.py"
    lesson.write_text(LESSON)
    notebook = extension("notebooks").notebook_of(lesson)
    kinds = [cell["cell_type"] for cell in notebook["cells"]]
    assert kinds == ["markdown", "code", "code", "markdown", "code", "markdown"]
    title, module, imports, heading, answer, solution = (cell["source"] for cell in notebook["cells"])
    assert title == "# Short\n\nA question."
    assert module == "%%writefile check.py\n" + (DOCS / "lessons" / "check.py").read_text().strip()
    assert imports == "from check import check"
    assert heading.startswith("## A part\n\nSee `torchdl.MLP`, `torchdl.Trainer`, the loss and $x^2$.\n\n> **Note**")
    assert answer == "two = ...\ncheck(two, 1 + 1)"
    assert solution.split("\n\n") == [
        "<details><summary>Solution</summary>",
        "One and one.",
        "``` python\ntwo = 2\n```",
        "</details>",
    ]


def test_a_figure_of_the_library_is_shown_once_and_one_of_pyplot_is_not(extension, tmp_path):
    names = {"___": torchdl.plots.plot_bars({"panel": {"one": 1.0, "two": 2.0}}, "number")}
    variables = {"example_globals": names, "image_path_iterator": iter([str(tmp_path / "1.png")])}
    shown = [extension("figures").scrape(None, variables, {"src_dir": str(tmp_path)}) for _ in range(2)]
    assert "1.png" in shown[0]
    assert shown[1] == ""
    small, large = (Image.open(tmp_path / name).size for name in ("1.png", "1_2_00x.png"))
    assert large == (2 * small[0], 2 * small[1])
    names["___"] = plt.figure()
    assert extension("figures").scrape(None, variables, {"src_dir": str(tmp_path)}) == ""
    plt.close()


LESSON = """\"\"\"
Short
=====

A question.
\"\"\"

from check import check

# %%
# A part
# ------
# See :class:`torchdl.MLP`, :class:`~torchdl.Trainer`, :func:`the loss <torch.nn.functional.mse_loss>` and :math:`x^2`.
#
# .. note::
#
#    Well.

two = ...
check(two, 1 + 1)

# %%
# .. dropdown:: Solution
#
#    One and one.
#
#    .. code-block:: python
#
#       two = 2
"""
