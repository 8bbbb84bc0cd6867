"""Write each lesson's notebook, and copy MathJax: both after sphinx-gallery has written the pages.

sphinx-gallery converts each block of text for itself, so it does not know that a heading is below the title, and it
leaves roles and folded solutions as they are. Here a lesson is converted as a whole.
"""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pypandoc
from sphinx.application import Sphinx
from sphinx_gallery.notebook import jupyter_notebook_skeleton
from sphinx_gallery.py_source_parser import split_code_and_text_blocks

LESSONS = Path(__file__).resolve().parents[1] / "lessons"
FILTER = Path(__file__).with_name("notebook.lua")
CELL = "CODE-CELL-{}-OF-THE-LESSON"


def title_of(lesson: Path) -> str:
    """Return the title of a lesson: the first line of its docstring."""
    return (ast.get_docstring(ast.parse(lesson.read_text(encoding="utf-8"))) or lesson.stem).splitlines()[0]


def notebook_of(lesson: Path) -> dict[str, Any]:
    """Return a lesson's notebook, whose first cell writes the module ``check`` beside it."""
    _, blocks = split_code_and_text_blocks(str(lesson))
    codes = [block.content.strip() for block in blocks if block.type == "code"]
    numbers = iter(range(len(codes)))
    text = "\n\n".join(CELL.format(next(numbers)) if b.type == "code" else b.content for b in blocks)
    titles = {f"/learn/{path.stem}": title_of(path) for path in LESSONS.glob("[0-9][0-9]_*.py")}
    for target, title in titles.items():
        text = text.replace(f":doc:`{target}`", f"*{title}*")
    arguments = [f"--lua-filter={FILTER}", "--wrap=none"]
    markdown = pypandoc.convert_text(
        text, to="gfm-tex_math_gfm-alerts+tex_math_dollars", format="rst", extra_args=arguments
    ).replace("\r", "")
    notebook = jupyter_notebook_skeleton()
    module = (LESSONS / "check.py").read_text(encoding="utf-8")
    hidden = {"jupyter": {"source_hidden": True}}
    cells = notebook["cells"]
    for part in re.split(f"^({CELL.format('[0-9]+')})$", markdown, flags=re.MULTILINE):
        if number := re.fullmatch(CELL.format("([0-9]+)"), part):
            cells.append(cell("code", codes[int(number[1])]))
        elif part.strip():
            cells.append(cell("markdown", part.strip()))
    cells.insert(1, cell("code", f"%%writefile check.py\n{module.strip()}", hidden))
    return notebook


def cell(kind: str, source: str, metadata: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return a cell of a notebook."""
    made = {"cell_type": kind, "metadata": metadata or {}, "source": source}
    return made | ({"execution_count": None, "outputs": []} if kind == "code" else {})


def write_notebooks(docs: Path) -> None:
    """Write the notebook of every lesson, in ``learn`` in ``docs``, over the one that sphinx-gallery has written."""
    (docs / "learn").mkdir(exist_ok=True)
    for lesson in sorted(LESSONS.glob("[0-9][0-9]_*.py")):
        path = docs / "learn" / f"{lesson.stem}.ipynb"
        path.write_text(json.dumps(notebook_of(lesson), indent=1) + "\n", encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect to Sphinx."""
    app.connect("builder-inited", lambda app: write_notebooks(Path(app.srcdir)), priority=900)  # after sphinx-gallery
    return {"parallel_read_safe": True, "parallel_write_safe": True}


if __name__ == "__main__":  # make notebooks
    write_notebooks(LESSONS.parent)
