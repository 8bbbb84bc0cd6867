"""The trainer of all tasks: it does everything in training that does not depend on the task."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler

from torchdl import random
from torchdl.callbacks import Callback
from torchdl.collective import rank_and_size
from torchdl.data.arrays import as_tensor
from torchdl.data.loader import BatchLoader, explaining_lost_workers
from torchdl.errors import kind_of, require
from torchdl.evaluation_mode import evaluating
from torchdl.fast.products import NEVER, PRODUCTS, Region, choose
from torchdl.field_docs import with_field_docs
from torchdl.files import plain
from torchdl.history import History
from torchdl.loggers import RunLogger
from torchdl.tasks import StepInfo, Task
from torchdl.tasks.base import describe_batch
from torchdl.tasks.supervised import output_of
from torchdl.training import distributed
from torchdl.training.device import find_device, move, tf32
from torchdl.training.evaluation import evaluate
from torchdl.training.fit import Fit
from torchdl.training.folder import opened
from torchdl.training.logging import Logger
from torchdl.training.pytorch_loader import PyTorchLoader, as_loader


@with_field_docs
@dataclass(frozen=True)
class Trainer:
    """Train a task, with evaluation, logging, checkpoints and exact resuming.

    Several processes, started by ``torchrun``, do the same training as one with the same global batch: equal losses and
    gradients, up to rounding. There are two exceptions. What a model draws from PyTorch's generator, such as dropout's
    masks, depends on the number of processes, because each draws its own. A loss with weights of its own, such as a
    cross-entropy with class weights or ``ignore_index``, divides by the weights of each process's part alone, and with
    ``accumulate`` by those of each batch.

    Example:
        >>> x = torch.linspace(-1, 1, 64)[:, None]
        >>> train = torchdl.BatchLoader(torchdl.ArrayDataset(x, 2 * x), batch_size=32, shuffle=True)
        >>> task = torchdl.Supervised(torch.nn.Linear(1, 1), torch.nn.functional.mse_loss)
        >>> history = torchdl.Trainer(epochs=2).fit(task, train, validation=train)
        >>> sorted(history[-1])
        ['charts/learning_rate', 'epoch', 'step', 'train/grad_norm', 'train/loss', 'val/loss']
    """

    epochs: int = 10
    """Passes over the training data."""
    max_steps: int = 0
    """Steps to train for, instead of epochs; 0 to train for epochs."""
    seed: int = 0
    """The seed of all random draws."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps; or a torch.device."""
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    """Precision of the forward passes; bf16 uses autocast with fp32 weights (slow on CPUs without bf16 units). tf32
    lets a GPU multiply fp32 numbers with 10 bits of their fractions (on a CPU it is fp32). With fp32, PyTorch's
    settings decide: by default a GPU multiplies so in convolutions and recurrent layers alone."""
    products: Literal["auto", "mkl", "onednn"] = "auto"
    """The library of float32 matrix products on a CPU: auto measures from which size on oneDNN is faster here."""
    compile: bool = False
    """Compile the networks with torch.compile, which makes convolutions faster, but not small networks. On a GPU, each
    forward and each backward pass becomes a CUDA graph, which is for small networks; the rest of the step does not,
    because its noise, learning rates and counters change from step to step."""
    shard: bool = False
    """Share out parameters and optimizers over the processes, by PyTorch's FSDP2, for models that do not fit in one."""
    accumulate: int = 1
    """Batches per step, whose gradients are averaged."""
    clip_norm: float = 0.0
    """Maximum norm of each optimizer's gradients, which are scaled down to it; 0 for no clipping."""
    log_every: int = 50
    """Steps between two points in the loggers, such as TensorBoard; an epoch without one has a point at its end."""
    evaluate_every: int = 1
    """Epochs between two evaluations on validation data, each with preview images and a printed line."""
    checkpoint_every: int = 0
    """Steps between two checkpoints, in addition to those at the ends of epochs; 0 for none."""
    checkpoint_seconds: float = 5.0
    """Least seconds between two checkpoints at the ends of epochs; the last is always written. 0 for one each epoch."""
    monitor: str = ""
    """The metric that decides which epoch is best, such as val/accuracy; that epoch's checkpoint is kept as best.pt."""
    mode: Literal["auto", "min", "max"] = "auto"
    """Whether a lower (min) or a higher value (max) of the monitored metric is better. auto tells by its name: higher
    is better if it ends in accuracy, top1, precision, recall, f1, auc, r2, information or the like."""
    patience: int = 0
    """Stop after this number of evaluations without improvement; 0 for never."""
    dry_run: bool = False
    """Do only two steps of training and of evaluation, to check that everything runs."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "device", str(self.device))  # what a run's record can hold
        for name in (field.name for field in fields(self)):
            object.__setattr__(self, name, plain(getattr(self, name)))  # a number of NumPy's types, for example
        least = dict.fromkeys(("epochs", "accumulate", "log_every", "evaluate_every"), 1)
        for name in (*least, "max_steps", "checkpoint_every", "patience", "clip_norm", "checkpoint_seconds"):
            value, low, whole = getattr(self, name), least.get(name, 0), name not in ("clip_norm", "checkpoint_seconds")
            number = isinstance(value, int if whole else (int, float)) and low <= value < math.inf
            require(number, f"{name} must be {'a whole number, ' * whole}{low} or more, not {value!r}")
        require(
            isinstance(self.seed, int) and 0 <= self.seed < 2**32,
            f"seed must be from 0 to {2**32 - 1}, not {self.seed}",
        )
        choices = {"precision": ("fp32", "tf32", "bf16"), "mode": ("auto", "min", "max"), "products": PRODUCTS}
        for name, known in choices.items():
            value = getattr(self, name)
            require(value in tuple(known), f"{name} must be {', '.join(known)}, not {value!r}")
        require(self.patience == 0 or bool(self.monitor), "patience needs a metric: set monitor, too")
        require(
            not (self.shard and self.compile), "a model that is shared out cannot be compiled: drop compile or shard"
        )

    def allows_onednn(self) -> bool:
        """Return whether oneDNN may compute the products of a training with these options."""
        others = self.precision == "bf16" or self.compile or self.shard
        return not others and find_device(self.device).type == "cpu"

    def least_product(self) -> float:
        """Return the number of multiply-adds from which oneDNN computes a product; infinity if it computes none."""
        return choose(self.products) if self.allows_onednn() else NEVER

    def arithmetic(self, device: torch.device) -> AbstractContextManager[None]:
        """Return a context for what a GPU computes, with the asked precision of its float32 products."""
        return tf32() if self.precision == "tf32" and device.type == "cuda" else nullcontext()

    def region(self, module: nn.Module, device: torch.device, least: float = NEVER) -> AbstractContextManager[Any]:
        """Return a context for forward passes of a ``module`` outside of a training.

        Args:
            module: The module, on its ``device``.
            device: That device.
            least: The size from which oneDNN computes products.
        """
        return torch.autocast(device.type, torch.bfloat16) if self.precision == "bf16" else Region(module, least)

    def fit(
        self,
        task: Task,
        train: BatchLoader | DataLoader[Any],
        validation: BatchLoader | DataLoader[Any] | None = None,
        folder: str | Path | None = None,
        resume: bool | Literal["auto"] = False,
        record: Mapping[str, Any] | None = None,
        callbacks: Sequence[Callback] = (),
        loggers: Sequence[RunLogger] = (),
        tensorboard: bool = True,
        verbose: bool = False,
    ) -> History:
        """Train ``task`` in place, and return the history: one row of metrics per epoch.

        PyTorch's global generators are restored afterwards. What a task draws from them depends only on the trainer's
        seed and the position in training. Trainers in several threads take turns, step by step, and draw the same
        numbers as one alone; give each its own task. Only a thread that draws from the global generators without
        :func:`torchdl.random.seeded` disturbs them.

        Args:
            task: The task; it stays on the trainer's device.
            train: Training batches. A :class:`BatchLoader` goes on within an epoch at once, and is shared out over
                several processes. With a ``DataLoader``, each process needs its own part (``DistributedSampler``), a
                resume reads the batches of an unfinished epoch again, and ``max_steps`` must be set if its length is
                not known.
            validation: Validation batches.
            folder: The folder for checkpoints and logs; None to write nothing (such a run cannot be resumed). A folder
                that holds a training is refused unless ``resume`` is set.
            resume: Whether to resume from the last checkpoint in ``folder``. A training that was killed before its
                first checkpoint starts from the beginning. With ``"auto"``, the same call begins a training, if
                ``folder`` is empty or missing, and resumes it.
            record: The run's hyperparameters, for the loggers and, with the trainer's options, for ``config.json``.
            callbacks: Are called at fixed places of the training; see :class:`torchdl.Callback`. A resume needs the
                same ones, if they have a state.
            loggers: Log numbers, pictures and settings elsewhere, too, such as :class:`torchdl.MLflowLogger`.
            tensorboard: Whether to write TensorBoard's files in ``folder``.
            verbose: Whether to print a line per epoch and show a progress bar (in a terminal or a notebook).

        Raises:
            InputError: There is no run to resume, it is of another task, the best epoch's is missing or
                damaged, or ``folder`` holds another training.
            TrainingDiverged: A loss or a gradient norm is not finite; the checkpoints are from before it.
            Stopped: The process received Ctrl-C or SIGTERM; if there is a folder, it holds a checkpoint. After any
                other error, a task that was shared out is as before.
        """
        require(resume in (False, True, "auto"), f'resume must be False, True or "auto", not {resume!r}')
        require(not resume or folder is not None, "resume needs the folder of the run to resume")
        outside = "call fit outside of torch.no_grad() and torch.inference_mode()"
        require(torch.is_grad_enabled(), f"PyTorch computes no gradients here: {outside}")
        loaders = as_loader(train, self.seed), None if validation is None else as_loader(validation, self.seed)
        trainable = isinstance(task, Task)
        require(trainable, f"the trainer needs a Task, such as Supervised(model, loss), not {kind_of(task)}")
        for name, given, kind in (("callbacks", callbacks, Callback), ("loggers", loggers, RunLogger)):
            fits = isinstance(given, Sequence) and all(isinstance(each, kind) for each in given)
            require(fits, f"{name} must be a list of instances of torchdl.{kind.__name__}, not {given!r}")
        place = Path(folder) if folder else None
        distributed.start(find_device(self.device))
        if resume == "auto":
            resume = distributed.any_process(place is not None and place.is_dir() and any(place.iterdir()))
        with ExitStack() as stack, explaining_lost_workers(), distributed.explaining_errors(self.shard):
            for loader in loaders:
                if isinstance(loader, PyTorchLoader):
                    stack.callback(loader.close)
            with distributed.sharing_errors():
                resumable = stack.enter_context(opened(place, resume))
            shares = distributed.have_joined() or not self.shard
            advice = "start them by torchrun, or train with shard=False"
            require(shares, f"shard shares a model out over several processes: {advice}")
            fit = Fit(self, task, *loaders, place, callbacks, verbose)
            make_logger = partial(Logger, loggers=loggers, tensorboard=tensorboard)
            return fit.run(resume, distributed.any_process(resumable), record or {}, make_logger)

    def evaluate(self, task: Task, loader: BatchLoader | DataLoader[Any]) -> dict[str, float]:
        """Return the means of a task's metrics over all examples of a loader, under the names of validation metrics.

        This measures as :meth:`fit` does after an epoch, on the trainer's device and with its precision, exactly over
        all batches and processes. Afterwards the task is as before: in its modes, on its device.

        Args:
            task: The task.
            loader: The batches.

        Raises:
            InputError: It is no task or no loader, or the task cannot take the batches.

        Example:
            >>> data = torchdl.ArrayDataset(torch.zeros(5, 1), torch.tensor([[1.0], [1.0], [1.0], [1.0], [6.0]]))
            >>> task = torchdl.Supervised(torch.nn.Identity(), torch.nn.functional.mse_loss)
            >>> torchdl.Trainer(device="cpu").evaluate(task, torchdl.BatchLoader(data, 4))
            {'val/loss': 8.0}
        """
        require(isinstance(task, Task), f"evaluate needs a Task, such as Supervised(model, loss), not {kind_of(task)}")
        batches, device = as_loader(loader, self.seed), find_device(self.device)
        distributed.start(device)
        rank, size = rank_and_size()
        batches.shard(rank, size)
        least = distributed.of_first(self.least_product() if rank == 0 else NEVER)
        with evaluating(task, device), explaining_lost_workers(), self.arithmetic(device):
            region = partial(self.region, task, device, least)
            return evaluate(task, batches, device, region, StepInfo(self.seed), 2 if self.dry_run else None)

    def predict(self, model: nn.Module, data: Any, batch_size: int = 256) -> Tensor:
        """Return a model's outputs (N, ...) for all data, in their order, on the CPU.

        The model computes batch by batch on the trainer's device, in evaluation mode and without gradients. Afterwards
        it is as before: in its modes, on its device. Each process predicts all data.

        Args:
            model: The model; or a task, whose trained model predicts.
            data: Inputs (N, ...), a tensor or an array; or a data set of inputs, or of tuples that begin with one, such
                as (input, target); or a loader of it. A :class:`BatchLoader` yields the data in their own order here,
                also those that it shuffles or leaves out in training.
            batch_size: The number of inputs that are computed at once; a loader has its own.

        Raises:
            InputError: A ``DataLoader`` shuffles, or the model cannot take the inputs or returns no tensor.

        Example:
            >>> data = torchdl.ArrayDataset(torch.rand(1000, 4), torch.zeros(1000))
            >>> logits = torchdl.Trainer().predict(torchdl.MLP(4, 3), data)
            >>> logits.shape, logits.requires_grad
            (torch.Size([1000, 3]), False)
        """
        require(isinstance(model, nn.Module), f"predict needs a model or a task, not {kind_of(model)}")
        network, device, found = model.trained if isinstance(model, Task) else model, find_device(self.device), []
        with evaluating(network, device), explaining_lost_workers(), self.arithmetic(device):
            for batch in self.in_order(data, batch_size):
                inputs = batch[0] if isinstance(batch, (tuple, list)) else batch
                with self.region(network, device):
                    output = output_of(network, move(inputs, device))
                several = f"predict collects tensors, but the model returns {describe_batch(output)}"
                require(isinstance(output, Tensor), f"{several}: let a module of your own choose one")
                found.append(output.cpu())
        return torch.cat(found)

    def in_order(self, data: Any, batch_size: int) -> Iterator[Any]:
        """Yield batches of data in their order: of an array, of a data set or of what a loader loads.

        An array and a data set have batches of ``batch_size``. A ``DataLoader`` that shuffles would
        raise :class:`InputError`.
        """
        if hasattr(data, "dtype"):
            require(batch_size >= 1, f"batch_size must be at least 1, not {batch_size}")
            yield from as_tensor(data, "data").split(batch_size)
            return
        if isinstance(data, BatchLoader):
            loader: BatchLoader | DataLoader[Any] = BatchLoader(data.dataset, data.batch_size, workers=data.workers)
        else:
            loader = data if isinstance(data, DataLoader) else BatchLoader(data, batch_size)
            shuffles = isinstance(getattr(loader, "sampler", None), RandomSampler)
            require(not shuffles, "predictions are in the order of the data: give the DataLoader's data set instead")
        yield from (batch for batch, _ in as_loader(loader, self.seed).batches(0, stream=random.Stream.EVALUATION_DATA))
