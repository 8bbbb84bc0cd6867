"""A batch with fewer examples than processes, or one that they cannot share evenly, equals that of one process."""

from __future__ import annotations

import pytest
import torch

pytestmark = pytest.mark.slow

#: One to four processes train one step with a batch of 1, 2, 3 or 5 examples, and evaluate with the same ones.
WORKER = """
import os, sys
from functools import partial

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

import torchdl
from torchdl import CPC, BatchLoader, ContextNetwork, CPCTask, GANTask, InputError, Predictors
from torchdl import Supervised, Trainer
from torchdl.training import distributed

torch.set_num_threads(1)
os.environ["GLOO_SOCKET_IFNAME"] = "lo"
IMAGES = torch.randn(7, 2, 3, 3, generator=torch.Generator().manual_seed(1))
TERMS = torch.randn(7, 5, 4, generator=torch.Generator().manual_seed(2))
SGD = partial(torch.optim.SGD, lr=0.01)  # Adam would scale up the noise of a gradient that is 0
LABEL = torch.tensor([1, 1, 0, 1, 0, 1, 1])
KINDS = torch.arange(35).view(7, 5) % 3


def classifier(*norms):
    layers = nn.Conv2d(2, 4, 2), norms[0], nn.Tanh(), nn.Flatten(), nn.Linear(16, 6), norms[1], nn.Linear(6, 3)
    return Supervised(nn.Sequential(*layers), F.cross_entropy, {"accuracy": torchdl.tasks.accuracy}, SGD)


def contrastive(head, norm, **options):
    encoder = nn.Sequential(nn.Linear(4, 6), norm, nn.Tanh(), nn.Linear(6, 4))
    model = CPC(encoder, ContextNetwork(4, 5), Predictors(5, 4, 2))
    return CPCTask(model, head, classes=3, optimizer="sgd", **options)


def gan(**options):
    pair = torchdl.GAN(torchdl.Generator(3, 18, (6,), batch_norm=0.8), torchdl.Discriminator(18, (5,)), (2, 3, 3))
    return GANTask(pair, optimizer="sgd", **options)


TASKS = {
    "norm of images": lambda: classifier(nn.BatchNorm2d(4), nn.Identity()),
    "norm": lambda: classifier(nn.BatchNorm2d(4), nn.BatchNorm1d(6, momentum=None)),
    "norm without statistics": lambda: classifier(nn.BatchNorm2d(4, track_running_stats=False), nn.Identity()),
    "infonce": lambda: contrastive("infonce", nn.BatchNorm1d(6)),
    "gan": gan,
}


class Spied:
    def __init__(self, task):
        self.gradients, build = [], task.configure_optimizers

        def configure():
            optimizers = build()
            for optimizer in optimizers.values():
                optimizer.register_step_pre_hook(self.note)
            return optimizers

        task.configure_optimizers = configure

    def note(self, optimizer, *_):
        self.gradients += [p.grad.clone() for group in optimizer.param_groups for p in group["params"]]


class Rows(torch.utils.data.Dataset):
    def __init__(self, *parts):
        self.parts = parts

    def __len__(self):
        return len(self.parts[0])

    def __getitems__(self, index):
        return tuple(part[index] for part in self.parts)


def data(task, n):
    if isinstance(task, CPCTask):
        return Rows(TERMS[:n, :3], TERMS[:n, 3:], LABEL[:n], KINDS[:n], KINDS[:n, 3:])
    return Rows(IMAGES[:n].tanh(), torch.arange(n) % 3)


def train(name, n, size):
    torch.manual_seed(0)
    task = TASKS[name]()
    spied = Spied(task)
    loaders = [BatchLoader(data(task, n), 12 // size) for _ in range(2)]
    try:
        history = Trainer(epochs=1, device="cpu").fit(task, *loaders)
    except InputError as error:
        return str(error)
    buffers = [b for b in task.buffers() if b.is_floating_point()]
    return {"history": list(history), "gradients": spied.gradients, "buffers": buffers}


def work(rank, size):
    if size > 1:
        dist.init_process_group("gloo", init_method=f"file://{os.getcwd()}/meeting-{size}", rank=rank, world_size=size)
    made = {(name, n): train(name, n, size) for name in TASKS for n in (1, 2, 3, 5)}
    torch.save(made, f"made-by-{rank}-of-{size}.pt")
    if size > 1:
        distributed.stop()  # leaves a group that it has not started
        assert dist.is_initialized()
        dist.destroy_process_group()


children = []
for rank in range(4):
    child = os.fork()
    if child == 0:
        for size in range(4, rank, -1):
            work(rank, size)
        os._exit(0)
    children.append(child)
codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
sys.exit(max(map(abs, codes)))
"""
TASKS = ["norm of images", "norm", "norm without statistics", "infonce", "gan"]


@pytest.fixture(scope="module")
def made(run, tmp_path_factory):
    """Train with one to four processes; return what each process came to, by (rank, size)."""
    folder = tmp_path_factory.mktemp("remainders")
    (folder / "worker.py").write_text(WORKER)
    done = run(str(folder / "worker.py"), folder)
    assert done.code == 0, done.err[-3000:]
    pairs = [(rank, size) for size in (1, 2, 3, 4) for rank in range(size)]
    return {pair: torch.load(folder / f"made-by-{pair[0]}-of-{pair[1]}.pt", weights_only=True) for pair in pairs}


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("name", TASKS)
def test_every_remainder_has_the_losses_and_gradients_of_one_process(made, name, size):
    for n in (1, 2, 3, 5):
        expected, (first, *others) = made[0, 1][name, n], [made[rank, size][name, n] for rank in range(size)]
        if isinstance(expected, str):  # refused for a single value, or a single candidate
            assert n == 1
            assert [first, *others] == [expected] * size
            continue
        (row,), (expected_row,) = first["history"], expected["history"]
        assert row == pytest.approx(expected_row, rel=1e-4, abs=1e-6)
        for key in ("gradients", "buffers"):
            torch.testing.assert_close(first[key], expected[key], rtol=1e-4, atol=1e-6)
        for other in others:
            assert other["history"] == first["history"]
            for key in ("gradients", "buffers"):
                torch.testing.assert_close(other[key], first[key], rtol=0, atol=0)


def test_one_example_is_refused_where_it_has_nothing_to_be_compared_with(made):
    refused = {name for name in TASKS if isinstance(made[0, 1][name, 1], str)}
    assert refused == {"norm", "infonce", "gan"}
