"""Probe what CPC has learnt from recordings: classify segments by its features, and by others to compare.

Shapes: N segments of C channels and S samples, T windows in a segment, D numbers per embedding, H per context, F
features of a segment.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchdl import artifacts, random
from torchdl.data import ArrayDataset, BatchLoader
from torchdl.data.recordings import Recordings
from torchdl.errors import require
from torchdl.features import CPCFeatures
from torchdl.models import CPC
from torchdl.plots import plot_bars
from torchdl.recipes.cpc_probe import accuracy_of, linear_score
from torchdl.recipes.report import Report
from torchdl.tasks import Supervised, accuracy
from torchdl.training.device import find_device
from torchdl.training.trainer import Trainer

FREQUENCIES = 16  # the lowest ones of each channel that hand-made features have


class SegmentFeatures(nn.Module):
    """Summarise segments (N, C, S) by CPC: means and deviations of the embeddings and contexts of their windows.

    Args:
        cpc: Embeds windows (N, T, C, W), and reads the embeddings in order.
        window: W, the samples of a window.
        hop: The samples from the start of a window to that of the next.
    """

    def __init__(self, cpc: CPC, window: int, hop: int) -> None:
        super().__init__()
        self.cpc, self.window, self.hop = cpc, window, hop
        self.width: int = 2 * (cpc.encoder.code_size + cpc.context.context_size)  # type: ignore[assignment, operator]

    def forward(self, segments: Tensor) -> Tensor:
        """Return the features (N, 2 D + 2 H)."""
        windows = segments.unfold(2, self.window, self.hop).transpose(1, 2)  # (N, C, T, W) -> (N, T, C, W)
        embeddings = self.cpc.encode(windows)  # (N, T, D)
        found = torch.cat([embeddings, self.cpc.context(embeddings)], 2)  # (N, T, D + H)
        deviation = (found.var(1, correction=0) + 1e-6).sqrt()  # whose gradient is finite everywhere
        return torch.cat([found.mean(1), deviation], 1)


def hand_made_features(segments: Tensor) -> Tensor:
    """Describe segments (N, C, S) by mean, deviation, range and spectrum of each channel, as is usual for movements.

    Returns:
        (N, F): mean, standard deviation, minimum, maximum; ``log(1 + |amplitude|)`` of the lowest frequencies but 0.
    """
    spectrum = torch.fft.rfft(segments, dim=2).abs()[:, :, 1 : FREQUENCIES + 1].log1p()  # (N, C, frequencies)
    moments = segments.mean(2), segments.std(2), segments.amin(2), segments.amax(2)
    return torch.cat([*moments, spectrum.flatten(1)], 1)


def fit_network(
    features: SegmentFeatures, segments: Tensor, labels: Tensor, classes: int, trainer: Trainer
) -> Callable[[Tensor], Tensor]:
    """Train a copy of the features' networks with a linear layer behind them; return a function to logits.

    Args:
        features: Its networks map segments (N, C, L) to features (N, W).
        segments: (N, C, L).
        labels: (N,).
        classes: The number of classes.
        trainer: The trainer, with its seed and device.
    """
    with random.seeded(find_device(trainer.device), trainer.seed):
        model = nn.Sequential(copy.deepcopy(features), nn.Linear(features.width, classes))
    task = Supervised(model, F.cross_entropy, {"accuracy": accuracy})
    data = ArrayDataset(segments, labels)
    trainer.fit(task, BatchLoader(data, min(32, len(data)), shuffle=True, seed=trainer.seed))
    return CPCFeatures(model, device=trainer.device).encode


def require_segments(recordings: Recordings, window: int, length: int) -> None:
    """Raise :class:`InputError` unless segments of ``length`` samples have a ``window`` and fit into ``recordings``."""
    shortest = min(signal.shape[1] for signal in recordings.signals)
    fits = window <= length <= shortest
    require(fits, f"segments must have from {window:,} samples, a window, to {shortest:,}, not {length:,}")


def probe_signals(
    cpc: CPC, train: Recordings, test: Recordings, window: int, hop: int, length: int, trainer: Trainer
) -> Report:
    """Classify segments of the test recordings by what was learnt from the labels of training recordings.

    There are two sets of labels, those of all people of the training recordings, and those of the first one alone.
    Logistic regression classifies CPC's features, those of the same networks untrained, hand-made ones and the samples
    themselves. The networks are also trained on the labels, from new weights and from CPC's.

    Args:
        cpc: The trained model; it stays as it is.
        train: Scaled recordings whose labels are learnt from.
        test: Scaled recordings of other people.
        window: The samples of a window.
        hop: The samples from the start of a window to that of the next.
        length: The samples of a segment. Segments follow each other by half of it.
        trainer: How to train the networks on labels; its seed determines their weights and those of the untrained one.

    Raises:
        InputError: The training recordings have no subjects.
    """
    require(train.subjects is not None, "a probe needs recordings with subjects")
    for recordings in (train, test):
        require_segments(recordings, window, length)
    person = train.subjects.min()  # type: ignore[union-attr]
    with random.seeded(find_device(trainer.device), trainer.seed):
        untrained = artifacts.build(artifacts.describe(cpc))
    ours, new = (SegmentFeatures(model, window, hop) for model in (cpc, untrained))  # type: ignore[arg-type]
    described: dict[str, Callable[[Tensor], Tensor]] = {
        "CPC, linear": CPCFeatures(ours, device=trainer.device).encode,
        "untrained, linear": CPCFeatures(new, device=trainer.device).encode,
        "hand-made features, linear": hand_made_features,
        "samples, linear": lambda segments: segments.flatten(1),
    }
    x, y = test.segments(length, length // 2)
    parts = {"all people": train, "one person": train.select(train.subjects == person)}  # type: ignore[arg-type]
    found: dict[str, dict[str, float]] = {}
    for name, part in parts.items():
        segments, labels = part.segments(length, length // 2)
        found[name] = {}
        for kind, describe in described.items():
            of_train, of_test = describe(segments).numpy(), describe(x).numpy()
            found[name][kind] = linear_score(of_train, labels.numpy(), of_test, y.numpy(), max_iter=5000)
        for kind, start in (("supervised network", new), ("CPC, then supervised", ours)):
            logits = fit_network(start, segments, labels, len(train.classes), trainer)
            found[name][kind] = accuracy_of(logits(x).argmax(1), y)
    own = ("CPC, linear", "CPC, then supervised")
    in_percent = {name: {kind: 100 * value for kind, value in each.items()} for name, each in found.items()}
    lines = [f"test accuracy, %{'':14}{''.join(f'{name:>14}' for name in found)}"]
    lines += [f"  {kind:28}{''.join(f'{in_percent[n][kind]:14.1f}' for n in found)}" for kind in found["all people"]]
    return Report(
        {"accuracy": found, "test segments": len(x), "seed": trainer.seed},
        "\n".join(lines),
        {"accuracy": plot_bars({f"labels of {n}": v for n, v in in_percent.items()}, "test accuracy, %", own)},
    )
