from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.figures import is_drawn
from PIL import Image

from torchdl.plots import plot_bars
from torchdl.recipes.report import Report

PICTURE = torch.arange(48, dtype=torch.uint8).view(3, 4, 4) * 5  # (C, H, W)


@pytest.mark.parametrize("path", [str, Path])
def test_a_report_is_saved_as_json_tables_and_figures(tmp_path, path, capsys):
    table = pd.DataFrame({"text": ["a, b", "c"], "probability": [0.5, 1.0]})
    figures = {"bars": plot_bars({"a": {"x": 1.0, "y": 2.0}}, "value"), "picture": PICTURE}
    report = Report({"accuracy": 0.5, "folder": Path("x")}, "accuracy 50 %", figures, {"mistakes": table})
    folder = tmp_path / "a" / "b"
    paths = report.save(path(folder))
    assert paths == [folder / "plots" / "bars.png", folder / "plots" / "picture.png"]
    assert json.loads((folder / "results.json").read_text()) == {"accuracy": 0.5, "folder": "x"}
    pd.testing.assert_frame_equal(pd.read_csv(folder / "mistakes.csv"), table)
    assert is_drawn(paths[0])
    assert np.array_equal(np.asarray(Image.open(paths[1]))[::2, ::2], PICTURE.permute(1, 2, 0))  # enlarged
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("path", [str, Path])
def test_the_file_and_the_folder_of_figures_can_be_named(tmp_path, path):
    report = Report({}, figures={"picture": PICTURE})
    assert report.save(path(tmp_path), "probe.json", plots="") == [tmp_path / "picture.png"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["picture.png", "probe.json"]
