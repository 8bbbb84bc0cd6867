"""Settings of the documentation's site: `make docs` builds it into site/, and nothing in it needs a network."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util.fileutil import copy_asset

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "extensions"), str(HERE.parent)]  # torchdl of this clone, installed or not

project = "torchdl"
author = "the torchdl authors"
copyright = author
version = release = importlib.import_module("torchdl").__version__
language = "en"

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx_gallery.gen_gallery",
    "myst_parser",
    "sphinx_design",
    "sphinx_copybutton",
    "api_pages",
    "references",
    "results_pages",
    "notebooks",
]
exclude_patterns = ["playground", "examples", "lessons", "extensions", "learn/*.ipynb", "learn/*.py", "learn/*.json"]
nitpicky = True

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4

# The API.
autosummary_generate = False  # api_pages writes the pages
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = [("Example", "Example")]

# Lessons: each is a page, a script and a notebook.
sphinx_gallery_conf = {
    "examples_dirs": "lessons",
    "gallery_dirs": "learn",
    "filename_pattern": r"/\d\d_",
    "ignore_pattern": r"check\.py",
    "within_subsection_order": "FileNameSortKey",
    "capture_repr": (),
    "download_all_examples": False,
    "min_reported_time": 1e9,
    "write_computation_times": False,
    "show_signature": False,
    "image_scrapers": ("matplotlib", "figures.scrape"),
    "image_srcset": ["2x"],
    "parallel": 2,
    "doc_module": ("torchdl",),
    "backreferences_dir": "learn/uses",
}

html_theme = "pydata_sphinx_theme"
html_title = "torchdl"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_logo = html_favicon = "static/logo.svg"
html_context = {"default_mode": "auto"}
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "logo": {"text": "torchdl"},
    "navbar_align": "left",
    "header_links_before_dropdown": 6,
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc", "sg_download_links"],
}

# The playground is built into the same folder, by `make playground`; the guide links it if it is there.
has_playground = (HERE.parent / "site" / "playground" / "index.html").is_file()

# MathJax from a package, so that formulas need no network.
mathjax_path = "mathjax/tex-chtml.js"
MATHJAX = Path(str(importlib.import_module("sphinx-mathjax-offline").__file__)).parent / "static" / "mathjax"


def copy_mathjax(app: Sphinx, error: Exception | None) -> None:
    """Copy what the pages need of MathJax: the program, its fonts, and the extensions of TeX that it loads."""
    folder = Path(app.outdir) / "_static" / "mathjax"
    if error is None:
        copy_asset(MATHJAX / "tex-chtml.js", folder)
        for name in ("output/chtml/fonts", "input/tex/extensions"):
            copy_asset(MATHJAX / name, folder / name)


def setup(app: Sphinx) -> None:
    """Connect to Sphinx."""
    app.connect("build-finished", copy_mathjax)
    app.add_config_value("has_playground", False, "env")
    if has_playground:
        app.tags.add("playground")
