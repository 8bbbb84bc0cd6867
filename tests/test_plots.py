from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from torchdl.plots import image_grid, plot_history, save_png, side_by_side


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


def test_pictures_side_by_side_have_white_between_them_alone():
    pictures = [torch.full((3, 4, width), width, dtype=torch.uint8) for width in (5, 2, 7)]
    picture = side_by_side(pictures, gap=3)
    assert picture.shape == (3, 4, 5 + 3 + 2 + 3 + 7)
    assert picture[1, 2].tolist() == [5] * 5 + [255] * 3 + [2] * 2 + [255] * 3 + [7] * 7
    assert torch.equal(side_by_side(pictures[:1]), pictures[0])


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


def test_a_history_is_drawn_with_training_and_validation_in_one_panel(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    figures = []
    savefig = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (figures.append(self), savefig(self, *a, **k)))
    plot_history(HISTORY, tmp_path / "new" / "history.png")
    with Image.open(tmp_path / "new" / "history.png") as image:
        assert image.format == "PNG"
        assert np.asarray(image.convert("L")).std() > 1  # something is drawn
    axes = {axis.get_title(): axis for axis in figures[0].axes}
    assert list(axes) == ["loss", "D(x)"]
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes["loss"].get_lines()}
    assert lines == {"train": [[1, 1.0], [2, 0.5], [3, 0.4]], "val": [[1, 1.5], [3, 0.7]]}
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["history.png"]


@pytest.mark.parametrize("count", [1, 3, 4, 7])
def test_there_are_as_many_panels_as_metrics(tmp_path, monkeypatch, count):
    from matplotlib.figure import Figure

    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **kwargs: (figures.append(self), path.touch()))
    plot_history([{"epoch": 1, **{f"train/m{i}": 1.0 for i in range(count)}}], tmp_path / "history.png")
    assert [axis.get_title() for axis in figures[0].axes] == [f"m{i}" for i in range(count)]


@pytest.mark.parametrize("history", [[], [{"epoch": 1, "charts/learning_rate": 0.1}]])
def test_a_history_without_metrics_draws_nothing(tmp_path, history):
    plot_history(history, tmp_path / "history.png")
    assert not list(tmp_path.iterdir())
