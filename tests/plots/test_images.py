from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from helpers import gaussian
from helpers.figures import is_drawn
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from torchdl import InputError
from torchdl.pictures import load_png, save_png
from torchdl.plots import (
    plot_confusion,
    plot_functions,
    plot_image_rows,
    plot_images,
    plot_lines,
    plot_predicted_images,
)
from torchdl.training.logging import Logger

# confusion


@pytest.mark.parametrize("normalize", [False, True])
def test_a_confusion_matrix_has_counts_or_shares_of_a_row(tmp_path, figures, normalize):
    matrix = np.array([[6, 2, 0], [0, 0, 0], [1, 0, 2]])
    plot_confusion(matrix, ("a", "b", "c"), normalize, tmp_path / "new" / "confusion.png")
    assert is_drawn(tmp_path / "new" / "confusion.png")
    (axis,) = figures[0].axes
    shares = {(0, 0): "75.0", (1, 0): "25.0", (0, 2): "33.3", (2, 2): "66.7"}
    counts = {(0, 0): "6", (1, 0): "2", (0, 2): "1", (2, 2): "2"}
    written = {text.get_position(): text.get_text() for text in axis.texts}  # (column, row)
    assert written == (shares if normalize else counts)
    colours = {text.get_position(): text.get_color() for text in axis.texts}
    assert colours == {(0, 0): "white", (1, 0): "black", (0, 2): "black", (2, 2): "white"}
    np.testing.assert_allclose(axis.images[0].get_array(), [[0.75, 0.25, 0], [0, 0, 0], [1 / 3, 0, 2 / 3]])
    assert axis.images[0].get_clim() == (0, 1)
    assert axis.get_title() == "accuracy 72.73 %" + (" (cells in % of a row)" if normalize else "")


@pytest.mark.parametrize(
    ("classes", "has_numbers", "normalize"), [(30, True, False), (31, False, True), (100, False, False)]
)
def test_beyond_thirty_classes_colours_alone_are_drawn(tmp_path, figures, classes, has_numbers, normalize):
    matrix = 3 * np.eye(classes, dtype=int)
    names = [f"class {number}" for number in range(classes)]
    plot_confusion(matrix, names, normalize, tmp_path / "confusion.png")
    assert is_drawn(tmp_path / "confusion.png")
    (axis,) = figures[0].axes
    assert len(axis.texts) == (classes if has_numbers else 0)
    np.testing.assert_allclose(axis.images[0].get_array(), np.eye(classes))
    assert [label.get_text() for label in axis.get_yticklabels()] == names
    assert axis.get_xticklabels()[0].get_rotation() == (45 if has_numbers else 90)
    with Image.open(tmp_path / "confusion.png") as image:
        assert max(image.size) < 2500


# predictions


@pytest.mark.parametrize("channels", [1, 3])
def test_each_image_is_under_its_label_and_its_prediction(tmp_path, figures, channels):
    images = torch.rand(8, channels, 5, 4, generator=torch.Generator().manual_seed(0)) * 3 - 1  # some out of range
    labels, predictions = [str(i) for i in range(8)], [f"{'class ' * (channels - 1)}{i}" for i in range(8)]
    plot_predicted_images(images, labels, predictions, "8 of 9", tmp_path / "new" / "predictions.png")
    assert is_drawn(tmp_path / "new" / "predictions.png")
    axes = figures[0].axes
    gap = " " if channels == 1 else "\n"  # long names take two lines
    assert [axis.get_title() for axis in axes] == [f"true {i},{gap}predicted {predictions[i]}" for i in range(8)]
    for axis, image in zip(axes, images, strict=False):
        shown = np.asarray(axis.images[0].get_array()).reshape(5, 4, channels)
        np.testing.assert_allclose(shown, image.clamp(0, 1).permute(1, 2, 0))
        assert axis.images[0].get_clim() == (0, 1)  # black is 0, whatever an image's darkest pixel
    assert not any(axis.axison for axis in axes)
    assert figures[0].get_suptitle() == "8 of 9"


def test_a_sheet_of_no_images_is_drawn_too(tmp_path, figures):
    plot_predicted_images(torch.zeros(0, 1, 5, 4), [], [], "nothing wrong", tmp_path / "none.png")
    assert figures[0].get_suptitle() == "nothing wrong"
    assert is_drawn(tmp_path / "none.png")


# curves


def test_functions_are_drawn_with_their_derivatives_a_panel_each(tmp_path, figures):
    x = [-1.0, 0.0, 2.0]
    curves = {name: (x, [power * v for v in x], [power] * 3) for power, name in enumerate("abcd", 1)}
    plot_functions(curves, tmp_path / "new" / "functions.png")
    assert is_drawn(tmp_path / "new" / "functions.png")
    axes = figures[0].axes
    assert [axis.get_title() for axis in axes] == list("abcd")  # and no empty panels beside
    for axis, (_, values, slopes) in zip(axes, curves.values(), strict=True):
        lines = {line.get_label(): line for line in axis.get_lines()}
        assert list(lines) == ["f", "f'"]
        assert lines["f"].get_xydata().tolist() == [list(point) for point in zip(x, values, strict=True)]
        assert lines["f'"].get_xydata().tolist() == [list(point) for point in zip(x, slopes, strict=True)]
        assert (lines["f"].get_linestyle(), lines["f'"].get_linestyle()) == ("-", "--")
    assert [text.get_text() for text in figures[0].legends[0].get_texts()] == ["f", "f'"]


@pytest.mark.parametrize("log_x", [False, True])
def test_lines_are_drawn_in_one_panel_with_their_names(tmp_path, figures, log_x):
    curves = {"relu": ([1e-3, 1e-2], [0.0, 40.0]), "leaky": ([1e-3, 1e-1, 1.0], [1.0, 2.0, 3.0])}
    plot_lines(curves, "rate", "share, %", log_x, "leaky", tmp_path / "new" / "lines.png")
    assert is_drawn(tmp_path / "new" / "lines.png")
    (axis,) = figures[0].axes
    found = {line.get_label(): tuple(map(list, line.get_data())) for line in axis.get_lines()}
    assert found == curves
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("rate", "share, %")
    assert (axis.get_xscale(), axis.get_yscale()) == ("log" if log_x else "linear", "linear")
    assert {text.get_text() for text in axis.texts} == curves.keys()
    assert axis.lines[1].get_linewidth() > axis.lines[0].get_linewidth()  # it is one's own


# images


def test_images_are_drawn_grey_from_minimum_to_maximum_and_colours_as_they_are(tmp_path, figures):
    grey, deep, colour = gaussian(6, 5), gaussian(1, 4, 7), gaussian(3, 6, 5)
    pictures = {"grey": grey, "deep": deep, "colour": colour, "again": grey}
    plot_images(pictures, tmp_path / "new" / "images.png")
    assert is_drawn(tmp_path / "new" / "images.png")
    axes = figures[0].axes
    assert [axis.get_title() for axis in axes] == ["grey", "deep", "colour", "again"]
    assert not any(axis.axison for axis in axes)
    for axis, expected in zip(axes, (grey, deep[0]), strict=False):
        np.testing.assert_allclose(axis.images[0].get_array(), expected)
        assert axis.images[0].get_clim() == pytest.approx((expected.min().item(), expected.max().item()))
    np.testing.assert_allclose(axes[2].images[0].get_array(), colour.permute(1, 2, 0).clamp(0, 1))


@pytest.mark.parametrize("shape", [(3, 5), (3, 3), (1, 3)])
def test_a_grey_picture_three_pixels_high_is_not_taken_for_a_coloured_one(tmp_path, figures, shape):
    plot_images({"low": gaussian(*shape)}, tmp_path / "images.png")
    np.testing.assert_allclose(figures[0].axes[0].images[0].get_array(), gaussian(*shape))


# PNG files


@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_is_loaded_as_it_was_saved(tmp_path, channels):
    picture = torch.arange(channels * 20, dtype=torch.uint8).view(channels, 4, 5) * 4
    save_png(picture, tmp_path / "picture.png", scale=1)
    loaded = load_png(tmp_path / "picture.png")
    assert loaded.dtype == torch.uint8
    assert torch.equal(loaded, picture.expand(3, -1, -1))


def test_a_png_with_transparency_or_a_palette_is_loaded_as_rgb(tmp_path):
    for mode in ("RGBA", "P", "1"):
        Image.new("RGB", (7, 3), "white").convert(mode).save(tmp_path / "picture.png")
        assert torch.equal(load_png(tmp_path / "picture.png"), torch.full((3, 3, 7), 255, dtype=torch.uint8))


def test_pngs_are_shown_by_their_names_as_they_are(tmp_path):
    paths = [tmp_path / "plots" / f"{name}.png" for name in ("first", "second")]
    for number, path in enumerate(paths):
        picture = (100 * gaussian(3, 4 + number, 6, seed=number)).clamp(0, 255).to(torch.uint8)
        save_png(picture, path, scale=1)
    before = [path.read_bytes() for path in paths]
    logger = Logger(tmp_path / "run")
    logger.show(*paths)
    logger.close()
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    assert events.Tags()["images"] == ["plots/first", "plots/second"]
    for path in paths:
        (shown,) = events.Images(f"plots/{path.stem}")
        assert shown.step == 0
        image = Image.open(io.BytesIO(shown.encoded_image_string)).convert("RGB")
        assert np.array_equal(np.asarray(image), load_png(path).permute(1, 2, 0).numpy())
    assert [path.read_bytes() for path in paths] == before


def test_without_a_folder_nothing_is_shown_and_nothing_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    logger = Logger(None)
    logger.show(tmp_path / "not there.png")
    logger.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["c.npy", "picture.jpg", "picture.pdf", "picture"])
def test_a_name_that_promises_another_format_than_png_is_refused(tmp_path, name):
    picture = torch.zeros(1, 4, 4, dtype=torch.uint8)
    for write in (lambda: save_png(picture, tmp_path / name), lambda: plot_images({"a": picture[0]}, tmp_path / name)):
        with pytest.raises(InputError, match=rf"{name} must end in \.png"):
            write()
    save_png(picture, tmp_path / "PICTURE.PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["PICTURE.PNG"]


@pytest.mark.parametrize("count", [1, 3, 6])
def test_names_of_image_rows_are_not_cut(count):
    rows = {name: torch.zeros(count, 1, 8, 8) for name in ("brightness_range (0.5, 1.5)", "all", "WWWWWWWWWWWWWWW")}
    for figure in (plot_image_rows(rows), plot_image_rows(dict(list(rows.items())[:2]))):
        figure.canvas.draw()
        names = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
        assert min(extent.x0 for extent in names) >= 0
