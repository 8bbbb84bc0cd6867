"""Sequences of a data set's items in their order, for contrastive predictive coding.

Shapes: B sequences, T terms of context, K of future, P = T + K, R recordings, N places.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torchdl import random
from torchdl.data.arrays import ArrayLike, BatchDataset, as_classes, as_tensor, require_whole
from torchdl.data.info import fingerprint
from torchdl.data.wrappers import get_batch, look_through
from torchdl.errors import InputError, kind_of, require

ORDER, OFFSETS = 24, 25  # streams of independent draws


class OrderedSequences(BatchDataset[tuple[Tensor, ...]]):
    """Sequences of items that follow each other in a data set: T of context and the next K of future.

    In each epoch, every recording is cut from a random place on into sequences that share no item, so an epoch is about
    one pass over the data. This matters to InfoNCE, whose negatives are the other futures of a batch: a future that
    overlaps the real one would be a false negative. The sequences then come in a random order, so that a batch mixes
    recordings. Both draws depend only on the seed and the epoch. The loader needs no ``shuffle``, but
    ``drop_last=True``, because InfoNCE and its metrics depend on the size of a batch.

    Args:
        items: The items, in order: a data set of tensors, or of tuples that begin with one; or a tensor or array
            (N, ...). They must be floating-point numbers.
        terms: T, the length of the context.
        predict_terms: K, the length of the future.
        step: The distance from one term to the next, in items; 2 takes every other one.
        lengths: The number of items of each recording; they follow each other in ``items``, and no sequence is in two.
            By default all items are one recording.
        labels: A class for each recording or for each item, int64; None without classes.
        seed: The seed of the places and of the order.

    Items have the shape of the data set's own, (...). ``sequences[i]`` is ``(context, future)``, of (T, ...) and
    (K, ...). ``sequences.__getitems__(indices)`` is a batch, of (B, T, ...) and (B, K, ...). With ``labels``, a batch
    also has the classes (B, P) of all terms, and :class:`CPCTask` measures how often the candidate that fits a
    prediction best has the class of the real future.

    Raises:
        InputError: A recording is shorter than a sequence, or the lengths or labels do not fit the items.

    Example:
        >>> frames = torch.arange(30.0)[:, None]  # two recordings, of 20 frames and of 10
        >>> sequences = torchdl.OrderedSequences(frames, terms=3, predict_terms=2, lengths=[20, 10])
        >>> context, future = sequences[0]
        >>> context.flatten(), future.flatten()
        (tensor([13., 14., 15.]), tensor([16., 17.]))
        >>> len(sequences), [batch.shape for batch in sequences[:4]]
        (4, [torch.Size([4, 3, 1]), torch.Size([4, 2, 1])])
    """

    extent = 1  # the number of places that an item takes: a window takes several samples
    starts: Tensor  # (sequences,), the place of each one's first term in this epoch
    nouns = "items", "step"  # of places, and of the distance between terms
    recordings: tuple[str, ...] = ()  # the names of the recordings, if they have some

    def __init__(
        self,
        items: Any,
        terms: int = 4,
        predict_terms: int = 4,
        step: int = 1,
        lengths: Sequence[int] | Tensor | None = None,
        labels: ArrayLike | None = None,
        seed: int = 0,
    ) -> None:
        noun, distance = self.nouns
        for name, value in (("terms", terms), ("predict_terms", predict_terms), (distance, step)):
            require_whole(name, value)
        if not hasattr(items, "__len__") or not hasattr(items, "__getitem__"):
            raise InputError(f"sequences need items with a length and an order, not {kind_of(items)}")
        self.items = as_tensor(items, "items") if hasattr(items, "dtype") else items
        self.source = look_through(self.items)
        self.terms, self.predict_terms, self.step, self.seed = terms, predict_terms, step, seed
        self.recording_lengths = as_tensor([self.places] if lengths is None else lengths, "lengths")  # (R,)
        whole = self.recording_lengths.dim() == 1 and not self.recording_lengths.is_floating_point()
        fits = whole and int(self.recording_lengths.sum()) == self.places
        require(fits, f"the lengths of the recordings must be whole and add up to the {self.places:,} {noun} there are")
        self._check_lengths()
        # leaves at least half a sequence's length to begin in, so that the epochs cut at different places
        self.counts = ((2 * self.recording_lengths - self.span) // (2 * self.span)).clamp(min=1)  # (R,)
        self.labels = None if labels is None else self._label_places(as_classes(labels, "labels"))
        if isinstance(self.items, Tensor):
            require(self.items.is_floating_point(), f"items must be decimals, not {self.items.dtype}: scale them")
            self._check_numbers(self.items)
        self.set_epoch(0)

    def recording_name(self, index: int) -> str:
        """Return what messages call a recording."""
        return self.recordings[index] if self.recordings else f"recording {index + 1}"

    def _check_lengths(self) -> None:
        noun, distance = self.nouns
        short = (self.recording_lengths < self.span).nonzero()[:, 0].tolist()
        if short:
            each = f"of {self.extent} " if self.extent > 1 else ""
            more = f", and {len(short) - 1} more are too short" if len(short) > 1 else ""
            name, length = self.recording_name(short[0]), int(self.recording_lengths[short[0]])
            raise InputError(
                f"{name} has {length} {noun}{more}: a sequence of {self.terms} + {self.predict_terms} terms {each}"
                f"({distance} {self.step}) takes {self.span}, so leave short recordings out, or choose fewer terms"
            )

    def _check_numbers(self, values: Tensor) -> None:
        """Raise an error that names the place if a value of the items (N, ...) is not a number."""
        wrong = (~values.isfinite().reshape(len(values), -1).all(1)).nonzero()[:, 0].cpu()  # of (N, numbers)
        if len(wrong):
            ends = self.recording_lengths.cumsum(0)
            recording = int(torch.bucketize(wrong[0], ends, right=True))
            place = int(wrong[0] - ends[recording] + self.recording_lengths[recording])
            name = f"{self.recording_name(recording)} has NaN or an infinite value in its {self.nouns[0]}"
            raise InputError(f"{name}, the first at index {place}: repair it, or cut the recording there")

    def _label_places(self, labels: Tensor) -> Tensor:
        """Return a class for each place (N,), given one for each recording (R,) or each place."""
        recordings, given = len(self.recording_lengths), tuple(labels.shape)
        require(
            given in ((recordings,), (self.places,)) and not labels.is_floating_point(),
            f"labels must be whole numbers, one for each of the {recordings:,} recordings or the {self.places:,} "
            f"{self.nouns[0]}, not {given} of {labels.dtype}",
        )
        return labels.long().repeat_interleave(self.recording_lengths) if given == (recordings,) else labels.long()

    @property
    def places(self) -> int:
        """N, the number of places at which an item can begin, if recordings are not considered."""
        return len(self.items)

    @property
    def span(self) -> int:
        """The number of places that a sequence takes."""
        return (self.terms + self.predict_terms - 1) * self.step + self.extent

    @property
    def device(self) -> torch.device:
        """The device that batches are made on."""
        return torch.device(getattr(self.source, "device", None) or "cpu")

    def to(self, device: str | torch.device) -> OrderedSequences:
        """Move the items to ``device`` in place if they can be moved; return the data set itself."""
        if isinstance(self.source, Tensor):
            self.items = self.source = self.source.to(device)
        elif hasattr(self.source, "to"):
            self.source.to(device)
        self.starts = self.starts.to(self.device)
        self.labels = None if self.labels is None else self.labels.to(self.device)
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose places and order are drawn."""
        self.epoch, lengths, counts = epoch, self.recording_lengths, self.counts
        slack = (lengths - counts * self.span + 1)[:, None]  # (R, 1), the number of places to begin at
        recordings = torch.arange(len(counts))
        offsets = random.integers(slack, self.seed, epoch, recordings, 1, OFFSETS)[:, 0]  # (R,)
        rank = torch.arange(len(self)) - (counts.cumsum(0) - counts).repeat_interleave(counts)  # in its recording
        starts = (lengths.cumsum(0) - lengths + offsets).repeat_interleave(counts) + rank * self.span
        generator = torch.Generator().manual_seed(random.key(self.seed, epoch, ORDER))
        self.starts = starts[torch.randperm(len(self), generator=generator)].to(self.device)

    def order_settings(self) -> dict[str, Any]:
        """Return the settings that determine the items; a checkpoint compares them."""
        settings = {"terms": self.terms, "predict_terms": self.predict_terms, self.nouns[1]: self.step}
        return {**settings, "sequences' seed": self.seed, "labels": int(self.labels is not None)}

    @property
    def origin(self) -> str:
        """Where the items come from, in words."""
        recordings, noun = len(self.recording_lengths), self.nouns[0]
        place = getattr(self.source, "origin", "memory")
        return f"{self.places:,} {noun} in {recordings:,} recording{'s' if recordings > 1 else ''} from {place}"

    @property
    def fallback(self) -> bool:
        """Whether the items replace data that was not found."""
        return bool(getattr(self.source, "fallback", False))

    def fingerprint(self) -> str:
        """Return the SHA-256 of the items, the recordings' lengths and the labels, in hexadecimal.

        Raises:
            InputError: The data set of the items has no fingerprint.
        """
        if isinstance(self.source, Tensor):
            own = fingerprint([self.source], str(tuple(self.source.shape)))
        else:
            lacks = (
                f"{type(self.source).__name__} has no method fingerprint, which identifies the data of a run: add one"
            )
            require(hasattr(self.source, "fingerprint"), lacks)
            own = self.source.fingerprint()
        labels = [] if self.labels is None else [self.labels]
        return fingerprint([self.recording_lengths, *labels], own)

    def __len__(self) -> int:
        return int(self.counts.sum())

    def take(self, places: Tensor) -> Tensor:
        """Return the items (n, ...) at these places (n,).

        Raises:
            InputError: The items are not tensors of decimals.
        """
        if isinstance(self.source, Tensor):
            return self.source.index_select(0, places)
        batch = get_batch(self.source, places)
        items = batch[0] if isinstance(batch, (tuple, list)) else batch
        if not isinstance(items, Tensor) or not items.is_floating_point():
            kind = f"of {items.dtype}: scale them" if isinstance(items, Tensor) else kind_of(items)
            raise InputError(f"items must be tensors of decimals, or tuples that begin with one, not {kind}")
        return items

    def __getitems__(self, indices: Tensor | Sequence[int]) -> tuple[Tensor, ...]:
        """Return contexts (B, T, ...) and futures (B, K, ...), and with labels also the classes (B, P)."""
        index = torch.as_tensor(indices, dtype=torch.int64, device=self.starts.device)
        length = self.terms + self.predict_terms
        places = self.starts[index][:, None] + self.step * torch.arange(length, device=index.device)  # (B, P)
        items = self.take(places.flatten()).unflatten(0, places.shape)  # (B * P, ...) -> (B, P, ...)
        batch = items[:, : self.terms], items[:, self.terms :]
        if self.labels is None:
            return batch
        return *batch, self.labels[places + self.extent // 2]
