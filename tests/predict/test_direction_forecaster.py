from __future__ import annotations

import json

import pytest
import torch

from torchdl import InputError, SequenceModel, Split, google_prices
from torchdl.files import PREPROCESSING
from torchdl.predict import DirectionForecaster, load_predictor
from torchdl.recipes.forecasting import direction_data, direction_forecaster, evaluate_direction, rises

PRICES = google_prices()
SPLIT = Split(PRICES, 5, 300)


def forecaster() -> DirectionForecaster:
    torch.manual_seed(0)
    return direction_forecaster(SequenceModel("gru", 5, 1, 5, hidden=4), SPLIT, "close", "cpu")


def test_the_trainings_own_probability_equals_that_of_a_copied_run_to_the_bit(quick, tmp_path):
    own = forecaster()
    report = evaluate_direction(own, SPLIT)
    own.save(tmp_path)
    found = load_predictor(tmp_path, "cpu").predict(PRICES)
    assert found.probability == report.results["probability of a rise after the series"]
    train, test = direction_data(SPLIT, "close")
    with torch.no_grad():
        expected = own.model(test.inputs).sigmoid().flatten()
    correct = (expected > 0.5) == (test.targets[:, 0] > 0.5)
    assert report.results["accuracy"] == pytest.approx(float(correct.double().mean()))
    for start in (0, 7, 299):  # what was known before each test term
        known = PRICES.values[: SPLIT.boundary + start]
        assert own.predict(known).probability == pytest.approx(float(expected[start]), rel=1e-5)
    assert found.rises == pytest.approx(float(train.targets.mean()))
    assert found.last == float(PRICES.values[-1, 3])
    assert forecaster().predict(PRICES.values[:20]).notes == ()
    assert "'open' reaches" in forecaster().predict(10 * PRICES.values).notes[0]
    for scaled, raw in zip((train, test), rises(SPLIT, "close", PRICES.values), strict=True):
        assert torch.equal(own.settings.series.scale(raw.inputs), scaled.inputs)
        assert torch.equal(raw.targets, scaled.targets)


def test_an_answer_becomes_a_table_that_needs_all_columns():
    found = forecaster().predict(PRICES)
    (row,) = found.to_frame().to_dict("records")
    assert row["column"] == "close"
    assert row["next"] == ("rises" if found.probability > 0.5 else "falls or stays")
    assert row["probability that it rises"] == found.probability
    with pytest.raises(InputError, match="'volume'"):
        forecaster().predict(PRICES.select(["open", "high", "low", "close"]))
    with pytest.raises(InputError, match=r"4 terms.* 5"):
        forecaster().predict(PRICES.values[-4:])


@pytest.mark.parametrize(("key", "value"), [("target", "clse"), ("rises", 2.0), ("rises", None), ("series", {})])
def test_settings_that_are_not_sound_are_refused(tmp_path, key, value):
    forecaster().save(tmp_path)
    saved = json.loads((tmp_path / PREPROCESSING).read_text())
    saved["settings"][key] = value
    (tmp_path / PREPROCESSING).write_text(json.dumps(saved))
    with pytest.raises(InputError, match=PREPROCESSING):
        load_predictor(tmp_path)


def test_a_forecaster_of_terms_is_no_forecaster_of_directions():
    with pytest.raises(InputError, match="not a direction"):
        direction_forecaster(SequenceModel("gru", 5, 1, 5, horizon=1), SPLIT, "close")
