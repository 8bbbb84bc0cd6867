from __future__ import annotations

import json
import math
import re
from functools import partial

import numpy as np
import pytest
import scipy.fft
import scipy.signal
import scipy.stats
import torch
from helpers import gaussian
from sklearn import metrics as sklearn_metrics
from torch import Tensor, nn

from torchdl import InputError, SequenceModel, Trainer
from torchdl.data.series import Series, Split, Windows, google_prices, sine
from torchdl.forecasts import drift, fit_linear_, forecast, last_value, seasonal_last_value
from torchdl.metrics import error_ratio, forecast_errors
from torchdl.recipes.forecasting import (
    best_naive,
    conclusion,
    direction_data,
    direction_forecaster,
    direction_training,
    evaluate_direction,
    evaluate_forecaster,
    forecaster_training,
    forecasts,
    rises,
    series_forecaster,
    verdict,
    weights_of,
)
from torchdl.recipes.learning import Learning

FORECAST = "forecast.py --out . --threads 1 --device cpu"


# forecasts


class Shaped(nn.Module):
    """A model whose next terms are known functions of the last two, with an output shape to choose."""

    def __init__(self, given: int | None) -> None:
        super().__init__()
        self.given = given

    def forward(self, x: Tensor) -> Tensor:
        terms = [*x.unbind(1)]
        for _ in range(self.given or 1):
            terms.append(0.5 * terms[-1] - 0.3 * terms[-2] + 0.1)
        return terms[-1] if self.given is None else torch.stack(terms[x.shape[1] :], 1)


@pytest.mark.parametrize("given", [None, 1, 3, 4, 20])
@pytest.mark.parametrize("horizon", [1, 7, 8])
def test_forecasting_all_starts_at_once_equals_the_lectures_loop(given, horizon):
    x = gaussian(5, 4, 2, dtype=torch.float64)
    found = forecast(Shaped(given), x, horizon)
    for start in range(5):
        window, predictions = x[start].numpy().copy(), []
        while len(predictions) < horizon:  # lecture 39's
            p = Shaped(None)(torch.from_numpy(window)[None])[0].numpy()
            predictions.append(p)
            window = np.roll(window, -1, axis=0)
            window[-1] = p
        np.testing.assert_allclose(found[start].numpy(), np.array(predictions), rtol=1e-12)
    assert found.dtype == torch.float64


def test_a_horizon_of_0_and_a_model_of_another_width_are_refused():
    with pytest.raises(InputError, match=r"horizon.* 0"):
        forecast(Shaped(1), gaussian(2, 4, 1), 0)
    with pytest.raises(InputError, match="2 numbers"):
        forecast(SequenceModel("gru", 2, 1), gaussian(2, 4, 2), 3)


def test_naive_forecasts_equal_a_loop():
    x = gaussian(6, 5, 2)
    for n, d in np.ndindex(6, 2):
        seen = x[n, :, d].tolist()
        slope = (seen[-1] - seen[0]) / 4
        for h in range(7):
            assert last_value(x, 7)[n, h, d] == seen[-1]
            assert seasonal_last_value(x, 7, 3)[n, h, d] == seen[2 + h % 3]
            assert drift(x, 7)[n, h, d] == pytest.approx(seen[-1] + slope * (h + 1), rel=1e-5, abs=1e-5)
    with pytest.raises(InputError, match=r"period.* 5 .*not 6"):
        seasonal_last_value(x, 2, 6)
    with pytest.raises(InputError, match="two terms"):
        drift(x[:, :1], 2)
    for function in (last_value, drift, partial(seasonal_last_value, period=2)):
        with pytest.raises(InputError, match=r"horizon.* 0"):
            function(x, horizon=0)


def test_ar_2_recovers_a_sine_and_forecasts_it_without_error_as_lecture_40_proves():
    split = Split(sine(), 2, 100)
    raw = sine().values.float()
    x, y = raw[:100].unfold(0, 3, 1).transpose(1, 2).split([2, 1], 1)  # windows of 2 terms and the next one
    model = fit_linear_(SequenceModel("linear", length=2, horizon=1), x, y)
    weight, bias = model.head.parameters()
    np.testing.assert_allclose(weight.detach()[0], [-1, 2 * math.cos(0.1)], atol=1e-4)  # older term first
    assert float(bias.detach()) == pytest.approx(0, abs=1e-5)
    forecaster = series_forecaster(model, split, 100, device="cpu")
    linear = SequenceModel("linear", length=2, horizon=1)
    report = evaluate_forecaster(forecaster, linear, split, {"2 cos w and -1": (2 * math.cos(0.1), -1.0)})
    weights = report.results["weights"]["least squares"]
    assert list(weights) == ["x[t-1]", "x[t-2]", "constant"]  # the last term first
    assert list(weights.values()) == pytest.approx([2 * math.cos(0.1), -1, 0], abs=1e-4)
    table = [line.split() for line in report.summary.splitlines()[-4:]]
    assert table[0] == ["weights", "x[t-1]", "x[t-2]", "constant"]
    assert [row[-3:] for row in table[2:]] == [["1.9900", "-1.0000", table[2][-1]], ["1.9900", "-1.0000", "0.0000"]]
    predictions, actual, _ = forecasts(forecaster, model, split, 100)
    error = predictions["AR(2), least squares"] - actual
    assert error.shape == (1, 100, 1)
    assert float(error.square().mean().sqrt()) < 1e-3


def test_least_squares_equal_numpys():
    x, y = gaussian(40, 3, 2), gaussian(40, 4, seed=1)
    model = fit_linear_(SequenceModel("linear", 2, 2, length=3, horizon=2), x, y.view(40, 2, 2))
    rows = np.concatenate([x.reshape(40, 6).numpy(), np.ones((40, 1))], 1).astype("float64")
    expected = np.linalg.lstsq(rows, y.numpy().astype("float64"), rcond=None)[0]
    weight, bias = (p.detach().numpy() for p in model.head.parameters())
    np.testing.assert_allclose(np.vstack([weight.T, bias]), expected, atol=1e-5)
    with pytest.raises(InputError, match="gru"):
        fit_linear_(SequenceModel("gru", 2, 2), x, y)
    with pytest.raises(InputError, match="Linear"):
        fit_linear_(torch.nn.Linear(2, 1), x, y)


def random_walk(length: int = 400, seed: int = 0) -> Tensor:
    return gaussian(length, 1, seed=seed).double().cumsum(0)


ILL_CONDITIONED = {
    "prices as they are": torch.cat([100 + random_walk(), 5e6 * (20 + gaussian(400, 1, seed=1).double())], 1),
    "open and close": torch.cat([500 + random_walk(), 500 + random_walk() + 0.01 * gaussian(400, 1, seed=1)], 1),
    "a level of 5e7": 5e7 + random_walk(),
    "a level and a trend": 5e7 + 3 * torch.arange(400.0)[:, None].double() + gaussian(400, 1),
    "small numbers": 1e-9 * random_walk(),
    "nearly collinear": torch.cat([random_walk(), random_walk() + 1e-6 * gaussian(400, 1, seed=2)], 1),
    "a constant column": torch.cat([random_walk(), torch.full((400, 1), 7.0).double()], 1),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", ILL_CONDITIONED)
def test_ill_conditioned_least_squares_leave_the_residual_of_numpys(case, dtype):
    x, y = Windows(ILL_CONDITIONED[case].to(dtype), 10)[:]
    model = fit_linear_(SequenceModel("linear", x.shape[2], x.shape[2], length=10, horizon=1).to(dtype), x, y)
    rows, targets = x.flatten(1).double().numpy(), y.flatten(1).double().numpy()
    weight, bias = (p.detach().double().numpy() for p in model.head.parameters())
    found = np.square(rows @ weight.T + bias - targets).mean(0)
    centred = np.c_[rows - rows.mean(0), np.ones(len(rows))]
    least = np.square(centred @ np.linalg.lstsq(centred, targets, rcond=None)[0] - targets).mean(0)
    tolerance = 1e-6 if dtype == torch.float64 else 1e-2  # weights of 1e5 are rounded, too
    assert (found <= (1 + tolerance) * least + 1e-20).all()


@pytest.mark.parametrize("length", [10, 50])
def test_the_smallest_of_many_solutions_forecasts_a_sine_far_ahead(length):
    split = Split(sine(), length, 100)
    model = fit_linear_(SequenceModel("linear", length=length, horizon=1), *split.train()[:])
    x, y = split.test(100)[:]
    assert float((forecast(model, x, 100) - y).detach().abs().max()) < 1e-4


def test_windows_that_do_not_fit_the_linear_model_are_one_sentence():
    x, y = gaussian(20, 3, 1), gaussian(20, 1)
    for window, target, message in (
        (gaussian(20, 4, 1), y, "reads 3 numbers.* 4"),
        (x, y[:-1], "19 for 20"),
        (x[:0], y[:0], "0 for 0"),
        (x.where(x < 1, math.nan), y, "finite"),
    ):
        with pytest.raises(InputError, match=message):
            fit_linear_(SequenceModel("linear", length=3), window, target)


# metrics


def test_errors_equal_scikit_learns_and_their_definitions():
    predicted, actual, last = gaussian(30, 4), gaussian(30, 4, seed=1), gaussian(30, seed=2)
    found = forecast_errors(predicted, actual, last, scale=0.8)
    flat = actual.flatten(), predicted.flatten()
    assert found["mae"] == pytest.approx(sklearn_metrics.mean_absolute_error(*flat), rel=1e-5)
    assert found["rmse"] == pytest.approx(sklearn_metrics.root_mean_squared_error(*flat), rel=1e-5)
    assert found["mase"] == pytest.approx(found["mae"] / 0.8)
    correct = [(p > b) == (a > b) for p, a, b in zip(predicted, actual, last, strict=True)]
    assert found["direction"] == pytest.approx(float(torch.stack(correct).double().mean()))


def test_directions_count_only_changes_and_are_nan_for_constant_forecasts():
    last, actual = torch.tensor([1.0, 1.0, 1.0]), torch.tensor([[2.0], [1.0], [0.0]])
    assert forecast_errors(torch.tensor([[3.0], [9.0], [2.0]]), actual, last, 1.0)["direction"] == 0.5
    assert math.isnan(forecast_errors(last[:, None], actual, last, 1.0)["direction"])


def test_the_ratio_of_equal_errors_is_1_and_that_of_doubled_errors_2():
    error = gaussian(50, 3)
    assert error_ratio(error, error, 5) == pytest.approx((1, 1, 1))
    assert error_ratio(2 * error, error, 5) == pytest.approx((2, 2, 2))
    other = gaussian(50, 3, seed=1)
    assert error_ratio(7 * error, 7 * other, 5) == pytest.approx(error_ratio(error, other, 5))
    ratio, low, high = error_ratio(error, other, 5)
    expected = math.sqrt(float(error.square().mean() / other.square().mean()))
    assert ratio == pytest.approx(expected, rel=1e-6)
    assert low < ratio < high
    assert math.isnan(error_ratio(error, torch.zeros(50, 3), 5)[0])


def walks_ahead(seed: int, starts: int, horizon: int) -> list[Tensor]:
    """Errors (N, H) of last-value forecasts of two random walks: equal skill, and windows that overlap."""
    changes = gaussian(2, starts + horizon - 1, seed=seed).double()
    return [*changes.unfold(1, horizon, 1).cumsum(2)]


def biased_walks(seed: int, starts: int, horizon: int) -> list[Tensor]:
    """Errors (N, H) of forecasts of one random walk, each with a bias of its own that lasts for 30 starts or so."""
    shared = walks_ahead(seed, starts, horizon)[0]
    shocks = gaussian(2, starts + 200, seed=10_000 + seed).double().numpy()
    bias = torch.from_numpy(scipy.signal.lfilter([(1 - 0.97**2) ** 0.5], [1, -0.97], shocks)[:, 200:].copy())
    return [shared + b[:, None] * torch.arange(1, horizon + 1).double().sqrt() for b in bias]


@pytest.mark.slow
@pytest.mark.parametrize("pair", [walks_ahead, biased_walks])
@pytest.mark.parametrize("starts", [25, 81, 181, 611])
def test_the_interval_of_two_forecasts_of_equal_skill_contains_1_in_93_percent_of_cases(pair, starts):
    intervals = np.array([error_ratio(*pair(seed, starts, 20))[1:] for seed in range(500)])
    assert (intervals[:, 0] < intervals[:, 1]).all()
    assert ((intervals[:, 0] <= 1) & (intervals[:, 1] >= 1)).mean() >= 0.93
    assert np.isinf(intervals[:, 1]).all() == (starts == 25)


def test_the_interval_contains_the_truth_in_95_percent_of_cases():
    covered = 0
    for seed in range(200):
        _, low, high = error_ratio(gaussian(150, seed=seed), gaussian(150, seed=1000 + seed), 1)
        covered += low <= 1 <= high
    assert 180 <= covered <= 199  # 95 % of 200 are 190


def test_the_interval_inverts_a_test_of_the_mean_difference():
    errors, count = gaussian(2, 100, 3).double(), int((100 / 10) ** (2 / 3))
    _, low, high = error_ratio(*errors, block=10)
    for r in (low, high):
        difference = (errors[0].square() - r**2 * errors[1].square()).mean(1).numpy()
        parts = scipy.fft.dct(difference, norm="ortho")[1 : count + 1]
        statistic = 10 * difference.mean() / np.sqrt(np.square(parts).mean())
        assert 2 * scipy.stats.t.sf(abs(statistic), count) == pytest.approx(0.05)


def test_the_interval_of_the_inverse_ratio_is_the_inverse():
    for seed in range(20):
        one, other = gaussian(2, 60, seed=seed)
        ratio, low, high = error_ratio(one, other, 20)
        assert (1 / ratio, 1 / high, 1 / low if low else math.inf) == pytest.approx(error_ratio(other, one, 20))


@pytest.mark.parametrize(("count", "horizon"), [(1, 1), (1, 20), (25, 20), (39, 20), (40, 41)])
def test_fewer_terms_than_two_blocks_have_no_verdict(count, horizon):
    ratio, low, high = error_ratio(gaussian(count, horizon), gaussian(count, horizon, seed=1))
    assert (low, high) == (0, math.inf)
    assert 0 < ratio < math.inf
    assert "no verdict" in verdict("far", "drift", ratio, low, high)


@pytest.mark.parametrize("value", [math.inf, math.nan, 1e300])
def test_a_forecast_that_diverges_is_worse(value):
    error = gaussian(100, 2).double()
    error[7, 1] = value
    infinite = error_ratio(error, gaussian(100, 2, seed=1))
    assert infinite == (math.inf,) * 3
    assert verdict("far", "drift", *infinite).endswith("the model is WORSE")


def test_errors_that_cannot_be_compared_are_one_sentence():
    error = gaussian(50)
    for arguments, message in (
        ((error, error[1:]), "shape"),
        ((error[:0], error[:0]), "empty"),
        ((error, error, 0), "block.* 0"),
        ((error, error, 5, 95), "level.* 95"),
    ):
        with pytest.raises(InputError, match=message):
            error_ratio(*arguments)


def test_longer_blocks_widen_the_interval_of_correlated_errors():
    alike, other = (gaussian(40, seed=s).repeat_interleave(20) for s in (0, 1))
    widths = [np.subtract(*error_ratio(alike, other, block)[:0:-1]) for block in (1, 40)]
    assert widths[1] > 2 * widths[0]


def test_a_verdict_claims_no_more_than_the_interval():
    assert "better" in conclusion(0.4, 0.6)
    assert "WORSE" in conclusion(1.4, 2.6)
    assert not any(word in conclusion(0.8, 1.1) for word in ("better", "WORSE"))
    assert verdict("one", "drift", 0.5, 0.4, 0.6).endswith(conclusion(0.4, 0.6))
    nothing_to_beat = verdict("one", "drift", math.nan, math.nan, math.nan)
    assert "drift" in nothing_to_beat
    assert "nan" not in nothing_to_beat


# the direction of prices


def test_labels_are_the_rises_at_the_next_term_split_by_time():
    prices = google_prices()
    split = Split(prices, 10, 300)
    train, test = rises(split, "close")
    close = prices.values[:, 3]
    assert len(train) == split.boundary - 10
    assert len(test) == 300
    for i in (0, 5, len(train) - 1):
        assert float(train.targets[i]) == float(close[i + 10] > close[i + 9])
        assert torch.equal(train.inputs[i], split.scaled[i : i + 10])
    for i in (0, 5, 299):
        at = split.boundary + i
        assert float(test.targets[i]) == float(close[at] > close[at - 1])
        assert torch.equal(test.inputs[i], split.scaled[at - 10 : at])


def test_weights_are_those_of_the_series_in_its_unit():
    split = Split(Series(torch.tensor([[3.0], [7.0], [4.0], [9.0], [1.0], [6.0]], dtype=torch.float64), ("x",)), 3, 1)
    torch.manual_seed(0)
    model = SequenceModel("linear", length=3, horizon=1)
    *weights, constant = weights_of(model, split).values()
    by_hand = constant + weights[0] * 4.0 + weights[1] * 7.0 + weights[2] * 3.0
    assert by_hand == pytest.approx(float(split.unscale(model(split.scaled[None, :3]).detach())), rel=1e-5)
    assert weights_of(SequenceModel("mlp", length=3), split) == {}
    assert weights_of(SequenceModel("linear", 2, 2, length=3), split) == {}


# the recipes


def test_a_trained_linear_model_is_compared_with_all_baselines(quick, capsys):
    split = Split(sine(), 10, 100)
    torch.manual_seed(0)
    model, linear = (SequenceModel("linear", length=10, horizon=1) for _ in range(2))
    training = forecaster_training(model, split, 20, 63, Learning(lr=1e-2))
    Trainer(epochs=20, device="cpu").fit(*training)
    forecaster = series_forecaster(model, split, 20, 63, "cpu")
    report = evaluate_forecaster(forecaster, linear, split)
    results = report.results
    assert (results["train"], results["held out"], results["parameters"]) == (100, 100, 11)
    assert list(results["errors"]) == ["one step ahead", "20 steps ahead"]
    for errors in results["errors"].values():
        assert list(errors)[:2] == ["linear, trained", "AR(10), least squares"]
        assert set(errors) >= {"last value", "mean of the training part", "drift", "season before"}
        assert errors["AR(10), least squares"]["rmse"] < 1e-3
    for horizon, (title, against) in zip((1, 20), results["against the best naive forecast"].items(), strict=True):
        rmse = {name: row["rmse"] for name, row in results["errors"][title].items()}
        naive = against["naive forecast"]
        assert naive == best_naive(split, horizon, 63)
        assert against["ratio"] == pytest.approx(rmse["linear, trained"] / rmse[naive], rel=1e-5)
        assert verdict(title, **against_arguments(against)) in report.summary
    assert set(report.figures) == {"forecast", "errors"}
    assert not capsys.readouterr().out


def against_arguments(against: dict) -> dict:
    return {"naive": against["naive forecast"], **{key: against[key] for key in ("ratio", "low", "high")}}


def test_the_naive_forecast_to_beat_is_chosen_before_the_test_part_is_seen():
    walk, noise, season = random_walk(200), gaussian(200, 1).double(), sine(200, 2 * math.pi / 8).values
    line = torch.arange(200.0)[:, None].double() + 0.01 * noise
    expected = {"last value": walk, "mean of the training part": noise, "drift": line, "season before": season}
    for name, values in expected.items():
        for test_part in (values[100:], values[100:].flip(0) ** 2, torch.full((100, 1), 1e6).double()):
            split = Split(Series(torch.cat([values[:100], test_part]), ("x",)), 2, 100)
            assert best_naive(split, 3, 8) == name
            assert best_naive(split, 100, 8) == best_naive(split, 92, 8)  # the training part has room for 92 terms


def test_predicted_directions_are_compared_with_the_more_frequent_direction(quick, capsys):
    split = Split(google_prices(), 5, 100)
    data = direction_data(split, "close")
    torch.manual_seed(0)
    model = SequenceModel("rnn", 5, 1, 5, hidden=4)
    Trainer(epochs=1, device="cpu").fit(*direction_training(model, data, Learning()))
    report = evaluate_direction(direction_forecaster(model, split, "close", "cpu"), split)
    results, ups = report.results, float(data.test.targets.mean())
    with torch.no_grad():
        correct = (model(data.test.inputs) > 0) == (data.test.targets > 0.5)
    assert results["accuracy"] == pytest.approx(float(correct.double().mean()))
    rising = float(data.train.targets.mean()) > 0.5
    baseline = ups if rising else 1 - ups
    assert results["accuracy of the more frequent answer"] == pytest.approx(baseline)
    against = results["wrong answers against it"]
    assert against["ratio"] == pytest.approx((1 - results["accuracy"]) / (1 - baseline))
    assert against["low"] <= against["ratio"] <= against["high"]
    assert f"{results['accuracy']:.1%} on 100" in report.summary
    assert not capsys.readouterr().out


def test_what_cannot_be_forecast_is_refused_before_training():
    model = SequenceModel("linear", length=10, horizon=1)
    for horizon, period in ((200, 0), (1, 150)):
        with pytest.raises(InputError, match=str(max(horizon, period))):
            forecaster_training(model, Split(sine(), 10, 100), horizon, period, Learning())
    rising = Series(torch.cat([gaussian(15, 1).double(), torch.arange(20, 40).double()[:, None]]), ("price",))
    with pytest.raises(InputError, match=r"price.* rises"):
        direction_data(Split(rising, 3, 10), "price")
    with pytest.raises(InputError, match="clse"):
        direction_data(Split(google_prices(), 3, 10), "clse")


# the script


@pytest.mark.slow
def test_a_trained_linear_model_forecasts_a_sine_100_steps_ahead(run, tmp_path):
    done = run(f"{FORECAST} sine --horizon 100 --epochs 100 --name x --period 63", tmp_path)
    assert done.code == 0, done.err
    results = json.loads((tmp_path / "forecast" / "x" / "results.json").read_text())
    far = results["errors"]["100 steps ahead"]
    assert far["linear, trained"]["rmse"] < 1e-3
    assert far["AR(10), least squares"]["rmse"] < 1e-3
    assert far["last value"]["rmse"] > 0.3
    assert set(far) >= {"drift", "season before", "mean of the training part"}
    assert "the model is better" in done.out
    for name in ("forecast", "errors", "history"):
        assert (tmp_path / "forecast" / "x" / "plots" / f"{name}.png").stat().st_size > 10_000
    again = run(f"{FORECAST} --resume forecast/x --epochs 101", tmp_path)
    assert again.code == 2  # its schedule has ended
    assert "303 steps" in again.err


@pytest.mark.slow
def test_a_users_prices_are_forecast_in_one_step(run, tmp_path):
    rows = ["date,price,other"] + [f"2020-01-{day:02},{100 + day % 7},x" for day in range(1, 32)]
    (tmp_path / "own.csv").write_text("\n".join(rows))
    options = "--csv own.csv --column price --length 3 --horizon 4 --direct --epochs 2 --name x --model gru"
    done = run(f"{FORECAST} prices {options}", tmp_path)
    assert done.code == 0, done.err
    architecture = json.loads((tmp_path / "forecast" / "x" / "architecture.json").read_text())
    assert architecture["arguments"]["horizon"] == 4
    assert "4 steps ahead, 13 forecasts" in done.out  # of 16 test terms


@pytest.mark.slow
def test_inputs_of_a_users_prices_are_named_and_sorted_if_asked(run, tmp_path):
    rows = [
        f'2020-{1 + day // 28:02}-{1 + day % 28:02},{100 + day % 7},"1,{day**2 % 1000:03}",{day}' for day in range(60)
    ]
    (tmp_path / "own.csv").write_text("\n".join(["ds,price,volume,id", *rows[::-1]]))
    options = "direction --csv own.csv --column price --length 3 --epochs 1 --hidden 2"
    done = run(f"{FORECAST} {options} --name x", tmp_path)
    assert done.code == 2
    assert "'2020-03-03' as 'ds' in row 3" in done.err
    assert "(--sort)" in done.err
    done = run(f"{FORECAST} {options} --sort --name x", tmp_path)
    assert done.code == 0, done.err
    assert "60 terms of price, volume from own.csv; sorted by 'ds'; " in done.out
    assert "2 of 59 steps are at least twice the usual 1 day" in done.out
    assert "left out: 'id'" in done.out
    done = run(f"{FORECAST} {options} --sort --inputs id --name y", tmp_path)
    assert done.code == 0, done.err
    assert "60 terms of id, price from own.csv; sorted by 'ds'" in done.out


@pytest.mark.slow
def test_returns_have_a_histogram_and_dates(run, tmp_path):
    done = run(f"{FORECAST} returns --google --epochs 1 --hidden 2 --name x", tmp_path)
    assert done.code == 0, done.err
    folder = tmp_path / "forecast" / "x"
    assert (folder / "plots" / "returns.png").stat().st_size > 5_000
    _, *rows = (folder / "forecasts.csv").read_text().splitlines()
    day, actual, *_ = rows[-1].split(",")
    close = google_prices().values[:, 3]
    assert (len(rows), day[:10]) == (523, "2008-10-14")
    assert float(actual) == pytest.approx(float(close[-1] / close[-2] - 1))
    assert "weights" not in done.out  # which an LSTM has too many of


@pytest.mark.slow
def test_directions_of_prices_are_predicted_beside_the_more_frequent_direction(run, tmp_path):
    done = run(f"{FORECAST} direction --google --epochs 1 --name x --hidden 4", tmp_path)
    assert done.code == 0, done.err
    results = json.loads((tmp_path / "forecast" / "x" / "results.json").read_text())
    close = google_prices().values[:, 3]
    ups = (close[1:] > close[:-1]).double()
    test = ups[-results["held out"] :]
    baseline = float(ups[9 : -results["held out"]].mean() > 0.5)
    assert results["accuracy of the more frequent answer"] == pytest.approx(float((test == baseline).double().mean()))
    assert f"accuracy {results['accuracy']:.1%} on {results['held out']} terms" in done.out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("sine --test-share 1.5", "test-share.* 1.5"),
        ("sine --length 150", "200.* 150"),
        ("sine --horizon 200", "200"),
        ("sine --period 150", "200.* 150"),
        ("sine --hidden 0 --model mlp", "hidden.* 0"),
        ("direction --csv rising.csv --column price", "price.* rises"),
        ("sine --model mlp --activation none", "activation"),
        ("prices --google --column clse", "clse.* open, high, low, close, volume"),
        ("direction --google --column clse", "clse"),
        ("prices --csv none.csv", "none.csv"),
        ("--csv own.csv", "there is no file own.csv"),
        ("sine --csv own.csv", "sine.* --csv"),
        ("prices --google --csv own.csv", "--csv and --google"),
        ("prices --google --inputs open", "--inputs .*prices"),
        ("direction --google --inputs opn", "opn.* open, high, low, close, volume"),
    ],
)
def test_wrong_options_are_an_error_of_one_line(run, arguments, message, tmp_path):
    prices = [*torch.arange(30).remainder(4).tolist(), *range(20)]
    (tmp_path / "rising.csv").write_text("\n".join(["price", *map(str, prices)]))
    done = run(f"{FORECAST} {arguments} --name x --epochs 1", tmp_path)
    assert not (tmp_path / "forecast").exists()
    assert done.code == 2
    assert re.search(message, done.err)
    assert "Traceback" not in done.err
    assert len(done.err.strip().splitlines()) == 1


@pytest.mark.slow
def test_a_series_with_a_gap_is_refused_with_its_row(run, tmp_path):
    (tmp_path / "own.csv").write_text("close\n1\n2\n\n4\n")
    done = run(f"{FORECAST} returns --csv own.csv", tmp_path)
    assert done.code == 2
    assert re.search("close.*row 4", done.err)


def test_no_column_may_be_constant():
    values = torch.cat([gaussian(40, 1), torch.ones(40, 1)], 1).double()
    with pytest.raises(InputError, match="'b'"):
        Split(Series(values, ("a", "b")), 3, 10)
