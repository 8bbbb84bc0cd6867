from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest
import torch
from helpers.figures import is_drawn
from matplotlib.text import Text
from PIL import Image

from torchdl.pictures import image_grid, save_png, side_by_side
from torchdl.plots import (
    plot_comparison,
    plot_confusion,
    plot_embeddings,
    plot_forecast,
    plot_forecasts,
    plot_history,
    plot_label_efficiency,
    plot_sequences,
)
from torchdl.plots.curves import compared, panels


def test_a_grid_holds_every_image_where_it_belongs_with_grey_between():
    images = torch.rand(5, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    grid = image_grid(images, columns=2, padding=3)
    assert grid.shape == (3, 3 * (4 + 3) + 3, 2 * (6 + 3) + 3)
    assert grid.dtype == torch.uint8
    rest = torch.ones(grid.shape, dtype=torch.bool)
    for i, image in enumerate(images):
        top, left = 3 + (i // 2) * 7, 3 + (i % 2) * 9
        assert torch.equal(grid[:, top : top + 4, left : left + 6], (image * 255).round().to(torch.uint8))
        rest[:, top : top + 4, left : left + 6] = False
    assert (grid[rest] == 128).all()  # the empty sixth place too


@pytest.mark.parametrize(("n", "columns", "rows"), [(1, 1, 1), (2, 2, 1), (4, 2, 2), (5, 3, 2), (16, 4, 4), (17, 5, 4)])
def test_a_grid_is_square_by_default(n, columns, rows):
    assert image_grid(torch.zeros(n, 1, 2, 3), padding=0).shape == (1, rows * 2, columns * 3)


def test_values_are_clamped_and_rounded():
    values = torch.tensor([-1.0, 0.0, 0.5, 1.0, 2.0, 0.4 / 255, 0.6 / 255]).view(1, 1, 1, 7)
    assert image_grid(values, padding=0).flatten().tolist() == [0, 0, 128, 255, 255, 0, 1]
    needing = torch.zeros(1, 1, 2, 2, dtype=torch.bfloat16, requires_grad=True)
    assert not image_grid(needing, padding=0).any()


@pytest.mark.parametrize(("columns", "per_row"), [(None, 4), (3, 3)])
def test_rows_of_images_become_rows(columns, per_row):
    images = torch.rand(2, 4, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(image_grid(images, columns), image_grid(images.flatten(0, 1), per_row))
    assert image_grid(images, padding=0).shape == (3, 2 * 5, 4 * 6)


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_side_by_side_are_under_their_names_with_white_between(channels):
    wide, narrow = (torch.full((channels, 60, width), 128, dtype=torch.uint8) for width in (90, 30))
    picture = side_by_side({"real": wide, "nearest training images": narrow, "x": narrow}, gap=12)
    assert torch.equal(picture, side_by_side({"real": wide, "nearest training\nimages": narrow, "x": narrow}, gap=12))
    caption, below = picture[:, :-60], picture[:, -60:]
    left = [column for column in range(below.shape[2]) if below[0, 0, column] == 128]
    starts = [column for column in left if column - 1 not in left]
    assert len(left) == 90 + 30 + 30
    assert starts[1] == 90 + 12
    assert starts[2] > starts[1] + 100 + 12  # after a name wider than its picture
    assert torch.equal(below[:, :, :90], wide)
    assert (below[:, :, 90:102] == 255).all()
    ink = (caption < 128).all(0)  # (height, width)
    assert ink.any(1).sum() >= 10  # pixels from the highest letter to the lowest
    assert not ink[0].any()
    assert not ink[-1].any()
    for start, end in zip(starts, [*starts[1:], picture.shape[2] + 12], strict=True):
        assert ink[:, start : start + 6].any()  # each name begins where its picture does
        assert not ink[:, end - 12 : end].any()


def test_names_are_larger_over_larger_pictures():
    heights = [side_by_side({"real": torch.zeros(1, 9, w, dtype=torch.uint8)}).shape[1] for w in (20, 300, 600, 1200)]
    assert heights[0] == heights[1] < heights[2] < heights[3]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("scale", [1, 3])
def test_a_png_holds_the_pictures_pixels_enlarged(tmp_path, channels, scale):
    picture = torch.arange(channels * 12, dtype=torch.uint8).view(channels, 3, 4) * 5
    path = tmp_path / "new" / "picture.png"
    save_png(picture, path, scale)
    with Image.open(path) as image:
        assert (image.format, image.mode) == ("PNG", "L" if channels == 1 else "RGB")
        array = np.asarray(image)
    expected = np.kron(picture.numpy(), np.ones((1, scale, scale), np.uint8)).transpose(1, 2, 0)
    assert np.array_equal(array.reshape(3 * scale, 4 * scale, channels), expected)
    assert [p.name for p in path.parent.iterdir()] == ["picture.png"]


HISTORY = [
    {"epoch": 1, "step": 5, "train/loss": 1.0, "val/loss": 1.5, "train/D(x)": 0.5, "charts/learning_rate": 1e-3},
    {"epoch": 2, "step": 9, "train/loss": 0.5, "train/D(x)": 0.6, "charts/learning_rate": 1e-3},
    {"epoch": 3, "step": 14, "train/loss": 0.4, "val/loss": 0.7, "train/D(x)": float("nan")},
]


def test_a_history_is_drawn_with_training_and_validation_in_one_panel(tmp_path, figures):
    plot_history(HISTORY, tmp_path / "new" / "history.png")
    assert is_drawn(tmp_path / "new" / "history.png")
    axes = {axis.get_title(): axis for axis in figures[0].axes}
    assert list(axes) == ["loss", "D(x)"]
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes["loss"].get_lines()}
    assert lines == {"train": [[1, 1.0], [2, 0.5], [3, 0.4]], "validation": [[1, 1.5], [3, 0.7]]}
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["history.png"]


@pytest.mark.parametrize("count", [1, 3, 4, 7])
def test_there_are_as_many_panels_as_metrics(tmp_path, monkeypatch, count):
    from matplotlib.figure import Figure

    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **kwargs: (figures.append(self), path.touch()))
    plot_history([{"epoch": 1, **{f"train/m{i}": 1.0 for i in range(count)}}], tmp_path / "history.png")
    assert [axis.get_title() for axis in figures[0].axes] == [f"m{i}" for i in range(count)]


@pytest.mark.parametrize("history", [[], [{"epoch": 1, "charts/learning_rate": 0.1}]])
def test_a_history_without_metrics_is_a_figure_without_panels(tmp_path, history):
    assert plot_history(history, tmp_path / "history.png").axes == []


def test_what_a_metric_is_compared_with_is_in_its_panel_and_dashed(tmp_path, figures):
    names = [
        "epoch",
        "train/loss",
        "val/top1",
        "val/loss",
        "val/top1_chance",
        "val/top1_ceiling",
        "charts/lr",
        "val/top5",
    ]
    assert panels(names) == {
        "loss": ["train/loss", "val/loss"],
        "top1": ["val/top1", "val/top1_chance", "val/top1_ceiling"],
        "top5": ["val/top5"],
    }
    rows = [{"epoch": e, "train/top1": 0.2 * e, "val/top1": 0.1 * e, "val/top1_chance": 0.1, "val/top1_ceiling": 0.9}
            for e in (1, 2, 3)]  # fmt: skip
    plot_history(rows, tmp_path / "history.png")
    (axis,) = figures[0].axes
    assert axis.get_title() == "top1"
    lines = {line.get_label(): line for line in axis.get_lines()}
    assert {name: line.get_linestyle() for name, line in lines.items()} == {
        "train": "-",
        "validation": "-",
        "chance": "--",
        "ceiling": "--",
    }
    assert lines["ceiling"].get_xydata().tolist() == [[1, 0.9], [2, 0.9], [3, 0.9]]
    assert lines["chance"].get_xydata().tolist() == [[1, 0.1], [2, 0.1], [3, 0.1]]
    assert {text.get_text(): text.get_color() for text in axis.texts} == {k: v.get_color() for k, v in lines.items()}
    assert lines["chance"].get_color() == lines["ceiling"].get_color() == "0.5"  # grey


def test_a_metrics_steps_are_in_one_panel_by_their_numbers(tmp_path, figures):
    row = {"epoch": 1, "val/digit": 0.5, "val/digit_step_1": 0.7, "val/digit_step_12": 0.3, "val/digit_chance": 0.1}
    plot_history([row], tmp_path / "history.png")
    labels = {axis.get_title(): [line.get_label() for line in axis.get_lines()] for axis in figures[0].axes}
    assert labels == {"digit": ["validation", "chance"], "digit by step": ["step 1", "step 12"]}


def test_each_meaning_has_its_colour_in_every_panel(tmp_path, figures):
    row = {"epoch": 1, "val/a": 0.2, "val/a_ceiling": 0.9, "train/b": 0.3, "val/b": 0.2, "val/b_chance": 0.1}
    row |= {f"{part}/{name}": 0.5 for part in ("train", "val") for name in ("D(x)", "D(G(z))")}
    plot_history([row, {**row, "epoch": 2}], tmp_path / "history.png")
    assert is_drawn(tmp_path / "history.png")
    axes = {axis.get_title(): axis for axis in figures[0].axes}
    drawn = {name: {line.get_label(): line for line in axis.get_lines()} for name, axis in axes.items()}
    colours = {name: {label: line.get_color() for label, line in lines.items()} for name, lines in drawn.items()}
    assert list(colours) == ["D(x) and D(G(z))", "a", "b"]
    assert colours["a"]["validation"] == colours["b"]["validation"]
    both = colours["D(x) and D(G(z))"]
    assert list(both) == ["D(x), train", "D(x), validation", "D(G(z)), train", "D(G(z)), validation"]
    assert both["D(x), train"] == both["D(x), validation"] != both["D(G(z)), train"] == both["D(G(z)), validation"]
    styles = [line.get_linestyle() for line in drawn["D(x) and D(G(z))"].values()]
    assert styles == [":", "-", ":", "-"]
    assert len({*both.values(), *colours["a"].values(), *colours["b"].values()}) == 5  # chance and ceiling share grey
    axis = axes["D(x) and D(G(z))"]
    names = [Text.get_window_extent(text) for text in axis.texts]
    assert len(names) == 4
    assert all(name.x0 > axis.get_window_extent().x1 for name in names)  # beside the panel, where they hide no line
    assert not any(first.overlaps(second) for first, second in itertools.combinations(names, 2))
    assert all(float(tick).is_integer() for tick in axis.get_xticks())


def test_both_losses_of_a_gan_share_a_panel_and_so_do_both_accuracies(tmp_path, figures):
    names = ("discriminator_loss", "generator_loss", "real_accuracy", "generated_accuracy", "saturation")
    plot_history([{"epoch": 1, **{f"train/{name}": 0.5 for name in names}}], tmp_path / "history.png")
    drawn = {axis.get_title(): [line.get_label() for line in axis.get_lines()] for axis in figures[0].axes}
    assert drawn == {
        "losses of both networks": ["discriminator loss, train", "generator loss, train"],
        "the discriminator's accuracy": ["real accuracy, train", "generated accuracy, train"],
        "saturation": ["train"],
    }
    losses, accuracies, _ = figures[0].axes
    assert [line.get_color() for line in losses.lines] == [line.get_color() for line in accuracies.lines]


def test_forecasts_are_drawn_over_dates_and_those_of_several_models_in_one_figure():
    days = np.array("2024-02-27", "datetime64[D]") + np.arange(6)
    values, one, two = torch.arange(6.0), torch.tensor([3.5, 4.5, 5.5]), torch.tensor([3.0, 3.0, 90.0])
    whole, part = plot_forecast(values, 3, one, two, "close", days).axes
    assert whole.lines[0].get_xdata(orig=True).tolist() == days.tolist()
    assert part.lines[1].get_xdata(orig=True).tolist() == days[3:].tolist()
    assert part.get_xlabel() == ""
    figure = plot_forecasts(values[3:], {"linear": (one, two), "lstm": (two, one)}, "close", days[3:])
    for axis, drawn in zip(figure.axes, ([values[3:], one, two], [values[3:], two, one]), strict=True):
        assert [line.get_ydata().tolist() for line in axis.lines] == [each.tolist() for each in drawn]
        assert [line.get_label() for line in axis.lines] == ["actual", "linear", "lstm"]
        assert axis.get_ylim() == (2, 6)  # a forecast that diverges does not hide the others
        assert len({line.get_color() for line in axis.lines}) == 3


def test_compared_are_a_discriminators_outputs_and_what_has_references():
    rows = [
        {"epoch": 1, "step": 3, "train/loss": 1.0, "val/loss": 1.0, "train/D(x)": 0.5, "train/D(G(z))": 0.4},
        {"epoch": 2, "step": 6, "train/loss": 0.9, "train/a": 0.1, "val/a": 0.2, "val/a_chance": 0.3},
    ]
    assert compared(rows) == {
        "D(x) and D(G(z))": [{"epoch": 1, "train/D(x)": 0.5, "train/D(G(z))": 0.4}, {"epoch": 2}],
        "a": [{"epoch": 1}, {"epoch": 2, "train/a": 0.1, "val/a": 0.2, "val/a_chance": 0.3}],
    }
    assert compared([{"epoch": 1, "val/loss": 1.0, "val/D(x)": 0.5}]) == {}


# sequences

BLUE, GREEN, RED = (0.19, 0.38, 0.75), (0.16, 0.62, 0.16), (0.82, 0.19, 0.19)


def frames(picture: np.ndarray, colour: tuple[float, float, float]) -> list[tuple[int, int]]:
    """Find the top left corners of the frames of a colour in a picture (H, W, 3)."""
    mask = (picture == colour).all(2)
    corner = mask.copy()
    corner[1:] &= ~mask[:-1]
    corner[:, 1:] &= ~mask[:, :-1]
    # a corner's own row and column go on for the frame's width
    return [(y, x) for y, x in np.argwhere(corner).tolist() if mask[y : y + 3, x : x + 3].all()]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("low", [0.0, -1.0])
def test_a_row_has_context_and_future_in_frames_of_their_colours(channels, low):
    generator = torch.Generator().manual_seed(0)
    # dark, so that no pixel is white or a frame's
    context, future = (low + (1 - low) * 0.1 * torch.rand(2, t, channels, 12, 12, generator=generator) for t in (3, 2))
    figure = plot_sequences(context, future, torch.tensor([1, 0]), low=low)
    picture = np.asarray(figure.axes[0].images[0].get_array())
    assert picture.shape[2] == 3
    found = {colour: frames(picture, colour) for colour in (BLUE, GREEN, RED)}
    assert [len(places) for places in found.values()] == [6, 2, 2]
    rows = [sorted(found[BLUE])[:3] + sorted(found[GREEN]), sorted(found[BLUE])[3:] + sorted(found[RED])]
    for row, places in enumerate(rows):
        assert len({top for top, _ in places}) == 1
        lefts = [left for _, left in places]
        assert lefts == sorted(lefts)
        assert min(b - a for a, b in itertools.pairwise(lefts)) >= 12 + 6
        for (top, left), image in zip(places, torch.cat([context[row], future[row]]), strict=True):
            pixels = ((image - low) / (1 - low)).expand(3, -1, -1).permute(1, 2, 0)  # (C, H, W) -> (H, W, 3)
            np.testing.assert_allclose(picture[top + 3 : top + 15, left + 3 : left + 15], pixels, atol=1e-6)
            # and the frame around it is whole
            frame = picture[top : top + 18, left : left + 18].copy()
            frame[3:-3, 3:-3] = frame[0, 0]
            assert (frame == frame[0, 0]).all()


def test_captions_are_beside_the_images_and_tell_what_they_show(tmp_path):
    images = torch.zeros(2, 2, 3, 8, 8)
    digits = torch.tensor([[7, 8, 9, 0], [1, 2, 5, 5]])
    bare = plot_sequences(images, images, torch.tensor([1, 0]))
    figure = plot_sequences(images, images, torch.tensor([1, 0]), digits, path=tmp_path / "sequences.png")
    captions = [[text.get_text() for text in drawn.axes[0].texts] for drawn in (bare, figure)]
    headings = ["context", "future"]
    assert captions == [[*headings, "real", "false"], [*headings, "7 8 | 9 0   real", "1 2 | 5 5   false"]]
    assert figure.get_figwidth() > bare.get_figwidth()  # as wide as what is written
    (axis,) = figure.axes
    height, width = axis.images[0].get_array().shape[:2]
    row_height = (height - 4) / 2
    for row, text in enumerate(axis.texts[2:]):
        x, y = text.get_position()
        assert x > width
        assert 4 + row * row_height < y < (row + 1) * row_height
        box = text.get_window_extent()
        assert 0 <= box.x0 < box.x1 <= figure.bbox.width
    with Image.open(tmp_path / "sequences.png") as image:
        dark = np.argwhere(np.asarray(image.convert("L")) < 100)
        assert (np.asarray(image.convert("L"))[:, -4:] == 255).all()  # nothing is cut off
        assert dark[:, 1].max() > 1.2 * axis.get_window_extent().x1  # at 120 dots per inch, not 100


# what probes find


def test_a_confusion_matrix_has_its_counts_where_they_belong(tmp_path, figures):
    matrix = np.array([[8, 2, 0], [0, 0, 0], [1, 0, 9]])
    plot_confusion(matrix, ("a", "b", "c"), path=tmp_path / "new" / "confusion.png")
    assert is_drawn(tmp_path / "new" / "confusion.png")
    (axis,) = figures[0].axes
    assert {text.get_position(): text.get_text() for text in axis.texts} == {
        (0, 0): "8",
        (1, 0): "2",
        (0, 2): "1",
        (2, 2): "9",
    }
    np.testing.assert_allclose(axis.images[0].get_array(), [[0.8, 0.2, 0], [0, 0, 0], [0.1, 0, 0.9]])
    assert axis.get_title() == "accuracy 85.00 %"
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("predicted", "true")
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a", "b", "c"]


def test_a_matrix_of_nothing_and_long_names_are_drawn_too():
    (axis,) = plot_confusion(np.zeros((3, 3), int), ("T-shirt", "Ankle boot", "bag")).axes
    assert axis.get_title() == "accuracy 0.00 %"
    assert axis.get_xticklabels()[0].get_rotation() == 45


@pytest.mark.parametrize("normalize", [False, True])
def test_a_matrix_of_two_classes_has_counts_and_shares_and_level_names(normalize):
    (axis,) = plot_confusion(np.array([[1500, 500], [1, 3]]), ("not spam", "spam"), normalize).axes
    assert [text.get_text() for text in axis.texts] == ["1,500\n75.0 %", "500\n25.0 %", "1\n25.0 %", "3\n75.0 %"]
    assert axis.get_xticklabels()[0].get_rotation() == 0


@pytest.mark.parametrize(("end", "scale"), [(0.5, "linear"), (0.01, "log"), (0.0, "linear")])
def test_a_loss_that_spans_decades_is_logarithmic_and_an_accuracy_is_not(end, scale):
    rows = [{"epoch": e, "train/loss": loss, "val/accuracy": loss} for e, loss in enumerate((1.0, 0.6, end), 1)]
    for figure in (plot_history(rows), plot_comparison({"a": rows})):
        assert [axis.get_yscale() for axis in figure.axes] == [scale, "linear"]


def test_of_more_names_than_fit_beside_a_panel_some_are_left_out():
    (axis,) = plot_history([{"epoch": e, **{f"val/a_class_{k}": e * k for k in range(100)}} for e in (1, 2)]).axes
    names = [text.get_text() for text in axis.texts]
    assert 10 < len(names) < 30
    assert (names[0], names[-1]) == ("0", "99")
    assert len({str(line.get_color()) for line in axis.lines}) == 100


def test_a_plot_of_embeddings_has_each_class_in_its_colour_with_its_name_at_the_median(tmp_path, figures):
    points = np.array([[0.0, 0.0], [2.0, 4.0], [100.0, 5.0], [7.0, 7.0]])
    labels = np.array([0, 0, 0, 2])
    plot_embeddings(points, labels, ("a", "b", "c"), "codes", tmp_path / "embeddings.png")
    assert is_drawn(tmp_path / "embeddings.png")
    (axis,) = figures[0].axes
    drawn = {dots.get_label(): dots.get_offsets().tolist() for dots in axis.collections}
    assert drawn == {"a": points[:3].tolist(), "b": [], "c": [[7.0, 7.0]]}
    assert len({tuple(dots.get_facecolor()[0]) for dots in axis.collections}) == 3
    assert {text.get_text(): text.get_position() for text in axis.texts} == {"a": (2.0, 4.0), "c": (7.0, 7.0)}
    assert axis.get_title() == "codes"


def test_label_efficiency_is_drawn_by_mean_and_spread(tmp_path, figures):
    curves = {"cpc": {10: [0.5, 0.7], 100: [0.9], 1000: [0.96]}, "random": {10: [0.1], 1000: [0.8, 0.8]}}
    plot_label_efficiency(curves, path=tmp_path / "labels.png")
    assert is_drawn(tmp_path / "labels.png")
    (axis,) = figures[0].axes
    assert axis.get_xscale() == axis.get_yscale() == "log"
    found = {}
    for bars in axis.containers:
        means, _, (spread,) = bars.lines
        ends = [segment[:, 1] for segment in spread.get_segments()]
        found[bars.get_label()] = (means.get_xydata().tolist(), [float(np.ptp(end)) / 2 for end in ends])
    near = functools.partial(pytest.approx, abs=1e-9)
    assert found["cpc"] == ([[10, near(40)], [100, near(10)], [1000, near(4)]], [near(10 * 2**0.5), near(0), near(0)])
    assert found["random"] == ([[10, near(90)], [1000, near(20)]], [near(0), near(0)])
