from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import gaussian

from torchdl import (
    CPC,
    BatchLoader,
    ContextNetwork,
    CPCTask,
    InputError,
    Predictors,
    Recordings,
    SignalEncoder,
    SignalWindows,
    Trainer,
)


def numbered(*lengths: int, channels: int = 2) -> list[torch.Tensor]:
    """Recordings (C, L) whose first channel counts the samples of all of them; the second has the negative."""
    total = torch.arange(float(sum(lengths)))
    signs = torch.tensor([1.0, -1.0, 1.0])[:channels, None]
    return [signs * part for part in total.split(lengths)]


@pytest.mark.parametrize(("window", "hop"), [(5, 5), (6, 2), (3, 7)])
def test_windows_are_consecutive_samples_a_hop_apart_and_no_two_sequences_share_one(window, hop):
    lengths = [100, 61, 300]
    data = SignalWindows(numbered(*lengths), window, hop, terms=3, predict_terms=2)
    for epoch in range(5):
        data.set_epoch(epoch)
        context, future = data.__getitems__(range(len(data)))
        assert context.shape == (len(data), 3, 2, window)
        assert future.shape == (len(data), 2, 2, window)
        windows = torch.cat([context, future], 1)
        assert torch.equal(windows[:, :, 0], -windows[:, :, 1])
        samples = windows[:, :, 0]  # (N, P, W)
        assert (samples.diff(dim=2) == 1).all()
        assert (samples.diff(dim=1) == hop).all()
        first, last = samples[:, 0, 0].contiguous(), samples[:, -1, -1].contiguous()
        ends = torch.tensor(lengths).cumsum(0)
        assert torch.equal(torch.bucketize(first, ends, right=True), torch.bucketize(last, ends, right=True))
        order = first.argsort()
        assert (last[order][:-1] < first[order][1:]).all()


@pytest.mark.parametrize(
    "signal",
    [
        torch.arange(200.0),
        torch.arange(200.0)[None],
        np.arange(200, dtype=np.int16),
        np.arange(200.0),
        [np.arange(200.0)],
        list(range(200)),
        Recordings((torch.arange(200.0)[None],)),
    ],
)
def test_a_signal_may_be_a_tensor_an_array_or_a_list(signal):
    context, _ = SignalWindows(signal, 10, 10, 2, 1)[0]
    assert context.shape == (2, 1, 10)
    assert context.dtype == torch.float32
    assert (context.diff() == 1).all()


def test_a_window_has_the_class_of_its_middle():
    labels = torch.arange(300) // 100  # of each sample
    data = SignalWindows(numbered(300), 20, 20, 2, 1, labels=labels)
    context, _, classes = data.__getitems__(range(len(data)))
    assert torch.equal(classes[:, :2], (context[:, :, 0, 10] / 100).long())


def test_settings_and_fingerprint_identify_the_sequences():
    def made(signal, *arguments):
        return SignalWindows(signal, *arguments)

    one = made(numbered(300), 20, 10, 2, 1)
    assert one.order_settings().items() >= {"window": 20, "hop": 10, "terms": 2, "predict_terms": 1}.items()
    others = [made(numbered(150, 150), 20, 10, 2, 1), made([numbered(300)[0] + 1], 20, 10, 2, 1)]
    assert len({each.fingerprint() for each in (one, *others)}) == 3
    assert one.fingerprint() == made(numbered(300), 20, 20, 2, 1).fingerprint()
    read = SignalWindows(Recordings(tuple(numbered(300, 100)), origin="a file", fallback=True), 20, 10, 2, 1)
    assert (read.origin, read.fallback) == ("400 samples in 2 recordings from a file", True)


@pytest.mark.parametrize(
    ("signal", "options", "sentence"),
    [
        (numbered(300), {"window": 0}, "window .*0"),
        (numbered(300), {"hop": 0}, "hop .*0"),
        (Recordings(tuple(numbered(300, 80)), names=("a", "b.npy")), {}, r"b.npy has 80 samples"),
        (numbered(300, 80), {}, r"recording 2 has 80 samples: .*2 \+ 2 terms of 30 \(hop 20\) takes 90"),
        ([torch.zeros(1, 200), torch.zeros(2, 200)], {}, r"channels, not \[1, 2\]"),
        (torch.zeros(200, 2), {}, "200 channels of 2 samples: transpose"),
        (torch.zeros(1, 2, 200), {}, r"recording 1 .*\(channels, samples\), not \(1, 2, 200\)"),
        ([], {}, "no recording"),
        (["text"], {}, "must be numbers"),
        (torch.zeros(1, 200, dtype=torch.complex64), {}, "complex"),
        ([torch.zeros(1, 100), torch.tensor([[0.0] * 99 + [float("inf")]])], {}, "recording 2 .*infinite.*index 99"),
    ],
)
def test_a_mistake_is_one_sentence(signal, options, sentence):
    with pytest.raises(InputError, match=sentence):
        SignalWindows(signal, **{"window": 30, "hop": 20, "terms": 2, "predict_terms": 2, **options})


def test_a_window_too_short_for_the_encoder_is_one_sentence():
    model = CPC(SignalEncoder(2, 4), ContextNetwork(4, 4), Predictors(4, 4, 2))
    data = SignalWindows(numbered(500), 30, 20, 2, 2)
    with pytest.raises(InputError, match="160 or more"):
        model(*data[:2])


def test_context_and_future_alone_train_and_only_what_is_known_is_measured():
    signal = [torch.sin(torch.arange(600) * 0.3) + 0.1 * gaussian(2, 600, seed=seed) for seed in range(4)]
    names = {}
    for labels in (None, torch.arange(4)):
        data = SignalWindows(signal, 16, 16, terms=3, predict_terms=1, labels=labels)
        model = CPC(SignalEncoder(2, 8, (8, 4), (4, 2)), ContextNetwork(8, 8), Predictors(8, 8, 1), every_term=True)
        loader = BatchLoader(data, 8, drop_last=True)
        names[labels is None] = Trainer(epochs=1, device="cpu").fit(CPCTask(model), loader, loader)[-1].keys()
    known = {"val/loss", "val/top1", "val/top1_chance", "val/information"}
    assert {name for name in names[True] if name.startswith("val/")} == known
    assert "train/paired_accuracy" not in names[True]
    accuracy = {f"val/class_accuracy{ending}" for ending in ("", "_chance", "_ceiling", "_step_1")}
    assert {name for name in names[False] if name.startswith("val/")} == known | accuracy
