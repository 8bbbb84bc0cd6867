"""Supervised learning: classification, regression and forecasting."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_leaves, tree_map_only

from torchdl.collective import rows_count
from torchdl.errors import InputError, kind_of, require
from torchdl.tasks.base import Task, Update, as_numbers, describe_batch, unsuitable
from torchdl.tasks.optimizers import make_optimizer
from torchdl.tasks.schedules import AnySchedule, build_schedules, check_schedule

Loss = Callable[..., Tensor]


def accuracy(output: Tensor, target: Tensor) -> Tensor:
    """Return 1.0 for each example whose largest logit is that of its class, else 0.0; (B,).

    Args:
        output: (B, C) logits, C at least 2.
        target: (B,) classes.

    Raises:
        InputError: There is a single logit, or not one class per example.
    """
    if output.shape[-1] == 1 or output.shape[:-1] != target.shape:  # this runs at every step
        advice = "give one class per example"
        if output.shape[-1] == 1:
            advice = "for one logit, choose torchdl.tasks.binary_accuracy, or a function of your own"
        elif output.shape == target.shape:
            advice = "of one-hot labels, give target.argmax(1)"
        found = f"(B, C) and classes (B,), not {tuple(output.shape)} and {tuple(target.shape)}"
        raise InputError(f"accuracy compares logits {found}: {advice}")
    return (output.argmax(dim=-1) == target).float()


def binary_accuracy(logit: Tensor, label: Tensor) -> Tensor:
    """Return 1.0 for each example whose logit (B, 1) is positive exactly if its label (B, 1) is 1, else 0.0; (B,).

    Raises:
        InputError: One of them has another shape.
    """
    if logit.shape != label.shape or logit.shape[1:] != (1,):
        found = f"(B, 1) and labels (B, 1), not {tuple(logit.shape)} and {tuple(label.shape)}"
        raise InputError(f"binary_accuracy compares logits {found}: reshape them")
    return ((logit > 0) == (label > 0.5)).float()[:, 0]


def logits_for(classes: int) -> int:
    """Return the number of outputs for a number of classes: 1 for two classes, or for regression (no classes)."""
    return classes if classes > 2 else 1


def loss_for(classes: int) -> tuple[Loss, Callable[[Tensor, Tensor], Tensor]]:
    """Return the loss function and the accuracy function for a number of classes."""
    return (F.binary_cross_entropy_with_logits, binary_accuracy) if classes == 2 else (F.cross_entropy, accuracy)


def class_probabilities(logits: Tensor) -> Tensor:
    """Return the class probabilities (B, K) of logits (B, K); of a single logit (B, 1), those of two classes (B, 2)."""
    # 1 - p would round to 0 for p near 1
    return torch.cat([(-logits).sigmoid(), logits.sigmoid()], 1) if logits.shape[1] == 1 else logits.softmax(1)


class Supervised(Task):
    """Train ``model(input)`` towards a target, on batches ``(input, target)``.

    ``input`` and the output may be tensors, or whatever else the model takes and the loss and metrics are made for.

    Args:
        model: The model.
        loss: A function of (output, target) that returns one number, such as ``F.cross_entropy``; or a module, such as
            ``nn.CrossEntropyLoss()``, whose parameters, if any, are trained, too. With PyTorch's ``reduction`` the
            validation loss is exact, whatever the batches are; see :func:`per_example`.
        metrics: Functions of (output, target), by name, that return one value per example, (B,), also as booleans; or
            metrics of torchmetrics, which see all validation data of all processes before they compute a number. In
            training, such a metric is the mean of its values on batches.
        optimizer: Builds the optimizer from the parameters; Adam with learning rate 1e-3 by default.
        schedule: Builds the schedule from the optimizer, or from it and the number of steps; none by default. One of
            PyTorch's steps after each step if it is built from the number of steps, or else as in
            :meth:`Task.configure_schedules`.

    Raises:
        InputError: An argument is of another type, or a metric is named ``loss``.

    Example:
        >>> from torch.nn.functional import cross_entropy
        >>> from torchdl.tasks import accuracy
        >>> task = torchdl.Supervised(torchdl.MLP(4, 3), cross_entropy, metrics={"accuracy": accuracy})
        >>> measured = task.evaluate((torch.zeros(2, 4), torch.tensor([0, 1])))
        >>> measured["loss"].detach(), measured["accuracy"]  # all logits are 0: the loss is log 3
        (tensor([1.0986, 1.0986]), tensor([1., 0.]))
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        metrics: Mapping[str, Callable[[Tensor, Tensor], Any]] | None = None,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] | None = None,
        schedule: Callable[..., AnySchedule] | None = None,
    ) -> None:
        super().__init__()
        metrics = {} if metrics is None else metrics
        require(isinstance(model, nn.Module), f"Supervised trains a torch.nn.Module, not {kind_of(model)}")
        require(callable(loss), f"loss must be a function of (output, target), not {loss!r}")
        named = isinstance(metrics, Mapping) and all(map(callable, metrics.values()))
        several = hasattr(metrics, "items") and not named  # a MetricCollection of torchmetrics
        example = "dict(collection.items()) of a MetricCollection" if several else '{"accuracy": accuracy}'
        require(named, f"metrics must be functions by name, such as {example}")
        builds = optimizer is None or (callable(optimizer) and not isinstance(optimizer, Optimizer))
        require(builds, "optimizer must build one from parameters, such as partial(torch.optim.SGD, lr=0.1)")
        check_schedule(schedule)
        require("loss" not in metrics, "the metric 'loss' is the loss itself: give yours another name")
        for name, given in {"loss": loss, **metrics}.items():
            made = getattr(given, "__name__", "")
            require(not isinstance(given, type), f"{name} is the class {made}: give an instance, {made}()")
        collecting: dict[str, Any] = {name: metric for name, metric in metrics.items() if collects(metric)}
        self.collecting = (collecting,)  # in a tuple: they are no parts of the task, and not saved with it
        self.model, self.loss = model, loss
        self.metrics = {name: metric for name, metric in metrics.items() if name not in collecting}
        self.optimizer, self.schedule = optimizer or partial(make_optimizer, "adam", lr=1e-3), schedule

    def configure_optimizers(self) -> dict[str, Optimizer]:
        """Build one optimizer, named ``model``."""
        return {"model": self.optimizer(self.parameters())}

    def configure_schedules(self, optimizers: dict[str, Optimizer], steps: int) -> dict[str, AnySchedule]:
        """Build the schedule of ``optimizers["model"]``, if any, for ``steps`` steps in total."""
        return build_schedules(self.schedule, optimizers, steps)

    def train(self, mode: bool = True) -> Supervised:
        """Set the mode, as :meth:`torch.nn.Module.train` does; metrics that collect begin anew."""
        for metric in self.collecting[0].values():
            metric.reset()
        return super().train(mode)

    def losses(self, batch: tuple[Any, Any]) -> Iterator[Update]:
        """Yield the update of the model, with the means of the metrics.

        Raises:
            InputError: The loss is not one number for the batch, a metric is no number per example, or inputs or
                targets are none of the model's or the loss's.
        """
        output, target = self.output_and_target(batch)
        loss = self.of_targets(self.loss, output, target)
        single = isinstance(loss, Tensor) and loss.numel() == 1
        found = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        require(single, f"the loss must return one number for a batch, such as the mean, not {found}")
        detached = tree_map_only(Tensor, Tensor.detach, output)
        measured = {name: of_output(name, metric, detached, target) for name, metric in self.metrics.items()}
        for name, metric in self.collecting[0].items():
            measured[name] = of_output(name, partial(of_batch, name, metric), detached, target)
        numbers = {name: as_numbers(name, value) for name, value in measured.items()}
        for name, value in numbers.items():
            if value.dim() > 1:
                advice = "must be one number per example, (B,), whose mean the trainer takes"
                raise InputError(f"the metric {name!r} {advice}: not {tuple(value.shape)}")
        yield Update("model", loss.view(()), {name: value.float().mean() for name, value in numbers.items()})

    def evaluate(self, batch: tuple[Any, Any]) -> dict[str, Tensor | tuple[Tensor, Tensor]]:
        """Return each example's loss and metrics, (B,) each; see :func:`per_example` for the loss."""
        output, target = self.output_and_target(batch)
        if rows_count():  # else the batch is there for sums alone
            for name, metric in self.collecting[0].items():
                of_output(name, metric.to(device_of(output)).update, output, target)
        return {
            "loss": self.of_targets(partial(per_example, self.loss), output, target),
            **{name: of_output(name, metric, output, target) for name, metric in self.metrics.items()},
        }

    def summarize(self) -> dict[str, float]:
        """Return the metrics that have collected all validation data, of all processes."""
        return {name: float(one_number(name, metric.compute())) for name, metric in self.collecting[0].items()}

    def output_and_target(self, batch: Any) -> tuple[Any, Any]:
        """Return the model's output for a batch, and the target.

        Raises:
            InputError: The batch is not a pair, or its numbers are of a type that the model does not take.
        """
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            pairs = "let the data set return pairs, or write a Task for these batches"
            raise unsuitable(batch, f"{type(self).__name__} needs batches (input, target)", pairs)
        output, target = output_of(self.model, batch[0]), batch[1]
        check_shapes(self.loss, output, target)
        if self.step_info.step == 0:  # later only if PyTorch complains: to look at the values waits for the device
            check_targets(self.loss, output, target)
        return output, target

    def of_targets(self, loss: Callable[[Any, Any], Any], output: Any, target: Any) -> Any:
        """Return a loss of a model's output and a ``target``, and say in a sentence which targets it cannot take."""
        try:
            return of_output("loss", loss, output, target)
        except (IndexError, RuntimeError, ValueError):
            check_targets(self.loss, output, target)
            raise


def collects(metric: Any) -> bool:
    """Return whether a metric collects batches before it computes a number, as those of torchmetrics do."""
    return all(callable(getattr(metric, name, None)) for name in ("update", "compute", "reset"))


def of_batch(name: str, metric: Any, output: Any, target: Any) -> Tensor:
    """Return the value of a metric that collects on one batch alone."""
    value = one_number(name, metric.to(device_of(output))(output, target))  # of this process alone
    metric.reset()
    return value


def one_number(name: str, value: Any) -> Tensor:
    """Return what a metric has computed; raise :class:`InputError` unless it is one number."""
    several = "give its metrics themselves by name, as dict(collection.items()) of a MetricCollection does"
    require(not isinstance(value, Mapping), f"the metric {name!r} computes several: {several}")
    found = as_numbers(name, value)
    advice = 'let it average them, such as by average="macro"'
    require(found.numel() == 1, f"the metric {name!r} computes {found.numel()} numbers: {advice}")
    return found


def device_of(output: Any) -> torch.device:
    """Return the device of a model's output."""
    return next((leaf.device for leaf in tree_leaves(output) if isinstance(leaf, Tensor)), torch.device("cpu"))


BINARY = (F.binary_cross_entropy_with_logits, F.binary_cross_entropy)
BINARY_MODULES = (nn.BCEWithLogitsLoss, nn.BCELoss)
ELEMENTWISE = (F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss, *BINARY)
ELEMENTWISE_MODULES = (nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss, *BINARY_MODULES)
OF_CLASSES = (F.cross_entropy, F.nll_loss)
OF_CLASSES_MODULES = (nn.CrossEntropyLoss, nn.NLLLoss)


def is_one_of(loss: Loss, functions: Sequence[Loss], modules: tuple[type[nn.Module], ...]) -> bool:
    """Return whether a loss is one of PyTorch's functions or modules, or a ``partial`` of one."""
    function = loss.func if isinstance(loss, partial) else loss
    return function in functions or isinstance(function, modules)


def check_shapes(loss: Loss, output: Any, target: Any) -> None:
    """Raise :class:`InputError` if PyTorch would compare each output (B, 1) with each target (B,)."""
    if is_one_of(loss, ELEMENTWISE, ELEMENTWISE_MODULES):
        shapes = tuple(tuple(value.shape) if isinstance(value, Tensor) else () for value in (output, target))
        alike = f"outputs {shapes[0]} and targets {shapes[1]} must have the same shape: reshape the targets"
        require(shapes[0] == shapes[1], alike)


def check_targets(loss: Loss, output: Any, target: Any) -> None:
    """Raise :class:`InputError` if a loss of PyTorch's is not made for a batch's targets; their values are looked at.

    Args:
        loss: The loss.
        output: (B, C) or (B, C, ...) logits, for a loss of classes; of the targets' shape, for another one.
        target: (B,) or (B, ...) classes from 0 to C - 1, or probabilities of the output's shape.
    """
    problem, tensors = "", isinstance(output, Tensor) and isinstance(target, Tensor)
    if tensors and is_one_of(loss, OF_CLASSES, OF_CLASSES_MODULES) and output.dim() > 1:
        problem = wrong_classes(loss, output, target)
    elif tensors and is_one_of(loss, (*BINARY, F.huber_loss), (*BINARY_MODULES, nn.HuberLoss)):  # others take any
        if not target.is_floating_point():
            problem = f"targets must be decimals, not {target.dtype}: give target.float()"
        elif is_one_of(loss, BINARY, BINARY_MODULES) and target.numel():
            low, high = (float(value) for value in target.detach().aminmax())
            inside = low >= 0 and high <= 1
            problem = "" if inside else f"labels must be from 0 to 1, but are from {low:g} to {high:g}"
    require(not problem, f"these targets do not fit the loss: {problem}")


def wrong_classes(loss: Any, output: Tensor, target: Tensor) -> str:
    """Return what is wrong with the classes of a cross-entropy, and what to give instead; "" if nothing is."""
    classes, shape, wanted = output.shape[1], tuple(target.shape), (len(output), *output.shape[2:])
    if classes == 1:
        return (
            "one output is no choice of classes: give the model one for each, or use binary_cross_entropy_with_logits"
        )
    if target.shape == output.shape:  # probabilities, which only a cross-entropy takes
        advice = "give the classes, target.argmax(1), or decimals, target.float()"
        return "" if target.is_floating_point() else f"one-hot labels {shape} of {target.dtype}: {advice}"
    if shape != wanted:
        advice = "give target[:, 0]" if shape == (len(output), 1) else "give one for each example"
        advice = "the loss takes logits (B, C, ...), the classes second" if shape == output.shape[:-1] else advice
        return f"classes must be {wanted}, not {shape}: {advice}"
    if target.dtype not in (torch.int64, torch.uint8):
        return f"classes must be int64, not {target.dtype}: give target.long()"
    settings = loss.keywords if isinstance(loss, partial) else vars(loss) if isinstance(loss, nn.Module) else {}
    known = target[target != settings.get("ignore_index", -100)]
    if known.numel() == 0:
        return ""
    low, high = (int(value) for value in known.aminmax())
    if low >= 0 and high < classes:
        return ""
    advice = "number the classes from 0, or give the model one output for each"
    return f"classes must be 0 to {classes - 1}, for {classes} outputs, but are {low} to {high}: {advice}"


def output_of(model: nn.Module, inputs: Any) -> Any:
    """Return a model's output; raise :class:`InputError` if its inputs are of a type that it does not compute with."""
    try:
        return model(inputs)
    except (RuntimeError, ValueError) as error:  # as PyTorch's layers say it, each in its own words
        first, reason = next(model.parameters(), None), str(error)
        whole = "argument #1 'indices'" in reason  # of an embedding
        other = first is not None and isinstance(inputs, Tensor) and inputs.dtype != first.dtype and "type" in reason
        if isinstance(error, InputError) or not (whole or other):
            raise
        given = inputs.dtype if isinstance(inputs, Tensor) else kind_of(inputs)
        advice = "its embedding takes whole numbers: give inputs.long()"
        if not whole and first is not None:
            advice = f"it computes with {first.dtype}: give inputs.to({first.dtype})"
            advice += " / 255, or make an ImageDataset of images" if given == torch.uint8 else ""
        raise InputError(f"the model cannot take inputs of {given}: {advice}") from error


def of_output(name: str, function: Callable[[Any, Any], Any], output: Any, target: Any) -> Any:
    """Return a loss or metric, by name, of a model's output, for which the function must be made."""
    try:
        return function(output, target)
    except (TypeError, AttributeError) as error:
        if isinstance(output, Tensor):
            raise
        raise InputError(
            f"the model returns {describe_batch(output)}, which its {name} cannot take: choose the part in a function "
            "of your own, such as lambda output, target: cross_entropy(output[0], target)"
        ) from error


def per_example(loss: Loss, output: Any, target: Any) -> Tensor | tuple[Tensor, Tensor]:
    """Return the loss of each example (B,), or a pair of losses and weights (B,), whose weighted mean is the loss.

    A loss with PyTorch's ``reduction`` (a function's argument or a module's attribute) is asked for no reduction. Its
    examples get weights if its own mean has some, as that of a cross-entropy with class weights or ``ignore_index``.
    Any other loss is one number for the batch, which then stands for each of its examples.

    Example:
        >>> from torchdl.tasks.supervised import per_example
        >>> output, target = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [1.0]])
        >>> per_example(torch.nn.MSELoss(), output, target)
        tensor([1., 1.])
        >>> per_example(lambda output, target: (output - target).abs().mean(), 3 * output, target)
        tensor([3., 3.])
    """
    examples = next((len(leaf) for leaf in tree_leaves((target, output)) if isinstance(leaf, Tensor) and leaf.dim()), 1)
    unreduced = without_reduction(loss)
    values = torch.as_tensor((unreduced or loss)(output, target))
    if values.numel() == 1 and examples > 1:
        return values.view(()).expand(examples)
    require(
        values.numel() % examples == 0 and values.numel() > 0,
        f"the loss returns {tuple(values.shape)} for {examples} examples: let it return their mean",
    )
    values = values.reshape(examples, -1).mean(1)  # (B, ...) -> (B,)
    if unreduced is None:
        return values
    whole, mean = float(loss(output, target).detach().mean()), float(values.detach().mean())
    if math.isclose(whole, mean, rel_tol=1e-5) or not math.isfinite(mean):
        return values
    # the loss divides by a sum of weights other than the number of examples; NaN is 0 / 0, of no weight at all
    weight = 0.0 if math.isnan(whole) else mean / whole if whole else 1.0
    return (values / weight if weight else torch.zeros_like(values)), torch.full_like(values, weight)


def without_reduction(loss: Loss) -> Loss | None:
    """Return the same loss of each element alone, or None if a loss has no argument or attribute ``reduction``."""
    if isinstance(loss, nn.Module):
        if not hasattr(loss, "reduction"):
            return None
        single = copy.copy(loss)  # of its settings; the weights are shared
        single.reduction = "none"  # type: ignore[assignment]
        return single
    try:
        arguments = inspect.signature(loss).parameters.values()
    except (TypeError, ValueError):  # a builtin function may have no signature
        return None
    takes = any(a.name == "reduction" or a.kind is inspect.Parameter.VAR_KEYWORD for a in arguments)
    return partial(loss, reduction="none") if takes else None
