"""Whose random numbers are whose: the user's generators stay as they are, and training draws by its position alone."""
# ruff: noqa: NPY002  (users draw from NumPy's global generator)

from __future__ import annotations

import random as python_random
import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.callbacks import AtCheckpoint
from torch import nn
from torch.utils.data import Dataset, Subset

from torchdl import (
    ArrayDataset,
    BatchLoader,
    ImageDataset,
    InputError,
    ShiftedImages,
    Supervised,
    Trainer,
    TrainingDiverged,
    random,
)
from torchdl.recipes.learning import Learning
from torchdl.recipes.sequence_memory import tell_apart
from torchdl.training import evaluation
from torchdl.training.device import seed_generators

pytestmark = pytest.mark.usefixtures("quick")
CPU = torch.device("cpu")


def arrays(count: int = 9) -> ArrayDataset:
    return ArrayDataset(torch.linspace(-1, 1, count)[:, None], torch.linspace(1, 2, count)[:, None])


def dropping(inputs: int = 4, outputs: int = 1, loss=F.mse_loss) -> Supervised:
    """Build a task that draws from the global generator at each step; its initial weights are always the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = nn.Flatten(), nn.Linear(inputs, 8), nn.Dropout(0.5), nn.Linear(8, outputs)
        return Supervised(nn.Sequential(*layers), loss)


def states() -> list[object]:
    numpy = np.random.get_state()
    return [torch.get_rng_state().tolist(), python_random.getstate(), numpy[1].tolist(), numpy[2:]]


class Drawing(Dataset):
    """A user's data set, whose augmentation draws from every library's global generator."""

    def __len__(self) -> int:
        return 11

    def __getitem__(self, index: int):
        drawn = [torch.rand(1).item(), np.random.random(), python_random.random()]
        return torch.tensor([index, *drawn]), torch.tensor([float(index)])


class DrawingBatches(Drawing):
    def __getitems__(self, indices):
        drawn = [torch.rand(len(indices)), torch.from_numpy(np.random.rand(len(indices))).float()]
        return torch.stack([torch.as_tensor(indices), *drawn, torch.full_like(drawn[0], python_random.random())], 1)


DRAWING = {"items": Drawing(), "batches": DrawingBatches(), "wrapped": Subset(Drawing(), range(11))}


def batches(data: Dataset, epoch: int = 0, start: int = 0, **options) -> list:
    found = BatchLoader(data, 4, shuffle=True, **options).batches(epoch, start)
    return [(batch if isinstance(batch, torch.Tensor) else batch[0]).tolist() for batch, _ in found]


# the user's generators


def fail(kind: type[BaseException]) -> Callable:
    def loss(output, target, reduction="mean"):
        raise kind("stop")

    return loss


@pytest.mark.parametrize("end", [None, ZeroDivisionError, KeyboardInterrupt, InputError, TrainingDiverged])
@pytest.mark.parametrize("data", [arrays(), Subset(Drawing(), range(11))], ids=["arrays", "drawing"])
def test_fit_leaves_the_global_generators_as_they_were(data, end):
    torch.manual_seed(5)
    model = nn.Sequential(nn.Dropout(0.5), nn.LazyLinear(1))
    model(data[0][0][None])
    before = states()
    task, loader = Supervised(model, fail(end) if end else F.mse_loss), BatchLoader(data, 4, shuffle=True)
    with pytest.raises(end) if end else nullcontext():
        Trainer(epochs=2, device="cpu").fit(task, loader, None if end else loader)
    assert states() == before


def test_networks_built_in_a_loop_around_fit_begin_with_different_weights():
    torch.manual_seed(5)
    begun = []
    for _ in range(3):
        model = nn.Linear(1, 1)
        begun.append(model.weight.item())
        Trainer(epochs=1, device="cpu").fit(Supervised(model, F.mse_loss), BatchLoader(arrays(), 4))
    assert len(set(begun)) == 3


def test_an_evaluation_leaves_the_global_generators_as_they_were_and_draws_the_same_again():
    class Sampling(nn.Module):
        def forward(self, x):
            return x + torch.rand_like(x)

    def measure():
        return evaluation.evaluate(Supervised(Sampling(), F.mse_loss), BatchLoader(arrays(), 4), CPU, nullcontext)

    torch.manual_seed(5)
    before = states()
    first = measure()
    assert states() == before
    torch.rand(3)
    assert measure() == first


def test_what_a_preview_draws_depends_on_the_place_in_training(tmp_path):
    class Previewing(Supervised):
        def preview(self):
            drawn.append(torch.rand(1).item())
            return {}

    drawn: list[float] = []
    for _ in range(2):
        torch.rand(3)
        task = Previewing(nn.Linear(1, 1), F.mse_loss)
        Trainer(epochs=2, device="cpu").fit(task, BatchLoader(arrays(), 4))
    assert drawn[:2] == drawn[2:]
    assert drawn[0] != drawn[1]


def test_a_recipe_that_seeds_its_networks_leaves_the_global_generators_as_they_were():
    before, drawn = states(), []

    def build() -> nn.Module:
        drawn.append(torch.rand(1).item())
        return nn.Sequential(nn.Flatten(), nn.Linear(4, 1))

    for _ in range(2):
        tell_apart(build, 4, "short", 20, Learning(), Trainer(epochs=1, device="cpu"))
    assert drawn[0] == drawn[1]
    assert states() == before


# what a data set draws


@pytest.mark.parametrize("data", DRAWING.values(), ids=DRAWING)
def test_a_data_set_draws_by_the_seed_the_epoch_and_the_batch(data):
    first = batches(data, epoch=1)
    torch.rand(3), np.random.random(), python_random.random()
    assert batches(data, epoch=1) == first
    for other in (batches(data, epoch=0), batches(data, epoch=1, seed=1)):
        assert {row[1] for batch in other for row in batch}.isdisjoint(row[1] for batch in first for row in batch)
    for column in (1, 2):  # of numbers that differ within an epoch
        assert len({row[column] for batch in first for row in batch}) == 11


@pytest.mark.parametrize("data", DRAWING.values(), ids=DRAWING)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_set_draws_the_same_with_workers_and_after_a_resume(data, workers):
    before = states()
    for start in (0, 1, 2):
        assert batches(data, 1, start, workers=workers) == batches(data, 1)[start:]
    assert states() == before


def test_a_data_set_and_dropout_draw_different_numbers_from_the_same_seed():
    class Noting(nn.Module):
        def forward(self, x):
            seen.append((x[:, 1:2].clone(), torch.rand(len(x), 1)))
            return x[:, :1] * self.weight

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

    class One(DrawingBatches):
        def __getitems__(self, indices):
            return super().__getitems__(indices), torch.zeros(len(indices), 1)

    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    Trainer(epochs=1, device="cpu").fit(Supervised(Noting(), F.mse_loss), BatchLoader(One(), 4))
    assert all(not torch.equal(*pair) for pair in seen)


def test_an_evaluation_draws_other_numbers_than_training_on_the_same_data():
    class Noting(nn.Linear):
        def forward(self, x):
            seen[self.training].update(x[:, 1].tolist())
            return super().forward(x)

    seen: dict[bool, set[float]] = {True: set(), False: set()}
    loader = BatchLoader(Drawing(), 4)
    Trainer(epochs=1, device="cpu").fit(Supervised(Noting(4, 1), F.mse_loss), loader, loader)
    assert len(seen[True]) == len(seen[False]) == 11
    assert seen[True].isdisjoint(seen[False])


def test_training_on_a_data_set_that_draws_is_resumed_exactly(tmp_path):
    class Break(Exception):
        pass

    def saved() -> None:
        if next(saves) == 4:  # within the second epoch
            raise Break

    trainer = Trainer(max_steps=7, device="cpu", checkpoint_every=1)
    loader, expected, task = BatchLoader(Drawing(), 4, shuffle=True), dropping(), dropping()
    trainer.fit(expected, loader)
    saves = iter(range(100))
    with pytest.raises(Break):
        trainer.fit(task, loader, folder=tmp_path, callbacks=[AtCheckpoint(saved)])
    torch.rand(5), np.random.random(), python_random.random()
    trainer.fit(task, loader, folder=tmp_path, resume=True)
    for name, value in expected.state_dict().items():
        assert torch.equal(task.state_dict()[name], value), name


# threads


def test_trainers_in_several_threads_do_what_they_do_one_after_the_other():
    pixels = torch.arange(2 * 16, dtype=torch.uint8).view(8, 2, 2)
    shared = ShiftedImages(ImageDataset(pixels, torch.arange(8) % 2), shift=0.5)

    def train(number: int) -> None:
        trainer = Trainer(epochs=25, seed=number % 2, device="cpu")
        validation = BatchLoader(shared, 4)
        found[number] = trainer.fit(tasks[number], BatchLoader(shared, 2, shuffle=True, seed=number % 2), validation)

    tasks = [dropping(4, 2, F.cross_entropy) for _ in range(4)]  # not in the threads, where drawing has no turns
    found: dict[int, list] = {}
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # the threads interrupt each other as often as possible
    try:
        threads = [threading.Thread(target=train, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    for number in (2, 3):
        train(number)
    assert (found[0], found[1]) == (found[2], found[3])
    assert found[0] != found[1]


def test_a_region_is_restored_in_nested_regions_and_in_forked_processes():
    torch.manual_seed(5)
    with random.seeded(CPU, 1):
        first = torch.rand(2).tolist()
        with random.seeded(CPU, 2):
            torch.rand(9)
        second = torch.rand(2).tolist()
        # the workers of the loader are forked while this thread has its turn
        forked = batches(Drawing(), workers=2)
    with random.seeded(CPU, 1):
        assert torch.rand(4).tolist() == first + second
    assert forked == batches(Drawing())
    assert torch.equal(torch.rand(1), torch.rand(1, generator=torch.Generator().manual_seed(5)))


def test_seeding_for_good_leaves_the_generators_seeded():
    seed_generators(CPU, 3)
    first = torch.rand(2)
    seed_generators(CPU, 3)
    assert torch.equal(torch.rand(2), first)
    assert torch.equal(first, torch.rand(2, generator=torch.Generator().manual_seed(random.key(3))))
