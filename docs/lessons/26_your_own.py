"""
Your own
========

Your research fits no recipe: the data come from your own class, the model has three parts, and the training has two
losses. How much do you have to write yourself, and what do you get for it?

At the end you can give torchdl a data set, a model, a task with two losses and a callback of your own, stop and resume
such a training exactly, and run it on several processes and on a cluster.
"""

# %%
# The idea
# --------
# A training has parts that differ from project to project, and parts that are always the same. You write the first
# kind:
#
# .. list-table::
#    :header-rows: 1
#
#    * - you write
#      - it is
#      - torchdl does
#    * - a data set
#      - ``__len__`` and ``__getitem__``, as for PyTorch
#      - order by seed and epoch, batches, shares for each process
#    * - a model
#      - an ``nn.Module``
#      - device, precision, compilation
#    * - a task
#      - ``configure_optimizers``, ``losses``, ``evaluate``
#      - backward, steps, averages over processes, checkpoints, resuming
#    * - a callback
#      - ``on_epoch_end`` and the like
#      - calls it at fixed places, keeps its state
#
# Our example is a denoiser: an encoder and a decoder restore digits of which half of the pixels are erased. Beside it,
# a classifier learns to read the digit from the code z alone:
#
# .. math:: L_{\text{denoise}} = \frac{1}{784\,B} \sum \lVert \hat x - x \rVert^2, \qquad
#           L_{\text{classify}} = -\frac{1}{B} \sum \log p_y(z), \qquad x: (B, 784), \quad z: (B, 64).
#
# The classifier must not change the encoder. So z is *detached* for it, and its loss has an optimizer of its own.

import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from check import check
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import torchdl
from torchdl.callbacks import Training

work = Path(tempfile.mkdtemp())
Batch = tuple[Tensor, Tensor, Tensor]

# %%
# Your data
# ---------
# An item is (erased image, whole image, label). Which pixels are erased depends on the epoch and the index alone, not
# on what was drawn before. So an item is the same in every process, with and without workers, and after a resume. The
# trainer calls ``set_epoch``.


class Erased(Dataset):
    """Digits with half of their pixels erased, others in each epoch."""

    def __init__(self, part: str, count: int) -> None:
        digits = torchdl.load_images("mnist_5k", part)
        chosen = torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))[:count]
        images, labels = digits.__getitems__(chosen)  # (N, 1, 28, 28) in [0, 1], (N,)
        self.images: Tensor = images
        self.labels: Tensor = labels
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Remember the epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Batch:
        whole = self.images[index].flatten()  # (784,)
        drawn = torch.Generator().manual_seed(1_000_003 * self.epoch + index)
        return whole * torch.randint(0, 2, (784,), generator=drawn), whole, self.labels[index]


train, test = Erased("train", 2000), Erased("test", 500)
print(len(train), "items of the shapes", [tuple(part.shape) for part in train[0]])

# %%
# Your model
# ----------


class Denoiser(nn.Module):
    """An encoder, a decoder, and a classifier of codes."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(784, 64), nn.ReLU())
        self.decoder = nn.Sequential(nn.Linear(64, 784), nn.Sigmoid())
        self.classifier = nn.Linear(64, 10)


def new_model() -> Denoiser:
    """Return a model with the same first weights each time."""
    torch.manual_seed(0)
    return Denoiser()


def optimizers_of(model: Denoiser) -> dict[str, torch.optim.Optimizer]:
    """Return one optimizer for the denoiser and one for the classifier."""
    denoiser = [*model.encoder.parameters(), *model.decoder.parameters()]
    return {
        "denoise": torch.optim.Adam(denoiser, lr=5e-3),
        "classify": torch.optim.Adam(model.classifier.parameters(), lr=5e-3),
    }


# %%
# By hand
# -------
# Two losses, two optimizers, one after the other. The second loss is computed after the first step, so the classifier
# sees the new code.


def train_by_hand(model: Denoiser, epochs: int) -> None:
    """Train in plain PyTorch."""
    optimizers = optimizers_of(model)
    for epoch in range(epochs):
        train.set_epoch(epoch)
        for erased, whole, label in DataLoader(train, batch_size=25):
            loss = F.mse_loss(model.decoder(model.encoder(erased)), whole)
            optimizers["denoise"].zero_grad()
            loss.backward()
            optimizers["denoise"].step()

            code = model.encoder(erased).detach()  # (B, 64), from which no gradient flows back
            loss = F.cross_entropy(model.classifier(code), label)
            optimizers["classify"].zero_grad()
            loss.backward()
            optimizers["classify"].step()


# %%
# With torchdl: your task
# -----------------------
# ``losses`` is a generator. It yields an update, the trainer applies it (backward, step, and the rest), and then asks
# for the next one. ``evaluate`` returns one value *per example*, so that means are exact whatever the batches are.


class DenoiseAndRead(torchdl.Task):
    """Learn to denoise, and to read digits from the code."""

    def __init__(self, model: Denoiser) -> None:
        super().__init__()
        self.model = model

    def configure_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Build the optimizers, by name."""
        return optimizers_of(self.model)

    def losses(self, batch: Batch) -> Iterator[torchdl.Update]:
        """Yield the update of the denoiser, then that of the classifier."""
        erased, whole, label = batch
        yield torchdl.Update("denoise", F.mse_loss(self.model.decoder(self.model.encoder(erased)), whole))
        logits = self.model.classifier(self.model.encoder(erased).detach())
        accuracy = (logits.detach().argmax(1) == label).float().mean()
        yield torchdl.Update("classify", F.cross_entropy(logits, label), {"accuracy": accuracy})

    def evaluate(self, batch: Batch) -> dict[str, Tensor]:
        """Return the errors of the restored images and the accuracy, (B,) each."""
        erased, whole, label = batch
        code = self.model.encoder(erased)
        error = (self.model.decoder(code) - whole).square().mean(1)
        return {"denoise_loss": error, "accuracy": (self.model.classifier(code).argmax(1) == label).float()}


# %%
# **Your callback** keeps pictures of every epoch, and stops when the error is low enough. Decide by metrics: they are
# the same on all processes.


class Pictures(torchdl.Callback):
    """Keep restored images of every epoch, and stop at an error."""

    def __init__(self, erased: Tensor, enough: float) -> None:
        self.erased, self.enough = erased, enough  # (N, 784)
        self.rows: dict[str, Tensor] = {}

    def on_epoch_end(self, training: Training) -> None:
        """Restore the images, and decide."""
        model = training.task.model
        with torch.no_grad():
            self.rows[f"epoch {training.epoch}"] = model.decoder(model.encoder(self.erased)).view(-1, 1, 28, 28)
        if training.row["val/denoise_loss"] < self.enough:
            training.stop(f"the error is below {self.enough}")


erased, whole, _ = (torch.stack(part) for part in zip(*(test[i] for i in range(10)), strict=True))
pictures = Pictures(erased, enough=0.03)
task = DenoiseAndRead(new_model())
history = torchdl.Trainer(epochs=20, device="cpu").fit(
    task, DataLoader(train, batch_size=25), DataLoader(test, batch_size=250), callbacks=[pictures]
)
by_hand = new_model()
train_by_hand(by_hand, epochs=len(history))
torch.testing.assert_close(task.model.state_dict(), by_hand.state_dict(), rtol=1e-2, atol=1e-3)
print(f"stopped after {len(history)} epochs, with the weights of the loop by hand")
print(f"accuracy of the digits read from codes: {history[-1]['val/accuracy']:.1%} on 500 test images")

# %%
# Look
# ----
# Look at the metrics: each of your names has a panel, training and validation together.

torchdl.plots.plot_history(history)

# %%
# Look at the rows from top to bottom: blurred shapes turn into strokes, simple digits first. The callback has kept all
# this, while the trainer knows nothing of images.

rows = {"erased": erased.view(-1, 1, 28, 28), **pictures.rows, "whole": whole.view(-1, 1, 28, 28)}
torchdl.plots.plot_image_rows(rows)

# %%
# Several processes
# -----------------
# With P processes, each takes B / P examples of every batch. Each computes gradients, these are averaged, and all
# make the same step: the training of one process with batches of B, up to rounding. ``torchrun`` starts the
# processes; in the code, only the batch size of a process changes. ``BatchLoader`` shares the batches out by itself.
# Here is a script of ten lines, and its result with one process and with two.

script = """
import torch, torchdl
rank, size = torchdl.collective.rank_and_size()
torch.manual_seed(0)
x = torch.randn(64, 3)
rows = torchdl.ArrayDataset(x, x.sum(1, keepdim=True))
task = torchdl.Supervised(torch.nn.Linear(3, 1), torch.nn.functional.mse_loss)
batches = torchdl.BatchLoader(rows, batch_size=16 // size, shuffle=True)
history = torchdl.Trainer(epochs=5, device="cpu").fit(task, batches)
if rank == 0:
    print(f"{size} process(es): loss {history[-1]['train/loss']:.6f} after {history[-1]['step']} steps")
"""
(work / "own.py").write_text(script)
runpy.run_path(str(work / "own.py"))  # what "python own.py" does
torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]  # what "torchrun" does
command = [sys.executable, *torchrun, str(work / "own.py")]
done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
assert done.returncode == 0, done.stderr
print(done.stdout.strip())

# %%
# A ``DataLoader`` needs a sampler that gives each process its part, and torchdl refuses one without:
# ``DistributedSampler(my_dataset, size, rank)``. Only process 0 should print and write, as the last two lines show.
# More processes with the same batch per process make a larger batch and fewer steps, which is another training: try a
# higher learning rate then.
#
# A cluster
# ---------
# Two machines with eight GPUs each, and Slurm. Every machine starts ``torchrun`` once, and the first one's address is
# the meeting point. ``--max-restarts`` starts all processes again when one dies. They go on from the last checkpoint.
#
# .. code-block:: bash
#
#    #!/bin/bash
#    #SBATCH --nodes=2 --ntasks-per-node=1 --gpus-per-node=8 --cpus-per-task=64 --time=24:00:00
#    host=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
#    srun torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint "$host:29500" \
#        --rdzv-id "$SLURM_JOB_ID" --max-restarts 3 own.py
#
# The script must give ``fit`` a folder that all machines see and ``resume="auto"``, which begins a training or goes on
# with it, and ``Trainer(checkpoint_every=500)``, so that a crash costs 500 steps at most. Many small trainings need no
# ``torchrun`` at all, but one job each: ``python scripts/reproduce.py --executor slurm --jobs 50`` submits the
# experiments of this project in this way.
#
# What breaks it
# --------------
# **Random numbers that remember.** It is tempting to let a data set draw from a generator of its own. Then an item
# depends on all items drawn before. A training that is stopped after one epoch and resumed draws other numbers than one
# that ran through, and nobody notices. Compare such a data set with ours.


class Remembering(Erased):
    """The same, but the erased pixels depend on what was drawn before."""

    def __init__(self, part: str, count: int) -> None:
        super().__init__(part, count)
        self.drawn = torch.Generator().manual_seed(0)

    def __getitem__(self, index: int) -> Batch:
        whole = self.images[index].flatten()
        return whole * torch.randint(0, 2, (784,), generator=self.drawn), whole, self.labels[index]


def fit(dataset: Dataset, epochs: int, folder: Path | None = None, resume: bool = False) -> Tensor:
    """Train, and return the decoder's weights; a new data set and a new model stand for a new process."""
    task = DenoiseAndRead(new_model())
    trainer = torchdl.Trainer(epochs=epochs, device="cpu")
    trainer.fit(task, DataLoader(dataset, batch_size=50), folder=folder, resume=resume, tensorboard=False)
    return next(task.model.decoder.parameters()).detach()


for kind in (Erased, Remembering):
    through = fit(kind("train", 500), epochs=2)
    fit(kind("train", 500), epochs=1, folder=work / kind.__name__)
    resumed = fit(kind("train", 500), epochs=2, folder=work / kind.__name__, resume=True)
    print(f"{kind.__name__:12} resumed equals uninterrupted: {torch.equal(through, resumed)}")

# %%
# PyTorch's, NumPy's and Python's *global* generators are safe: torchdl seeds them for every batch.
#
# Exercise 1: shares
# ------------------
# A training on one process has ``batch_size=96``. It moves to 3 machines with 4 GPUs each and must stay the same
# training. Which ``batch_size`` does each process need?

share = ...
check(share, 96 // (3 * 4), hint="There is one process per GPU.")

# %%
# .. dropdown:: Solution
#
#    Twelve processes share the 96 examples of a step.
#
#    .. code-block:: python
#
#       share = 96 // 12

# %%
# Exercise 2: when to stop
# ------------------------
# Write the decision of an early stop: a function ``stop(values, patience)`` of the validation losses so far, a list
# with the newest last. It returns True if the lowest one is ``patience`` or more epochs old.

stop = ...
cases = {((3.0, 2.0, 2.5, 2.6), 2): True, ((3.0, 2.0, 2.5, 2.6), 3): False, ((3.0, 2.0, 1.0), 1): False}
cases[(2.0, 3.0, 2.5), 2] = True  # better than the epoch before, but not than the lowest
check(
    stop,
    lambda f: next(
        (
            f"for {values} and patience {p} it is not {due}"
            for (values, p), due in cases.items()
            if f([*values], p) != due
        ),
        True,
    ),
    hint="The age of the lowest value is len(values) - 1 - values.index(min(values)).",
)

# %%
# .. dropdown:: Solution
#
#    torchdl has it as ``Trainer(monitor="val/denoise_loss", patience=2)``.
#
#    .. code-block:: python
#
#       stop = lambda values, patience: len(values) - 1 - values.index(min(values)) >= patience

# %%
# Where next
# ----------
# - ``docs/examples/research.py`` has a loader with workers, two schedules, F1, MLflow and resuming in one file;
#   ``torchrun --nproc-per-node 2 docs/examples/research.py FOLDER`` runs it.
# - :class:`torchdl.Task`, :class:`torchdl.Update`, :class:`torchdl.Callback`, :class:`torchdl.BatchLoader`,
#   :class:`torchdl.Trainer`.
# - The guide's chapters "Your own loaders", "Several processes and machines" and "Callbacks".
# - This was the last lesson. RESULTS.md shows what all of them led to, and ``python scripts/reproduce.py`` runs it
#   again.
