"""What holds of every function that draws: it returns its figure, draws its reference, saves where a path is given."""

from __future__ import annotations

import inspect
import io
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from helpers.plots import ARGUMENTS
from matplotlib.figure import Figure
from PIL import Image, ImageFilter, PngImagePlugin

from torchdl import plots
from torchdl.plots import curves
from torchdl.plots.figure import COLORS, STYLE

REFERENCE = Path(__file__).parent / "reference"  # a person has looked at every picture in it
SMALLER = 0.6  # the references' size: text can be read, and the files stay small
TOLERANCE = 20  # of 255; pictures that were drawn twice differ by 11 at most, because references have 128 colours
# Other versions of matplotlib lay figures out differently, by some pixels: only large changes are seen there
OTHER_RADIUS, OTHER_TOLERANCE = 10, 80


def draw(case: str, path: str | Path | None = None) -> Figure:
    """Draw a case of ``ARGUMENTS``."""
    return getattr(plots, case.split("-")[0])(*ARGUMENTS[case], path=path)


def smaller(path: Path) -> Image.Image:
    """Read a PNG in the references' size."""
    with Image.open(path) as image:
        assert image.format == "PNG"
        return image.convert("RGB").resize([round(SMALLER * side) for side in image.size], Image.Resampling.BOX)


def difference(picture: Image.Image, reference: Image.Image, radius: int = 3) -> float:
    """Return the largest difference, from 0 to 255, of two pictures of about the same size, both blurred."""
    if any(abs(a - b) > 2 for a, b in zip(picture.size, reference.size, strict=True)):
        return 255.0
    pair = (picture, reference.resize(picture.size))
    first, second = (np.asarray(each.filter(ImageFilter.GaussianBlur(radius)), float) for each in pair)
    return float(np.abs(first - second).max())


def test_every_function_that_draws_is_tested_here_and_takes_its_path_last():
    functions = {name: getattr(plots, name) for name in dir(plots) if name.startswith("plot_")}
    assert functions.keys() == {case.split("-")[0] for case in ARGUMENTS}
    for function in functions.values():
        *_, last = inspect.signature(function).parameters.values()
        assert (last.name, last.default) == ("path", None)
    assert {path.stem for path in REFERENCE.iterdir()} == ARGUMENTS.keys()


@pytest.mark.parametrize("case", ARGUMENTS)
def test_a_figure_is_returned_saved_where_it_is_asked_for_and_looks_like_its_reference(tmp_path, request, case):
    path = tmp_path / "new" / "figure.png"
    assert isinstance(draw(case, path), Figure)
    assert [p.name for p in path.parent.iterdir()] == ["figure.png"]
    picture = smaller(path)
    if request.config.getoption("--write-references"):
        made_by = PngImagePlugin.PngInfo()
        made_by.add_text("matplotlib", matplotlib.__version__)
        few_colours = picture.quantize(128, kmeans=1, dither=Image.Dither.NONE)
        few_colours.save(REFERENCE / f"{case}.png", optimize=True, pnginfo=made_by)
    with Image.open(REFERENCE / f"{case}.png") as image:
        if image.text["matplotlib"] == matplotlib.__version__:
            assert difference(picture, image.convert("RGB")) < TOLERANCE
        else:
            assert difference(picture, image.convert("RGB"), OTHER_RADIUS) < OTHER_TOLERANCE


CHANGES = {
    "another colour": lambda patch: patch.setitem(COLORS, "validation", "C2"),
    "no names": lambda patch: patch.setattr(curves, "name_lines", lambda figure, axis: None),
    "no logarithm": lambda patch: patch.setattr(curves, "logarithmic", lambda axis, name: None),
    "larger letters": lambda patch: patch.setitem(STYLE, "axes.titlesize", 14),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_picture_differs_from_its_reference(tmp_path, monkeypatch, change):
    CHANGES[change](monkeypatch)
    draw("plot_history", tmp_path / "figure.png")
    with Image.open(REFERENCE / "plot_history.png") as image:
        assert difference(smaller(tmp_path / "figure.png"), image.convert("RGB")) > TOLERANCE


def test_the_style_is_not_global_and_not_the_users():
    with matplotlib.rc_context({"axes.titlesize": 30, "axes.facecolor": "yellow"}):
        before = dict(matplotlib.rcParams)
        (axis, _) = draw("plot_history").axes
        assert dict(matplotlib.rcParams) == before
    assert axis.title.get_fontsize() == STYLE["axes.titlesize"]


@pytest.mark.parametrize("case", ARGUMENTS)
def test_without_a_path_no_file_is_written(tmp_path, monkeypatch, figures, case):
    monkeypatch.chdir(tmp_path)
    assert isinstance(draw(case), Figure)
    assert figures == []
    assert not list(tmp_path.iterdir())


def test_a_path_may_be_text(tmp_path):
    draw("plot_sequences", str(tmp_path / "figure.png"))
    assert (tmp_path / "figure.png").exists()


def test_a_notebook_shows_a_figure():
    figure = plots.plot_history([{"epoch": 1, "train/loss": 1.0}])
    with Image.open(io.BytesIO(figure._repr_png_())) as image:  # what IPython asks for
        assert np.asarray(image.convert("L")).std() > 1
