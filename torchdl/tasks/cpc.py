"""Contrastive predictive coding of sequences (van den Oord et al. 2018).

Shapes: B sequences, N of all processes, T terms of context, K of future, P = T + K, S predictions, D numbers a code.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from torchdl.collective import gather
from torchdl.errors import require
from torchdl.losses import info_nce, log_bilinear_scores, paired_bce, paired_logits
from torchdl.tasks.base import Task, Update
from torchdl.tasks.optimizers import check_optimizer, make_optimizer
from torchdl.tasks.schedules import Schedule, plateau

HEADS = ("infonce", "paired")


class Encoded(NamedTuple):
    """A batch's predictions and codes, of all processes.

    Attributes:
        predicted: (N, T, K, D), from the contexts; T is 1 where only the last term's is used.
        codes: (N, P, D).
        label: (N,) 1 where the future is the real one.
        mine: Which of the rows are this process's.
    """

    predicted: Tensor
    codes: Tensor
    label: Tensor
    mine: slice

    @property
    def known(self) -> int:
        """How many terms of context there are."""
        return self.codes.shape[1] - self.predicted.shape[2]

    @property
    def future(self) -> tuple[Tensor, Tensor]:
        """The last context's predictions and what came, (N, K, D) each."""
        return self.predicted[:, -1], self.codes[:, self.known :]

    @property
    def own(self) -> Tensor:
        """The rows' own numbers (N,)."""
        return torch.arange(len(self.codes), device=self.codes.device)


class CPCTask(Task):
    """Train codes that predict the codes to come, on batches ``(context, future, label, ...)``.

    ``context`` (B, T, ...) and ``future`` (B, K, ...) are sequences of what the model encodes, ``label`` (B,) is 1
    where the future is the real one. Where ``digits`` (B, T + K) and ``expected`` (B, K) follow, what the terms show
    and what a real future shows, evaluation knows which candidates are as good as the own one.

    With the head ``infonce`` every real future is to be found among those of the whole batch, false ones included;
    with ``paired`` each future is judged by itself, as in the Keras original. A batch without a real future teaches
    InfoNCE nothing where only the last term predicts. Batches must be of one size (``drop_last=True`` where the data
    does not see to it), for what is measured depends on it.

    Args:
        model: Gives predictions and codes of ``(context, future)``, as :class:`torchdl.CPC`.
        head: ``infonce`` or ``paired``.
        lr: The learning rate; :func:`torchdl.tasks.plateau` reduces it.
        temperature: What InfoNCE's scores are divided by.
        other_steps: Whether the codes of other steps are candidates, too. The bound on the information does not hold
            then, and where a sequence repeats itself (``SameNumbers``) they are no negatives.
        classes: How many different things a term can show; its logarithm bounds the information. 0 for unknown.
        examples: A batch to show over time: contexts, futures, and which candidates fit the predictions best.
        monitor: The metric that the learning rate follows; ``train/loss`` where there is nothing to validate on.
        optimizer: A name of :data:`torchdl.tasks.OPTIMIZERS`.

    Example:
        >>> digits = torchdl.load_digits("valid", image_size=28, color=False, name="mnist_5k")
        >>> batch = torchdl.SortedNumbers(digits, terms=4, predict_terms=2, batch_size=8)[:8]
        >>> task = torchdl.CPCTask(torchdl.image_cpc(28, predict_terms=2), classes=10)
        >>> [update.optimizer for update in task.losses(batch)]
        ['model']
        >>> chance, weight = task.evaluate(batch)["top1_chance"]
        >>> chance[0]
        tensor(0.1250)
    """

    example_context: Tensor | None
    example_future: Tensor | None

    def __init__(
        self,
        model: nn.Module,
        head: str = "infonce",
        lr: float = 1e-3,
        temperature: float = 1.0,
        other_steps: bool = False,
        classes: int = 0,
        examples: Sequence[Tensor] | None = None,
        monitor: str = "val/loss",
        optimizer: str = "adam",
    ) -> None:
        super().__init__()
        require(head in HEADS, f"unknown head {head!r}: choose one of {', '.join(HEADS)}")
        require(0 < temperature < math.inf, f"temperature must be positive, not {temperature}")
        require(classes >= 0, f"classes must be 0 (unknown) or more, not {classes}")
        check_optimizer(optimizer, lr)
        self.model, self.head, self.lr, self.temperature = model, head, lr, temperature
        self.optimizer = optimizer
        self.other_steps, self.classes, self.monitor = other_steps, classes, monitor
        context, future = (None, None) if examples is None else examples[:2]
        self.register_buffer("example_context", context, persistent=False)
        self.register_buffer("example_future", future, persistent=False)

    def configure_optimizers(self) -> dict[str, Optimizer]:
        """Build one optimizer, named ``model``, of all parameters."""
        return {"model": make_optimizer(self.optimizer, self.parameters(), self.lr)}

    def configure_schedules(self, optimizers: dict[str, Optimizer], steps: int) -> dict[str, Schedule]:
        """Reduce the learning rate where the monitored loss stays, as the original does."""
        return {"model": plateau(optimizers["model"], self.monitor)}

    def encode(self, batch: Sequence[Tensor]) -> Encoded:
        """Encode a batch, predict, and put the predictions and codes of all processes together."""
        context, future, label = batch[:3]
        predicted, codes = self.model(context, future)
        require(
            predicted.shape[2] == future.shape[1],
            f"the model predicts {predicted.shape[2]} terms, so a future must have as many, not {future.shape[1]}",
        )
        (predicted, codes, label), start = gather(predicted, codes, label)
        return Encoded(predicted, codes, label, slice(start, start + len(context)))

    def loss(self, encoded: Encoded) -> tuple[Tensor, Tensor]:
        """Give the losses (N, S) of all predictions, and weights: 0 for those of a false future, which is no target."""
        predicted, codes, label, _ = encoded
        _, terms, steps, _ = predicted.shape
        first = encoded.known - terms + 1  # the first position that a prediction aims at
        term, step = (torch.arange(size, device=codes.device) for size in (terms, steps))
        aims = (first + term[:, None] + step).flatten()  # (T, K) -> (S,), the position that each aims at
        predicted = predicted.flatten(1, 2)  # (N, T, K, D) -> (N, S, D)
        if self.head == "paired":
            at = [s for s in range(terms * steps) if first + s // steps + s % steps >= encoded.known]
            loss = paired_bce(predicted[:, at], codes[:, aims[at]], label)[:, None]
            return loss, torch.ones_like(loss)
        if self.other_steps:
            candidates = codes[:, first:].flatten(0, 1)  # (N, W, D) -> (N * W, D)
            target = encoded.own * (codes.shape[1] - first) + aims[:, None] - first  # (S, N)
        else:
            candidates, target = codes[:, aims], encoded.own  # (N, S, D)
        loss = info_nce(predicted, candidates, target, self.temperature).T  # (S, N) -> (N, S)
        return loss, ((label[:, None] == 1) | (aims < encoded.known)).to(loss.dtype)

    def real_score(self, encoded: Encoded) -> Tensor:
        """Score whether each future is the real one, (N,): it is believed to be where the score is positive.

        For InfoNCE the score is the estimated logarithm of p(code | context) / p(code), the mean over the batch's
        candidates standing for p(code); its mean over real futures is the bound log N - loss on the information.
        """
        predicted, codes = encoded.future
        if self.head == "paired":
            return paired_logits(predicted, codes)
        loss = info_nce(predicted, codes, encoded.own, self.temperature)  # (K, N)
        return math.log(len(codes)) - loss.mean(0)

    def losses(self, batch: Sequence[Tensor]) -> Iterator[Update]:
        """Yield the one update of a batch, with the accuracy of telling real futures from false ones."""
        encoded = self.encode(batch)
        require(
            len(encoded.codes) > 1 or self.other_steps or self.head == "paired",
            "InfoNCE compares the sequences of a batch: make batches of 2 or more",
        )
        with torch.no_grad():
            right = (self.real_score(encoded) > 0) == (encoded.label == 1)
        loss, weight = self.loss(encoded)
        mean = (loss * weight).sum() / weight.sum().clamp(min=1)
        yield Update("model", mean, {"paired_accuracy": right.float().mean()})

    def evaluate(self, batch: Sequence[Tensor]) -> Mapping[str, Tensor | tuple[Tensor, Tensor]]:
        """Give the loss and what the predictions are good for, with what chance and the best predictor would reach.

        ``paired_accuracy``: whether a future is told to be real or false; chance is the more frequent answer.
        ``top1``: whether the own future is the best of the batch's candidates, over the steps of real futures. Other
        sequences have candidates that show the same; so the ceiling is the chance of guessing among those.
        ``digit_accuracy``: whether the best candidate shows what is expected, and the same for every step.
        ``information``: the bound log N - loss, in nats.
        """
        encoded = self.encode(batch)
        mine, label = encoded.mine, encoded.label
        positive = label[mine].float()
        loss, weight = (of_all[mine] for of_all in self.loss(encoded))  # (B, S) each
        mean = (loss * weight).sum(1) / weight.sum(1).clamp(min=1)
        values: dict[str, Any] = {"loss": (mean, weight.mean(1))}
        score = self.real_score(encoded)  # (N,)
        values["paired_accuracy"] = ((score > 0) == (label == 1))[mine].float()
        values["paired_accuracy_chance"] = F.one_hot(label.long(), 2).float().mean(0).max().expand(len(positive))
        predicted, codes = encoded.future  # (N, K, D) each
        scores = log_bilinear_scores(predicted[mine], codes, self.temperature)  # (K, B, N)
        best = scores.argmax(2).T  # (B, K)
        values["top1"] = ((best == encoded.own[mine, None]).float().mean(1), positive)
        values["top1_chance"] = (torch.full_like(positive, 1 / len(codes)), positive)
        if self.head == "infonce" and not self.other_steps:
            values["information"] = (score[mine], positive)
            if self.classes:
                values["information_ceiling"] = torch.full_like(positive, math.log(self.classes))
        if len(batch) >= 5:
            shown, expected = gather(batch[3][:, -predicted.shape[1] :])[0][0], batch[4]  # (N, K), (B, K)
            fits = shown.T[:, None] == expected.T[:, :, None]  # (K, B, N)
            right = fits.gather(2, best.T[:, :, None])[..., 0].float()  # (K, B)
            values["digit_accuracy"] = right.mean(0)
            values["digit_accuracy_chance"] = fits.float().mean((0, 2))
            values["digit_accuracy_ceiling"] = fits.any(2).float().mean(0)
            values |= {f"digit_accuracy_step_{step + 1}": accuracy for step, accuracy in enumerate(right)}
            values["top1_ceiling"] = ((1 / fits.float().sum(2).clamp(min=1)).mean(0), positive)
        return values

    def preview(self) -> dict[str, Tensor]:
        """Show contexts (rows, T), their futures (rows, K), and the batch's images that fit the predictions best."""
        context, future = self.example_context, self.example_future
        if context is None or future is None or context.dim() != 5:  # nothing, or no images
            return {}
        predicted, codes = self.model(context, future)
        steps = future.shape[1]
        best = log_bilinear_scores(predicted[:, -1], codes[:, -steps:]).argmax(2).T  # (K, B, N) -> (B, K)
        found = future[best, torch.arange(steps, device=best.device)]  # (B, K, C, S, S)
        low = -1.0 if context.min() < 0 else 0.0
        rows = slice(0, 12)
        shown = {"context": context, "future": future, "best candidates": found}
        return {name: (images[rows] - low) / (1 - low) for name, images in shown.items()}
