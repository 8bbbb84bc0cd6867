from __future__ import annotations

import math

import pytest

from torchdl import InputError
from torchdl.history import History, as_history
from torchdl.plots import plot_history
from torchdl.plots.curves import plot_comparison

ROWS = [{"epoch": 1, "step": 4, "train/loss": 2.0}, {"epoch": 2, "step": 8, "train/loss": 1.0, "val/loss": 1.5}]


@pytest.fixture
def run(tmp_path):
    (tmp_path / "metrics.csv").write_text("epoch,step,train/loss,val/loss\n1,4,2.0,\n2,8,1.0,1.5\n")
    return tmp_path


def test_all_forms_are_the_same_rows(run):
    table = History(ROWS).to_frame()
    assert list(table.index) == [1, 2]
    assert math.isnan(table.loc[1, "val/loss"])
    for form in (ROWS, tuple(ROWS), table, table.reset_index(), run, str(run), run / "metrics.csv"):
        assert as_history(form) == ROWS


def test_a_metric_of_all_epochs_has_its_name():
    history = History(ROWS)
    assert history["train/loss"] == [2, 1]
    assert str(history["val/loss"]) == "[nan, 1.5]"
    assert (history[-1], history[:1]) == (ROWS[1], ROWS[:1])
    with pytest.raises(InputError, match=r"no metric 'loss': choose one of epoch, step, train/loss, val/loss$"):
        history["loss"]


def test_every_form_is_drawn(run):
    for form in (ROWS, History(ROWS).to_frame(), run):
        figure = plot_history(form)
        assert [line.get_xydata().tolist() for line in figure.axes[0].lines] == [[[1, 2], [2, 1]], [[2, 1.5]]]
        assert len(plot_comparison({"a": form, "b": ROWS}).axes[0].lines) == 4


@pytest.mark.parametrize("other", [3, [1, 2], [{"step": 1}], {"epoch": 1}])
def test_what_is_no_history_is_refused(other):
    with pytest.raises(InputError, match="a history is rows with an epoch"):
        as_history(other)


def test_a_folder_without_a_table_is_named(tmp_path):
    with pytest.raises(InputError, match=r"metrics\.csv cannot be read"):
        as_history(tmp_path)
