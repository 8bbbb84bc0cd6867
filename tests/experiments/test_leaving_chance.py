from __future__ import annotations

import json

import pytest

from experiments import leaving_chance
from experiments.leaving_chance import RESULTS, Variant, measure, table
from torchdl.tasks import cpc


def test_the_table_has_every_result():
    kept = json.loads(RESULTS.read_text())
    rows = {cells[0]: cells[1:] for line in table(kept).splitlines()[2:] for cells in [line.strip("| ").split(" | ")]}
    assert set(rows) == {row["variant"] for row in kept}
    for row in kept:
        assert (f"{row['left']:,}" if row["left"] else f"not in {row['max_steps']:,}") == rows[row["variant"]][
            row["seed"]
        ]


@pytest.mark.slow
@pytest.mark.parametrize("left", [False, True])
def test_a_training_stops_when_its_loss_leaves_chance(monkeypatch, left):
    monkeypatch.setattr(leaving_chance, "setup_process", lambda threads: None)
    small = leaving_chance.load_digits
    monkeypatch.setattr(
        leaving_chance, "load_digits", lambda *given, **more: small(*given, **more | {"name": "mnist_5k"})
    )
    if left:
        monkeypatch.setattr(cpc, "LEFT", 2.0)  # any loss is below
    assert measure(Variant(batch_size=4, normed_codes=True), 0, 3, None) == (1 if left else None)
