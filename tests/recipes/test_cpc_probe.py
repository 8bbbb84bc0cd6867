from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from helpers import fill_, gaussian
from torch import nn

from torchdl import BatchLoader, Digits
from torchdl.models import probe_head
from torchdl.recipes import cpc_probe
from torchdl.recipes.cpc_probe import Embeddings, describe, encode, few_labels, map_embeddings, probe, probe_report

CLASSES = 4
PROBES = ["mlp", "linear", "knn", "k-means", "1 label a class, nearest", "1 label a class, cluster"]
SHARES = ["1% of the labels", "10% of the labels"]


def blobs(n: int, seed: int, distance: float = 30.0, views: int = 1) -> Embeddings:
    """Make embeddings around a corner of a cube for each label; with distance 0, of noise only."""
    labels = torch.arange(n) % CLASSES
    return Embeddings(distance * torch.eye(8)[labels] + gaussian(views, n, 8, seed=seed), labels)


def head() -> nn.Module:
    return fill_(probe_head(8, CLASSES))


# embeddings


def test_every_epoch_uses_the_next_view():
    codes = Embeddings(gaussian(3, 20, 5), torch.arange(20))
    assert len(codes) == 20
    loader = BatchLoader(codes, 8, shuffle=True)
    for epoch in range(7):
        order = loader.order(epoch)
        batches = [batch for batch, _ in loader.batches(epoch)]
        assert torch.equal(torch.cat([x for x, _ in batches]), codes.codes[epoch % 3, order])
        assert torch.equal(torch.cat([y for _, y in batches]), order)


@pytest.mark.parametrize("count", [20, 600])  # 600 are more than one batch
def test_embeddings_are_the_encoders_outputs_for_each_epochs_images(count):
    images = torch.randint(256, (count, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    data = Digits(images, torch.arange(count) * 3 % 10, 8)
    encoder = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(3 * 64), nn.Linear(3 * 64, 6), nn.Dropout(0.5)).train()
    codes = encode(encoder, data, views=3, device="cpu")
    assert codes.codes.shape == (3, count, 6)
    assert not codes.codes.requires_grad
    assert torch.equal(codes.labels, data.labels)
    assert all(module.training for module in encoder.modules())
    encoder.eval()
    for view in range(3):
        data.set_epoch(view)
        with torch.no_grad():
            torch.testing.assert_close(codes.codes[view], encoder(data[:][0]))
    assert (codes.codes[0] != codes.codes[1]).any(1).all()


# probes


def test_every_probe_tells_separated_classes_apart(monkeypatch):
    monkeypatch.setattr(cpc_probe, "DRAWS", 8)
    train, validation, test = blobs(4000, 0, views=2), blobs(80, 1), blobs(120, 2)
    found, by_labels, predictions = probe(head(), train, validation, test, epochs=1, device="cpu")
    assert list(found) == PROBES + SHARES
    assert [len(values) for values in found.values()] == [1, 1, 1, 1, 8, 8, 5, 5]
    assert {name: min(values) for name, values in found.items()} == dict.fromkeys(PROBES + SHARES, 1.0)
    assert {number: len(values) for number, values in by_labels.items()} == {4: 8, 40: 5, 400: 5, 4000: 1}
    assert torch.equal(predictions, test.labels)


def test_noise_gives_chance(monkeypatch):
    monkeypatch.setattr(cpc_probe, "DRAWS", 30)
    train, validation, test = (blobs(n, seed, distance=0) for seed, n in enumerate((800, 100, 800)))
    found, _, predictions = probe(head(), train, validation, test, epochs=2, device="cpu")
    for name, values in found.items():
        # the matching names the clusters by the test labels themselves: a little above chance
        assert abs(np.mean(values) - 0.25) < 0.07, name
    assert found["mlp"] == [pytest.approx((predictions == test.labels).float().mean().item())]


def test_only_the_test_labels_are_measured(monkeypatch):
    monkeypatch.setattr(cpc_probe, "DRAWS", 3)
    train, test = blobs(4000, 0), blobs(120, 1)
    wrong = Embeddings(test.codes, (test.labels + 1) % CLASSES)  # every class has the name of another
    found, _, predictions = probe(head(), train, blobs(40, 2), wrong, epochs=1, device="cpu")
    assert torch.equal(predictions, test.labels)
    assert found.pop("k-means") == [1.0]  # named by the test labels
    assert max(max(values) for name, values in found.items()) == 0


def test_probing_is_reproducible_and_leaves_gradients_enabled(monkeypatch):
    monkeypatch.setattr(cpc_probe, "DRAWS", 3)
    parts = blobs(200, 0, 1.5), blobs(40, 1, 1.5), blobs(80, 2, 1.5)
    first, second = (probe(head(), *parts, epochs=1, seed=5, device="cpu") for _ in range(2))
    assert first[:2] == second[:2]
    assert torch.equal(first.predictions, second.predictions)
    assert first.by_labels[200] is first.accuracy["linear"]
    assert 0.3 < first.accuracy["linear"][0] < 1  # neither perfect nor useless, so that a difference would show
    assert torch.is_grad_enabled()


def test_few_labels_use_only_the_labels_of_the_drawn_codes(monkeypatch):
    monkeypatch.setattr(cpc_probe, "DRAWS", 40)
    # half of each class's codes are labelled as the next class, so the draw decides which predictions are correct
    codes, test = blobs(400, 0), blobs(100, 1)
    swapped = torch.where(torch.arange(400) < 200, codes.labels, (codes.labels + 1) % CLASSES)
    found = few_labels(codes.codes[0], swapped, 30 * torch.eye(8)[:CLASSES], test, seed=0)
    assert {len(values) for values in found.values()} == {40}
    # a class is predicted correctly if its drawn code is from the first half, in half of the draws
    assert abs(np.mean(found["nearest"]) - 0.5) < 0.15
    assert np.mean(found["cluster"]) > 0.3
    one_draw = {name: sorted(set(values)) for name, values in found.items()}
    assert min(len(values) for values in one_draw.values()) > 1


def test_a_large_common_mean_costs_the_clusters_nothing():
    codes, test = blobs(400, 0), blobs(400, 1)
    centres = 30 * torch.eye(8)[:CLASSES]
    shifted = Embeddings(test.codes + 2.0**18, test.labels)
    found = few_labels(codes.codes[0] + 2.0**18, codes.labels, centres + 2.0**18, shifted, seed=0)
    assert found["cluster"] == few_labels(codes.codes[0], codes.labels, centres, test, seed=0)["cluster"]


def test_deviations_are_those_of_a_sample():
    assert "80.00 % ± 14.14 over 2 draws" in describe(cpc_probe.Probes({"knn": [0.7, 0.9]}, {}, torch.zeros(0)))


def test_neighbours_are_near_in_direction_whatever_their_length():
    labels = torch.arange(80) % CLASSES
    directions = torch.eye(8)[labels] + 0.05 * gaussian(80, 8)
    lengths = torch.logspace(-2, 3, 80)[:, None]
    test = Embeddings((directions * lengths.flip(0))[None], labels)
    found = few_labels(directions * lengths, labels, torch.eye(8)[:CLASSES], test, seed=1)
    assert min(found["nearest"]) == 1


def test_the_mlp_probe_equals_the_original():
    head = probe_head()
    x = gaussian(16, 128)
    linear, norm, _, last = head
    hidden = x @ linear.weight.T + linear.bias
    mean, variance = hidden.mean(0), hidden.var(0, unbiased=False)
    hidden = (hidden - mean) / torch.sqrt(variance + 1e-3)
    expected = torch.where(hidden > 0, hidden, 0.3 * hidden) @ last.weight.T + last.bias
    torch.testing.assert_close(head(x), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(norm.running_mean, 0.01 * mean)
    assert sum(p.numel() for p in head.parameters()) == 128 * 128 + 3 * 128 + 128 * 10 + 10


def test_linear_scores_do_not_depend_on_the_scale_of_any_number():
    train, test = blobs(200, 0, 2.0), blobs(200, 1, 2.0)
    scale = np.logspace(-4, 4, 8)

    def score(factor: np.ndarray) -> float:
        x, y = (part.codes[0].double().numpy() * factor + 3 * factor for part in (train, test))
        return cpc_probe.linear_score(x, train.labels.numpy(), y, test.labels.numpy())

    assert 0.6 < score(np.ones(8)) < 1
    assert math.isclose(score(scale), score(np.ones(8)), abs_tol=0.011)


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_equal_embeddings_can_be_mapped(value):
    points = map_embeddings(torch.full((40, 8), value))
    assert points.shape == (40, 2)
    assert np.isfinite(points).all()


@pytest.mark.slow
def test_the_report_has_the_accuracies_of_all_encoders_and_the_figures_of_the_first(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(cpc_probe, "DRAWS", 3)
    train, validation, test = blobs(200, 0, 2.0), blobs(40, 1, 2.0), blobs(80, 2, 2.0)
    probes = {name: probe(head(), train, validation, test, 1, seed, "cpu") for seed, name in enumerate("ab")}
    report = probe_report(probes, test, [str(label) for label in range(CLASSES)], 0, {"epochs": 1})
    assert report.results == {"epochs": 1, "accuracy": {name: found.accuracy for name, found in probes.items()}}
    assert all(describe(found) in report.summary for found in probes.values())
    assert not capsys.readouterr().out
    paths = report.save(tmp_path / "new", "probe.json", plots="")
    assert [path.name for path in paths] == ["confusion.png", "codes.png", "label_efficiency.png"]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(
        ["probe.json", *(path.name for path in paths)]
    )
