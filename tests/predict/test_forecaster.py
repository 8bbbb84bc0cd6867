from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas
import pytest
import torch
from helpers import gaussian

import torchdl
from torchdl import InputError, SequenceModel, Series, Split
from torchdl.data.time_columns import later_times
from torchdl.files import PREPROCESSING
from torchdl.forecasts import drift, last_value, seasonal_last_value
from torchdl.plots import plot_forecast
from torchdl.predict import Forecaster, SeriesInput, load_predictor
from torchdl.recipes.forecasting import best_naive, evaluate_forecaster, forecasts, series_forecaster

WALK = Series(100 + gaussian(90, 2).double().cumsum(0), ("close", "volume"))
DAYS = pandas.date_range("2024-01-01", periods=90)
TABLE = pandas.DataFrame(WALK.values.numpy(), columns=WALK.columns, index=DAYS)
SPLIT = Split(WALK, 6, 30)


def forecaster(kind: str = "gru", given: int = 1, period: int = 0, returns: bool = False, **file) -> Forecaster:
    torch.manual_seed(0)
    split = Split(WALK.returns(), 6, 30) if returns else SPLIT
    model = SequenceModel(kind, 2, 2, 6, hidden=4, horizon=given)
    return series_forecaster(model, split, 5, period, "cpu", returns=returns, **file)


@pytest.fixture(autouse=True)
def _quick(quick):
    """Use one thread, which is faster for small tensors."""


# the training's own forecast


@pytest.mark.parametrize("given", [1, 5, 8])
@pytest.mark.parametrize("kind", ["linear", "lstm"])
def test_the_trainings_own_forecast_equals_that_of_a_file_to_the_bit(tmp_path, monkeypatch, kind, given):
    own, drawn = forecaster(kind, given), []
    monkeypatch.setattr("torchdl.recipes.forecasting.plot_forecast", lambda *a: (drawn.append(a), plot_forecast(*a))[1])
    report = evaluate_forecaster(own, SequenceModel("linear", 2, 2, 6, horizon=1), SPLIT)
    own.save(tmp_path / "run")
    shutil.move(tmp_path / "run", tmp_path / "copy")
    copy = load_predictor(tmp_path / "copy", "cpu")
    TABLE.to_csv(tmp_path / "prices.csv", index_label="day")
    found = copy.predict(tmp_path / "prices.csv")
    assert (
        dict(zip(WALK.columns, found.values.T.tolist(), strict=True))
        == report.results["terms after the series"]["forecast"]
    )
    assert found.rule == report.results["terms after the series"]["naive forecast"]
    TABLE[: SPLIT.boundary].to_csv(tmp_path / "before.csv", index_label="day")  # the figure's multi-step forecast
    known, boundary, one_step, multi_step, name, times = drawn[0]
    assert (boundary, name, times) == (60, "close", None)
    assert report.tables["forecasts"].to_dict("list") == {
        "actual": WALK.values[60:, 0].tolist(),
        "one_step": one_step.tolist(),
        "multi_step": multi_step.tolist(),
    }
    assert torch.equal(known, WALK.values[:, 0])
    assert torch.equal(copy.predict(tmp_path / "before.csv", horizon=30).values[:, 0], multi_step)
    every, _, _ = forecasts(own, SequenceModel("linear", 2, 2, 6, horizon=1), SPLIT, 5)
    single = torch.stack([copy.predict(WALK.values[: 60 + start]).values for start in range(len(every["drift"]))])
    assert torch.allclose(every[f"{kind}, trained"], single, rtol=1e-6)  # of all starts at once


@pytest.mark.parametrize("period", [0, 7])
def test_the_naive_forecast_is_the_one_that_was_best_in_training(period):
    own = forecaster(period=period)
    found = own.predict(WALK)
    assert found.rule == own.settings.naive == best_naive(SPLIT, 5, period)
    x, y = WALK.values[None], own.naive_forecasts(WALK.values[None])
    assert set(y) == {"last value", "mean of the training part", "drift", *(["season before"] if period else [])}
    expected = {"last value": last_value(x, 5), "drift": drift(x[:, -6:], 5)}
    expected |= {"season before": seasonal_last_value(x, 5, period)} if period else {}
    expected["mean of the training part"] = SPLIT.mean.expand(1, 5, 2)
    for name, values in expected.items():
        torch.testing.assert_close(y[name], values, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.naive, y[found.rule][0])


def test_forecasts_are_in_the_unit_of_the_series_and_move_with_it():
    found = forecaster().predict(WALK).values
    assert found.dtype == torch.float64
    assert bool(((found - SPLIT.mean).abs() < 10 * SPLIT.deviation).all())
    scale = SeriesInput.of(SPLIT)
    assert torch.equal(scale.scale(WALK.values), SPLIT.scaled)
    assert torch.equal(scale.unscale(SPLIT.scaled), SPLIT.unscale(SPLIT.scaled))


def test_prices_follow_from_the_forecast_returns():
    own = forecaster(returns=True)
    found, returns = own.predict(TABLE), WALK.returns()
    assert torch.equal(found.values, own.forecast_after(returns).values)
    last = WALK.values[-1]
    for step, (price, naive) in enumerate(zip(found.prices.values, found.prices.naive, strict=True)):
        np.testing.assert_allclose(price, last * (1 + found.values[: step + 1]).prod(0), rtol=1e-12)
        np.testing.assert_allclose(naive, last * (1 + found.naive[: step + 1]).prod(0), rtol=1e-12)
    again = Series(torch.cat([WALK.values, found.prices.values]), WALK.columns).returns()
    torch.testing.assert_close(again.values[-5:], found.values)
    assert torch.equal(found.known.values, returns.values)
    columns = ["return of close", "return of volume", "close", "volume"]
    table = found.to_frame()
    assert list(table.columns[2::2]) == columns
    assert list(table.columns[3::2]) == [f"{name}, {found.rule}" for name in columns]
    assert [axis.get_title(loc="left") for axis in found.figure().axes] == columns


def test_a_series_that_has_left_the_range_of_the_training_is_said_to_have():
    low, high = WALK.values[:60].amin(0), WALK.values[:60].amax(0)
    inside = ((low + high) / 2).expand(6, 2).clone()
    assert forecaster().predict(inside).notes == ()
    inside[0] = low
    inside[3] = high
    assert forecaster().predict(inside).notes == ()
    inside[2, 1] = high[1] + 100
    (note,) = forecaster().predict(inside).notes
    assert f"'volume' reaches {float(high[1]) + 100:.4g}" in note
    inside[1, 0] = -7
    assert "'close' reaches -7" in forecaster().predict(inside).notes[0]
    (note, *_) = forecaster(returns=True).predict(2.0 ** torch.arange(9)[:, None].expand(9, 2)).notes
    assert note.startswith("the return of 'close' reaches 1, ")
    below = {"low": (), "high": ()}
    unknown = replace(forecaster().settings, series=replace(forecaster().settings.series, **below))
    assert Forecaster(forecaster().model, unknown, "cpu").predict(inside).notes == ()


# what people have


def test_a_series_may_be_anything_that_holds_its_columns(tmp_path):
    own = forecaster()
    expected = own.predict(WALK)
    TABLE.assign(other="x")[["volume", "other", "close"]].to_csv(tmp_path / "prices.csv", index_label="day")
    swapped = Series(WALK.values[:, [1, 0]], ("volume", "close"))
    holders = [
        tmp_path / "prices.csv",
        str(tmp_path / "prices.csv"),
        swapped,
        TABLE[["volume", "close"]],
        TABLE.assign(other=np.nan),
        TABLE.reset_index(),
        TABLE.reset_index(drop=True),
        TABLE.astype(str),
        TABLE.to_period("D"),
        WALK.values,
        WALK.values.numpy(),
        WALK.values.tolist(),
        WALK.values[-6:],  # the window alone
    ]
    for holder in holders:
        assert torch.equal(own.predict(holder).values, expected.values), type(holder)
    for holder in holders[:2] + holders[3:6] + holders[7:9]:
        assert own.predict(holder).times.astype("datetime64[D]").astype(str).tolist() == [
            f"2024-03-{day}" for day in range(31, 32)
        ] + [f"2024-04-0{day}" for day in range(1, 5)]
    assert own.predict(WALK).times is None
    one = series_forecaster(SequenceModel("rnn", length=6, horizon=1), Split(WALK.select(["close"]), 6, 30), 5)
    for column in (TABLE["close"], TABLE["close"].rename(None), TABLE["close"].tolist(), WALK.values[:, 0]):
        assert torch.equal(one.predict(column).values, one.predict(WALK).values)


def test_a_file_is_read_as_training_did(tmp_path):
    rows = [f"{100 - row};{day:%d/%m/%Y};{row / 7:.6f}".replace(".", ",") for row, day in enumerate(DAYS[:30])]
    (tmp_path / "own.csv").write_text("\n".join(["id;day;close", *rows[::-1]]))
    file = {"format": torchdl.TableFormat(separator=";", decimal=","), "time": "day", "date_order": "day", "sort": True}
    series = torchdl.read_series(tmp_path / "own.csv", ["close"], **file)
    own = series_forecaster(SequenceModel("linear", length=3, horizon=1), Split(series, 3, 10), 2, device="cpu", **file)
    own.save(tmp_path / "run")
    found = load_predictor(tmp_path / "run", "cpu").predict(tmp_path / "own.csv")
    assert torch.equal(found.values, own.predict(series).values)
    assert str(found.times[0])[:10] == "2024-01-31"


@pytest.mark.parametrize(
    ("series", "said"),
    [
        (WALK.values[:5], "5 terms.* reads 6"),
        (WALK.values[:0], "0 terms"),
        (WALK.values[:, :1], r"close, volume.*\(L, 2\), not \(90, 1\)"),
        (WALK.values[:, 0], r"\(90, 1\)"),
        (WALK.values[None], r"\(1, 90, 2\)"),
        (WALK.values.where(WALK.values < 101, torch.nan), "finite"),
        (WALK.select(["close"]), "'volume'"),
        (TABLE[["close"]], "the table has no column 'volume'"),
        (TABLE.assign(volume="x"), "'x' instead of a number in column 'volume', row 0"),
        (TABLE.assign(close=TABLE["close"].drop(DAYS[7])), "nothing instead of a number in column 'close', row 7"),
        (TABLE[::-1], "earlier than the row before"),
        (TABLE[:0], "no rows"),
        (pandas.concat([TABLE, TABLE], axis=1), "several columns named 'close', 'volume'"),
        ("missing.csv", "missing.csv"),
        ({"close": [1, 2]}, "not a dict"),
        ([["a", "b"]], "not a list"),
        (None, r"not \(\)"),
    ],
)
def test_what_is_no_series_of_the_network_is_refused(series, said):
    with pytest.raises(InputError, match=said) as caught:
        forecaster().predict(series)
    assert "\n" not in str(caught.value)


def test_returns_need_one_more_term_and_no_prices_of_0():
    own = forecaster(returns=True)
    own.predict(WALK.values[-7:])
    with pytest.raises(InputError, match=r"6 terms.* reads 7"):
        own.predict(WALK.values[-6:])
    with pytest.raises(InputError, match="is 0"):
        own.predict(torch.zeros(9, 2))


def test_a_horizon_and_a_season_are_checked():
    with pytest.raises(InputError, match=r"horizon.* 0"):
        forecaster().predict(WALK, horizon=0)
    season = Forecaster.Settings(SeriesInput.of(SPLIT), 5, "season before", 12)
    own = Forecaster(SequenceModel("rnn", 2, 2, horizon=1), season, "cpu")
    assert torch.equal(own.predict(WALK.values[-12:], 2).naive, own.predict(WALK, 2).naive)
    torch.testing.assert_close(own.predict(WALK, 2).naive, WALK.values[-12:-10])
    with pytest.raises(InputError, match=r"11 terms.* 12"):
        own.predict(WALK.values[-11:])


def test_a_forecast_that_grows_beyond_all_numbers_is_refused():
    own = forecaster("linear")
    for parameter in own.model.parameters():
        torch.nn.init.constant_(parameter, 2.0)
    assert bool(own.predict(WALK, 20).values.isfinite().all())
    with pytest.raises(InputError, match=r"at step \d+: choose a smaller horizon"):
        own.predict(WALK, 200)
    with pytest.raises(InputError, match="at step 1: the series is too different"):
        own.predict(1e300 * WALK.values)


# times


@pytest.mark.parametrize(
    ("start", "spacing"),
    [
        ("2024-01-31", "D"),
        ("2024-01-05", "B"),
        ("2024-01-07", "W"),
        ("2023-11-30", "ME"),
        ("2024-01-01", "QS"),
        ("1700-01-01", "YS"),
        ("2024-02-28 23:10", "10min"),
    ],
)
def test_times_go_on_as_they_were(start, spacing):
    whole = pandas.date_range(pandas.Timestamp(start).as_unit("us"), periods=12, freq=spacing).to_numpy()
    assert np.array_equal(later_times(whole[:9], 3), whole[9:])


def test_times_that_are_not_equally_spaced_are_not_continued():
    assert later_times(DAYS.delete([5, 30]).to_numpy(), 3) is None
    assert later_times(DAYS[:2].to_numpy(), 3) is None
    found = forecaster().predict(TABLE.drop(DAYS[20]))
    assert found.times is None
    assert list(found.to_frame().columns[:2]) == ["step", "close"]


# the figure


def test_the_figure_has_the_last_terms_and_both_forecasts():
    found = forecaster().predict(TABLE)
    for figure, first in ((found.figure(8), DAYS[82]), (found.figure(), DAYS[40])):
        for number, axis in enumerate(figure.axes):
            known, ours, naive = axis.lines
            assert known.get_xdata()[0] == first.to_numpy()
            np.testing.assert_array_equal(known.get_ydata()[-8:], WALK.values[-8:, number])
            last = float(WALK.values[-1, number])
            assert ours.get_ydata().tolist() == [last, *found.values[:, number].tolist()]
            assert naive.get_ydata().tolist() == [last, *found.naive[:, number].tolist()]
            assert ours.get_xdata()[-1] == found.times[-1]
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["known", "forecast", found.rule]
    (axis, _) = forecaster().predict(WALK).figure(8).axes
    assert axis.lines[0].get_xdata().tolist() == list(range(-7, 1))
    with pytest.raises(InputError, match="1 or more"):
        found.figure(0)


# strangers' files


CHANGES = {
    "horizon": 0,
    "naive": "oracle",
    "period": -1,
    "series.columns": ["close"],
    "series.mean": [1.0],
    "series.deviation": [1.0, 0.0],
    "series.length": 5,
    "series.low": [0.0],
    "series.format": {"separator": "ab"},
    "series.date_order": "year",
    "series": 3,
}


@pytest.mark.parametrize("key", CHANGES)
def test_settings_of_another_model_or_a_strangers_are_refused(tmp_path, key):
    forecaster("linear").save(tmp_path)
    saved = json.loads((tmp_path / PREPROCESSING).read_text())
    *places, last = ("settings." + key).split(".")
    part = saved
    for place in places:
        part = part[place]
    part[last] = CHANGES[key]
    (tmp_path / PREPROCESSING).write_text(json.dumps(saved))
    with pytest.raises(InputError, match=PREPROCESSING) as caught:
        load_predictor(tmp_path)
    assert "\n" not in str(caught.value)
