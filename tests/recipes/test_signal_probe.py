from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import gaussian

from torchdl import CPC, ContextNetwork, Predictors, Recordings, SignalEncoder, Trainer
from torchdl.recipes.signal_probe import SegmentFeatures, hand_made_features, probe_signals


def network() -> CPC:
    torch.manual_seed(0)
    return CPC(SignalEncoder(2, 8, (8, 4), (4, 2)), ContextNetwork(8, 4), Predictors(4, 8, 1))


def waves(people: range) -> Recordings:
    """Two classes of waves, fast and slow, for each person."""
    signals = [
        torch.sin(torch.arange(300) * (0.2 + 0.4 * label)) + 0.3 * gaussian(2, 300, seed=2 * person + label)
        for person in people
        for label in (0, 1)
    ]
    labels = torch.tensor([0, 1] * len(people))
    return Recordings(tuple(signals), labels, torch.tensor([*people]).repeat_interleave(2), ("slow", "fast"))


def test_features_summarise_the_windows_of_a_segment():
    cpc, segments = network(), gaussian(5, 2, 50)
    with torch.no_grad():
        found = SegmentFeatures(cpc, 16, 10)(segments)
        windows = torch.stack([segments[:, :, start : start + 16] for start in (0, 10, 20, 30)], 1)
        embeddings = cpc.encode(windows)
        both = torch.cat([embeddings, cpc.context(embeddings)], 2)
    assert found.shape == (5, 24)
    torch.testing.assert_close(found[:, :12], both.mean(1))
    torch.testing.assert_close(found[:, 12:], (both.std(1, correction=0) ** 2 + 1e-6).sqrt())


def test_hand_made_features_are_moments_and_amplitudes():
    segments = torch.sin(torch.arange(64) * 2 * np.pi * 3 / 64).expand(1, 2, 64)  # three periods
    found = hand_made_features(segments)[0]
    assert found.shape == (2 * (4 + 16),)
    torch.testing.assert_close(found[:8:2], torch.tensor([0, segments[0, 0].std(), -1.0, 1.0]), atol=5e-3, rtol=0)
    torch.testing.assert_close(found[8:24].argmax(), torch.tensor(2))
    torch.testing.assert_close(found[10], torch.tensor(33.0).log())


@pytest.mark.slow
def test_every_classifier_tells_waves_apart_and_leaves_the_model_as_it_was():
    cpc = network().train()
    before = {name: tensor.clone() for name, tensor in cpc.state_dict().items()}
    report = probe_signals(cpc, waves(range(1, 4)), waves(range(4, 6)), 16, 16, 100, Trainer(epochs=25, device="cpu"))
    accuracy = report.results["accuracy"]
    assert list(accuracy) == ["all people", "one person"]
    assert report.results["test segments"] == 4 * 5
    for name in ("CPC, linear", "untrained, linear", "hand-made features, linear"):
        assert accuracy["all people"][name] > 0.9, name
    assert accuracy["all people"]["CPC, then supervised"] > 0.75
    assert "CPC, linear" in report.summary
    assert cpc.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in cpc.state_dict().items())


def test_labels_of_other_recordings_change_nothing_but_the_accuracy():
    cpc, train, test = network(), waves(range(1, 3)), waves(range(4, 6))
    wrong = Recordings(test.signals, 1 - test.labels, test.subjects, test.classes)
    trainer = Trainer(epochs=1, device="cpu")
    right, swapped = (
        probe_signals(cpc, train, part, 16, 16, 100, trainer).results["accuracy"] for part in (test, wrong)
    )
    for labels, accuracies in right.items():
        for name, value in accuracies.items():
            assert abs(value + swapped[labels][name] - 1) < 1e-6
