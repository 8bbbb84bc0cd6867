from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments import leaving_chance
from experiments.leaving_chance import RESULTS, Variant, measure, table
from torchdl.tasks import cpc

ROOT = Path(__file__).resolve().parents[2]


def test_the_guides_table_is_that_of_the_results():
    assert table(json.loads(RESULTS.read_text())) in (ROOT / "GUIDE.md").read_text(encoding="utf-8")


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
