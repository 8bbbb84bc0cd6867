"""Contrastive predictive coding of sequences (van den Oord et al. 2018).

Shapes: B sequences per process, N over all processes; T terms of context, K of future, P = T + K; S predictions per
sequence; D numbers per embedding.
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
from torchdl.tasks.base import Task, Update, unsuitable
from torchdl.tasks.optimizers import check_optimizer, make_optimizer
from torchdl.tasks.schedules import Schedule, plateau

HEADS = ("infonce", "paired")
RECENT = 40  # steps whose mean loss shows whether a paired head has left chance
LEFT = 0.60 / math.log(2)  # share of the loss of guessing below which it has
PATIENCE = 500  # steps at chance before a warning


class Encoded(NamedTuple):
    """The predictions and embeddings of a batch over all processes.

    Attributes:
        predicted: (N, T, K, D), predicted from the contexts; T is 1 if the model predicts from the last term alone.
        embeddings: (N, P, D), of all terms.
        label: (N,), 1 for a real future.
        local: The rows of this process.
    """

    predicted: Tensor
    embeddings: Tensor
    label: Tensor
    local: slice

    @property
    def context_terms(self) -> int:
        """The number of terms of context."""
        return self.embeddings.shape[1] - self.predicted.shape[2]

    @property
    def future(self) -> tuple[Tensor, Tensor]:
        """The predictions from the last term of context, and the actual embeddings, (N, K, D) each."""
        return self.predicted[:, -1], self.embeddings[:, self.context_terms :]

    @property
    def rows(self) -> Tensor:
        """The index of each row (N,), which is also the index of its correct candidate."""
        return torch.arange(len(self.embeddings), device=self.embeddings.device)


class Parts(NamedTuple):
    """The parts of a batch; those after the future may be missing. :class:`CPCTask` says what they are."""

    context: Tensor
    future: Tensor
    label: Tensor | None = None
    digits: Tensor | None = None
    expected: Tensor | None = None


def parts_of(batch: Sequence[Tensor]) -> Parts:
    """Return the parts of a batch."""
    if not isinstance(batch, (tuple, list)) or len(batch) < 2:
        needs = "CPCTask needs batches (context, future) or (context, future, label)"
        raise unsuitable(batch, needs, "let the data set return these")
    context, future, *rest = batch[:5]
    if len(rest) == 1 and rest[0].dim() == 2:  # (B, T + K), not (B,)
        return Parts(context, future, digits=rest[0])
    return Parts(context, future, *rest)


class CPCTask(Task):
    """Train embeddings that predict future embeddings, on batches ``(context, future)`` or with a ``label``.

    ``context`` (B, T, ...) and ``future`` (B, K, ...) are sequences of inputs of the encoder. ``label`` (B,) is 1 for a
    real future; without it, all futures are real. After it, a batch may also hold ``digits`` (B, T + K), the classes of
    all terms, and ``expected`` (B, K), the classes of the real future. Evaluation then knows which candidates are as
    good as the correct one. If all futures are real, a batch may be ``(context, future, classes)`` with the classes
    (B, T + K) of all terms. A class then does not say all that a candidate shows, so there is no such knowledge.

    With the head ``infonce`` the model learns to find each real future among all futures of the batch, false ones
    included. With ``paired`` each future is classified alone, as in the Keras original. If the model predicts from the
    last term alone, a batch without a real future gives InfoNCE no gradient. All batches must have the same size
    (``drop_last=True``), because the metrics depend on it.

    A paired head can stand at the loss of guessing, ln 2 = 0.693 for as many real as false futures, for hundreds of
    steps and then leave it. The metric ``val/steps_at_chance`` is the number of steps until the mean loss of 40 steps
    fell below 0.60, or so far; there is a warning after 500.

    Args:
        model: Returns predictions and embeddings for ``(context, future)``, as :class:`torchdl.CPC` does.
        head: ``infonce`` or ``paired``.
        lr: The learning rate; :func:`torchdl.tasks.plateau` reduces it.
        temperature: InfoNCE divides its scores by this.
        other_steps: Whether embeddings of other steps are candidates, too. Then the bound on the information does not
            hold, and if a sequence repeats itself (``SameNumbers``), these candidates are false negatives.
        classes: The number of classes of a term, whose logarithm bounds the information; 0 if unknown.
        examples: A batch for the preview of contexts, futures and the candidates that fit the predictions best.
        monitor: The metric that the learning rate follows; choose ``train/loss`` if there is no validation data.
        optimizer: A name of :data:`torchdl.tasks.OPTIMIZERS`.

    Raises:
        InputError: The head is unknown, the temperature is not positive, or the number of classes is negative.

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
    recent_losses: Tensor
    steps_at_chance: Tensor

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
        # of the paired head, as shares of the loss of guessing; a checkpoint holds both, so that a resume goes on
        self.register_buffer("recent_losses", torch.ones(RECENT))
        self.register_buffer("steps_at_chance", torch.tensor(-1))  # -1 while it has not left

    def configure_optimizers(self) -> dict[str, Optimizer]:
        """Build one optimizer of all parameters, named ``model``."""
        return {"model": make_optimizer(self.optimizer, self.parameters(), self.lr)}

    def configure_schedules(self, optimizers: dict[str, Optimizer], steps: int) -> dict[str, Schedule]:
        """Reduce the learning rate when the monitored loss stops falling, as the original does.

        Of ``optimizers`` there is one; the number of ``steps`` does not matter.
        """
        return {"model": plateau(optimizers["model"], monitor=self.monitor)}

    def encode(self, batch: Sequence[Tensor]) -> Encoded:
        """Return the predictions and embeddings of a batch over all processes.

        Raises:
            InputError: The head needs labels that the batch lacks, or the model predicts another number of terms.
        """
        context, future, label, *_ = parts_of(batch)
        labelled = label is not None or self.head != "paired"
        require(labelled, "the head paired tells real futures from false ones: let batches be (context, future, label)")
        label = torch.ones(len(context), dtype=torch.int64, device=context.device) if label is None else label
        predicted, embeddings = self.model(context, future)
        require(
            predicted.shape[2] == future.shape[1],
            f"the model predicts {predicted.shape[2]} terms, so a future must have as many, not {future.shape[1]}",
        )
        (predicted, embeddings, label), start = gather(predicted, embeddings, label)
        start = min(start, len(embeddings) - len(context))  # a row that does not count is not among them
        return Encoded(predicted, embeddings, label, slice(start, start + len(context)))

    def loss(self, encoded: Encoded) -> tuple[Tensor, Tensor]:
        """Return the losses (N, S), (N, 1) for ``paired``, and their weights, 0 for targets in false futures."""
        predicted, embeddings, label, _ = encoded
        _, terms, steps, _ = predicted.shape
        first = encoded.context_terms - terms + 1  # the first position that is predicted
        term, step = (torch.arange(size, device=embeddings.device) for size in (terms, steps))
        position = (first + term[:, None] + step).flatten()  # (T, K) -> (S,), the position that each predicts
        predicted = predicted.flatten(1, 2)  # (N, T, K, D) -> (N, S, D)
        if self.head == "paired":
            # slices, because a list of positions would be copied to the GPU, which waits
            spans = [
                (term * steps, max(0, terms - 1 - term)) for term in range(terms)
            ]  # the first that is in the future
            future = torch.cat([predicted[:, start + skip : start + steps] for start, skip in spans], 1)
            actual = [embeddings[:, first + t + skip : first + t + steps] for t, (_, skip) in enumerate(spans)]
            loss = paired_bce(future, torch.cat(actual, 1), label)[:, None]
            return loss, torch.ones_like(loss)
        if self.other_steps:
            candidates = embeddings[:, first:].flatten(0, 1)  # (N, W, D) -> (N * W, D), W = P - first
            target = encoded.rows * (embeddings.shape[1] - first) + position[:, None] - first  # (S, N)
        else:
            candidates, target = embeddings[:, position], encoded.rows  # (N, S, D)
        loss = info_nce(predicted, candidates, target, self.temperature).T  # (S, N) -> (N, S)
        return loss, ((label[:, None] == 1) | (position < encoded.context_terms)).to(loss.dtype)

    def real_score(self, encoded: Encoded) -> Tensor:
        """Return a score for each future (N,): the task predicts a real future if the score is positive.

        With InfoNCE the score estimates the logarithm of p(embedding | context) / p(embedding), where the mean over
        the batch's candidates estimates p(embedding). The score's mean over real futures is log N - loss, a lower bound
        on the mutual information.
        """
        predicted, embeddings = encoded.future
        if self.head == "paired":
            return paired_logits(predicted, embeddings)
        loss = info_nce(predicted, embeddings, encoded.rows, self.temperature)  # (K, N)
        return math.log(len(embeddings)) - loss.mean(0)

    def losses(self, batch: Sequence[Tensor]) -> Iterator[Update]:
        """Yield the update of the model, with the accuracy of classifying futures as real or false, if labelled.

        Raises:
            InputError: The batch has a single sequence, with which InfoNCE has nothing to compare.
        """
        encoded = self.encode(batch)
        require(
            len(encoded.embeddings) > 1 or self.other_steps or self.head == "paired",
            "InfoNCE compares the sequences of a batch, and this one has a single sequence: batch_size must be 2 or "
            "more, and drop_last=True leaves out a last batch of one",
        )
        metrics = {}
        if parts_of(batch).label is not None:
            with torch.no_grad():
                correct = (self.real_score(encoded) > 0) == (encoded.label == 1)
            metrics["paired_accuracy"] = correct.float().mean()
        loss, weight = self.loss(encoded)
        mean = (loss * weight).sum() / weight.sum().clamp(min=1)
        if self.head == "paired":
            self.watch(mean.detach(), encoded.label)
        yield Update("model", mean, metrics)

    def watch(self, loss: Tensor, label: Tensor) -> None:
        """Note a step's loss, and the step at which the loss leaves that of guessing; nothing waits for the device.

        Args:
            loss: (), the step's loss.
            label: (B,), 1 for a real future and 0 for a false one.
        """
        step, real = self.step_info.step, label.float().mean()
        guessing = torch.special.entr(real) + torch.special.entr(1 - real)  # 0 if all labels are equal
        self.recent_losses[step % RECENT] = (loss / guessing).nan_to_num(nan=1.0).to(self.recent_losses.dtype)
        leaves = (self.steps_at_chance < 0) & (self.recent_losses.mean() < LEFT)
        self.steps_at_chance.masked_fill_(leaves, step + 1)

    def summarize(self) -> Mapping[str, float]:
        """Return the number of steps that a paired head has stood at chance; it counts up until the head leaves."""
        left = int(self.steps_at_chance)
        return {"steps_at_chance": self.step_info.step if left < 0 else left} if self.head == "paired" else {}

    def warnings(self, measured: Mapping[str, float]) -> list[str]:
        """Return a warning if a paired head has stood at chance for 500 steps."""
        if self.head != "paired" or int(self.steps_at_chance) >= 0 or measured["step"] < PATIENCE:
            return []
        return [
            f"the loss has been that of guessing for {PATIENCE} steps or more: embeddings still differ mostly by what "
            "the label does not depend on, such as backgrounds, so the gradient is little more than noise; take each "
            "image's mean colour away (center_images), choose the head infonce, or wait: the loss can leave after some "
            "thousand steps"
        ]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name in ("recent_losses", "steps_at_chance"):  # a checkpoint from before 0.3 has none
            state_dict.setdefault(prefix + name, getattr(self, name))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def evaluate(self, batch: Sequence[Tensor]) -> Mapping[str, Tensor | tuple[Tensor, Tensor]]:
        """Return the loss and the metrics, with chance levels and with ceilings of a perfect predictor.

        - ``paired_accuracy``: the accuracy of classifying futures as real or false; chance is the more frequent class.
          It needs batches with a ``label``.
        - ``top1``: whether the correct candidate has the highest score, over the steps of real futures. Candidates of
          the same class cannot be told apart, so the ceiling is the probability of guessing among them.
        - ``digit_accuracy``: whether the class of the best candidate is the expected one, over all steps and for each;
          ``class_accuracy`` for batches ``(context, future, classes)``.
        - ``information``: the bound log N - loss, in nats.
        """
        encoded, parts = self.encode(batch), parts_of(batch)
        local, label = encoded.local, encoded.label
        positive = label[local].float()
        loss, weight = (of_all[local] for of_all in self.loss(encoded))  # (B, S) each
        mean = (loss * weight).sum(1) / weight.sum(1).clamp(min=1)
        values: dict[str, Tensor | tuple[Tensor, Tensor]] = {"loss": (mean, weight.mean(1))}
        score = self.real_score(encoded)  # (N,)
        if parts.label is not None:
            values["paired_accuracy"] = ((score > 0) == (label == 1))[local].float()
            values["paired_accuracy_chance"] = F.one_hot(label.long(), 2).float().mean(0).max().expand(len(positive))
        predicted, embeddings = encoded.future  # (N, K, D) each
        scores = log_bilinear_scores(predicted[local], embeddings, self.temperature)  # (K, B, N)
        best = scores.argmax(2).T  # (K, B) -> (B, K)
        values["top1"] = ((best == encoded.rows[local, None]).float().mean(1), positive)
        values["top1_chance"] = (torch.full_like(positive, 1 / len(embeddings)), positive)
        if self.head == "infonce" and not self.other_steps:
            values["information"] = (score[local], positive)
            if self.classes:
                values["information_ceiling"] = torch.full_like(positive, math.log(self.classes))
        if parts.digits is not None:
            own = parts.digits[:, -predicted.shape[1] :]  # (B, K)
            name, expected = ("class", own) if parts.expected is None else ("digit", parts.expected)
            fits = gather(own)[0][0].T[:, None] == expected.T[:, :, None]  # (K, B, N)
            correct = fits.gather(2, best.T[:, :, None])[..., 0].float()  # (K, B)
            values[f"{name}_accuracy"] = correct.mean(0)
            values[f"{name}_accuracy_chance"] = fits.float().mean((0, 2))
            values[f"{name}_accuracy_ceiling"] = fits.any(2).float().mean(0)
            values |= {f"{name}_accuracy_step_{step + 1}": of_step for step, of_step in enumerate(correct)}
            if parts.expected is not None:  # then candidates of a class cannot be told apart
                values["top1_ceiling"] = ((1 / fits.float().sum(2).clamp(min=1)).mean(0), positive)
        return values

    def preview(self) -> dict[str, Tensor]:
        """Return contexts (R, T), their futures (R, K) and the batch's images that fit the predictions best (R, K)."""
        context, future = self.example_context, self.example_future
        if context is None or future is None or context.dim() != 5:  # no examples, or not images
            return {}
        predicted, embeddings = self.model(context, future)
        steps = future.shape[1]
        best = log_bilinear_scores(predicted[:, -1], embeddings[:, -steps:]).argmax(2).T  # (K, B, N) -> (B, K)
        found = future[best, torch.arange(steps, device=best.device)]  # (B, K, C, H, W)
        low = -1.0 if context.min() < 0 else 0.0
        rows = slice(0, 12)
        shown = {"context": context, "future": future, "best candidates": found}
        return {name: (images[rows] - low) / (1 - low) for name, images in shown.items()}
