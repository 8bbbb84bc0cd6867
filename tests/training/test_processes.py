"""What one of two processes decides, lacks or meets alone."""

from __future__ import annotations

import math
import re

import pytest
import torch

from torchdl import InputError
from torchdl.training import distributed

WORKER = """
import errno, math, os, sys, warnings
from contextlib import suppress
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from torchdl import ArrayDataset, BatchLoader, Callback, InputError, LearningRateFinder, Supervised, Trainer, Update
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset, TensorDataset
from torchdl.tasks import Schedule
from torchdl.training import distributed

torch.set_num_threads(1)
warnings.simplefilter("ignore")
os.environ["GLOO_SOCKET_IFNAME"] = "lo"
X = torch.randn(12, 3, generator=torch.Generator().manual_seed(1))
DATA = ArrayDataset(X, X.sum(1, keepdim=True))
SGD = partial(torch.optim.SGD, lr=0.1, weight_decay=0.1)
RANK, SIZE = 0, 2


class Regression(Supervised):
    def __init__(self, kind="", **options):
        torch.manual_seed(0)
        model = nn.ModuleDict({"main": nn.Linear(3, 1), "other": nn.Linear(3, 1)})
        super().__init__(model, F.mse_loss, optimizer=SGD, **options)
        self.kind = kind

    def losses(self, batch):
        x, y = batch
        mine = self.kind.endswith("everywhere") or RANK == 1
        if self.kind.startswith("skip") and mine:
            return
        output = self.model["main"](x)
        if self.kind.startswith("other") and mine:
            output = output + self.model["other"](x)
        loss = F.mse_loss(output, y)
        if self.kind == "infinite" and RANK == 1:
            loss = loss + math.inf
        if self.kind == "two" and RANK == 1:
            yield Update("second", loss)
        yield Update("model", loss, {"of one": torch.full((), 5.0)} if self.kind == "metric" and mine else {})

    def configure_optimizers(self):
        made = super().configure_optimizers()
        return {**made, "second": SGD(self.model["other"].parameters())} if self.kind == "two" else made

    def evaluate(self, batch):
        return {"loss": F.mse_loss(self.model["main"](batch[0]), batch[1], reduction="none")[:, 0]}

    def summarize(self):
        scores = [5, 3, 4, 4, 2, 1] if RANK == 0 else [5, 6, 7, 8, 9, 10]  # after 0, 3, 6 ... steps
        return {"score": float(scores[self.step_info.step // 3])} if self.kind == "scored" else {}


def fit(task, folder=None, batch=4, resume=False, callbacks=(), loader=None, **options):
    options = {"epochs": 1, **options}
    own, held_out = (BatchLoader(DATA, batch // SIZE) for _ in range(2))
    loaders = [own if loader is None else loader, held_out]
    history = Trainer(device="cpu", **options).fit(task, *loaders, folder, resume, callbacks=callbacks)
    return {"history": list(history), "state": task.state_dict()}


def plateau(optimizer, _):
    follow = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=0)
    return Schedule(follow, monitor="val/score")


def refused(function, *args, **options):
    try:
        function(*args, **options)
    except Exception as error:
        return f"{type(error).__name__}: {error}", distributed.is_reported_elsewhere(error)


class StopFirst(Callback):
    def on_step_end(self, training):
        if training.is_main and training.step == 2:
            training.stop("enough")


class Uneven(IterableDataset):
    def __iter__(self):
        yield from zip(X[: 8 - 3 * RANK], X[: 8 - 3 * RANK].sum(1, keepdim=True))  # four batches, or two and a half


class FullDisk(Callback):
    def on_checkpoint(self, training):
        if training.is_main:
            raise OSError(errno.ENOSPC, "No space left on device")


def of_all(kinds):
    return {kind: fit(Regression(kind)) for kind in kinds}


def work():
    if SIZE > 1:
        dist.init_process_group("gloo", init_method=f"file://{os.getcwd()}/meeting", rank=RANK, world_size=SIZE)
        made = of_all(["skip", "other", "other everywhere", "metric", "skip everywhere"])
        made["scored"] = fit(Regression("scored", schedule=plateau), epochs=5, monitor="val/score", patience=2)
        fit(Regression(), f"part-{RANK}", max_steps=2)
        made["no folder"] = refused(fit, Regression(), "part-0" if RANK == 0 else "nowhere", resume=True)
        made["no folder for the first"] = refused(fit, Regression(), "part-0" if RANK == 1 else "nowhere", resume=True)
        made["taken"] = refused(fit, Regression(), "part-0" if RANK == 0 else "new")
        made["full disk"] = refused(fit, Regression(), f"full-{RANK}", callbacks=[FullDisk()])
        own = partial(DataLoader, TensorDataset(*DATA[:]), 4 // SIZE)
        shares = [own(sampler=DistributedSampler(DATA, shuffle=shuffle)) for shuffle in (False, True)]
        made["shares"], made["shuffled shares"] = (fit(Regression(), loader=loader, epochs=2) for loader in shares)
        fit(Regression(), f"share-{RANK}", loader=shares[1], max_steps=2)
        made["no shares"] = refused(fit, Regression(), loader=own())
        with warnings.catch_warnings(record=True, action="always") as caught:
            made["uneven"] = fit(Regression(), loader=DataLoader(Uneven(), 2), max_steps=7)
        made["warnings"] = [str(warning.message) for warning in caught]
        with suppress(ImportError):
            import torchmetrics

            torch.manual_seed(0)
            square = {"square": torchmetrics.MeanSquaredError()}
            made["collected"] = fit(Supervised(nn.Linear(X.shape[1], 1), F.mse_loss, square))
        made["stopped"] = fit(Regression(), callbacks=[StopFirst()], epochs=3)
        finder = LearningRateFinder(0.01, 0.1, steps=12)
        fit(Regression(), callbacks=[finder], epochs=4)
        made["losses of the finder"] = finder.losses
        made["infinite"] = refused(fit, Regression("infinite"))
        made["two"] = refused(fit, Regression("two"))
        made["afterwards"] = fit(Regression())
        dist.destroy_process_group()
    else:
        made = of_all(["", "other everywhere"])
        finder = LearningRateFinder(0.01, 0.1, steps=12)
        fit(Regression(), callbacks=[finder], epochs=4)
        made["losses of the finder"] = finder.losses
        made["shares"] = fit(Regression(), loader=DataLoader(TensorDataset(*DATA[:]), 4), epochs=2)
        one = partial(DataLoader, TensorDataset(*DATA[:]), sampler=DistributedSampler(DATA, 1, 0))
        half, whole = (partial(one, batch_size=size) for size in (2, 4))
        made["shuffled shares"] = fit(Regression(), loader=whole(), epochs=2)
        made["other shares"] = refused(fit, Regression(), "share-0", resume=True, loader=half())
        made["rest of shares"] = fit(Regression(), "share-0", resume=True, loader=whole(), epochs=2)
        made["whole"], made["rest"] = fit(Regression()), fit(Regression(), "part-0", resume=True)
    torch.save(made, f"made-by-{RANK}-of-{SIZE}.pt")


children = []
for RANK in range(SIZE):
    if (child := os.fork()) == 0:
        work()
        os._exit(0)
    children.append(child)
if any([os.waitpid(child, 0)[1] for child in children]):
    sys.exit(1)
RANK, SIZE = 0, 1
work()
"""


@pytest.fixture(scope="module")
def made(run, tmp_path_factory):
    """Let two processes, then one, do everything; return what each came to."""
    folder = tmp_path_factory.mktemp("processes")
    (folder / "worker.py").write_text(WORKER)
    done = run(str(folder / "worker.py"), folder)
    assert done.code == 0, done.err[-3000:]
    names = ("0-of-1", "0-of-2", "1-of-2")
    return [torch.load(folder / f"made-by-{name}.pt", weights_only=True) for name in names]


def assert_same(one, other, tolerance: float = 0.0) -> None:
    for key, value in one["state"].items():
        torch.testing.assert_close(other["state"][key], value, rtol=0, atol=tolerance)


@pytest.mark.slow
def test_the_first_process_decides_what_is_best_when_to_stop_and_the_learning_rate(made):
    _, first, second = made
    assert [row["val/score"] for row in first["scored"]["history"]] == [3, 4, 4]  # then patience ends
    rates = [row["charts/learning_rate"] for row in first["scored"]["history"]]
    assert rates == pytest.approx([0.1, 0.1, 0.01])
    assert second["scored"]["history"] == first["scored"]["history"]
    assert_same(first["scored"], second["scored"])


@pytest.mark.slow
def test_a_pytorch_loader_with_its_sampler_shares_out_as_one_process_reads(made):
    one, first, second = made
    for kind in ("shares", "shuffled shares"):
        assert_same(one[kind], first[kind], tolerance=1e-6)
        assert first[kind]["history"] == second[kind]["history"]
        assert_same(first[kind], second[kind])
    message, _ = first["no shares"]
    assert re.search("same examples: give it the sampler .*DistributedSampler", message)


@pytest.mark.slow
def test_an_epoch_ends_with_the_shortest_of_uneven_streams(made):
    _, first, second = made
    assert [row["step"] for row in first["uneven"]["history"]] == [3, 6, 7]  # the third batch has two rows and one
    assert second["uneven"]["history"] == first["uneven"]["history"]
    assert_same(first["uneven"], second["uneven"])
    (warning,) = first["warnings"]
    assert "first batches of all 2 processes are equal" in warning
    assert second["warnings"] == []


@pytest.mark.slow
def test_a_metric_of_torchmetrics_collects_the_data_of_both(made):
    pytest.importorskip("torchmetrics")
    (row,) = made[1]["collected"]["history"]
    assert row["val/square"] == pytest.approx(row["val/loss"])
    assert made[2]["collected"]["history"] == [row]


@pytest.mark.slow
def test_the_learning_rate_finder_follows_the_mean_loss_of_both(made):
    one, first, second = (results["losses of the finder"] for results in made)
    assert first == second == pytest.approx(one, rel=1e-5)


@pytest.mark.slow
def test_a_callback_that_stops_one_process_stops_both(made):
    _, first, second = made
    assert [row["step"] for row in first["stopped"]["history"]] == [2]
    assert second["stopped"]["history"] == first["stopped"]["history"]
    assert_same(first["stopped"], second["stopped"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["skip", "other", "other everywhere", "metric", "afterwards", "skip everywhere"])
def test_both_processes_come_to_the_same(made, kind):
    _, first, second = made
    assert first[kind]["history"] == second[kind]["history"]
    assert_same(first[kind], second[kind])


@pytest.mark.slow
def test_a_parameter_without_a_gradient_stays_as_it_is_whatever_its_weight_decay(made):
    one, first, _ = made
    assert_same(one[""], first["afterwards"], 1e-6)
    assert_same(one["other everywhere"], first["other everywhere"], 1e-6)
    other = [key for key in first["other"]["state"] if "other" in key]
    for key in other:
        before = one[""]["state"][key]
        assert torch.equal(first["afterwards"]["state"][key], before)
        assert not torch.equal(first["other"]["state"][key], before)  # of one process alone


@pytest.mark.slow
def test_a_batch_that_one_process_skips_leaves_the_mean_of_the_others_examples(made):
    _, first, _ = made
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(12, 3, generator=generator)
    torch.manual_seed(0)
    linear = torch.nn.Linear(3, 1)
    optimizer = torch.optim.SGD(linear.parameters(), lr=0.1, weight_decay=0.1)
    for start in (0, 4, 8):
        optimizer.zero_grad()
        half = x[start : start + 2]
        torch.nn.functional.mse_loss(linear(half), half.sum(1, keepdim=True)).backward()
        optimizer.step()
    torch.testing.assert_close(first["skip"]["state"]["model.main.weight"], linear.weight.detach())
    (row,) = first["skip everywhere"]["history"]
    assert row["step"] == 3
    assert "train/loss" not in row


@pytest.mark.slow
def test_a_metric_of_one_process_is_the_metric_of_all(made):
    assert made[1]["metric"]["history"][0]["train/of one"] == 5


@pytest.mark.slow
@pytest.mark.parametrize(("whole", "rest"), [("whole", "rest"), ("shuffled shares", "rest of shares")])
def test_a_resume_with_another_number_of_processes_has_the_same_means(made, whole, rest):
    one = made[0]
    assert one[rest]["history"] == [pytest.approx(row, rel=1e-5) for row in one[whole]["history"]]
    assert_same(one[whole], one[rest], 1e-6)
    assert "cannot be resumed with batches 6 instead of 3, batch size 2 instead of 4" in one["other shares"][0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("no folder", "InputError: .*there is no run in .*nowhere"),
        ("no folder for the first", "InputError: .*there is no run in .*nowhere"),
        ("taken", "InputError: part-0 holds a training already"),
        ("full disk", "OSError: .*No space left on device"),
        ("infinite", "TrainingDiverged: the loss .* is inf at step 1, batch 1 of epoch 1"),
        ("two", "InputError: the processes yield updates of 'model' and of 'second'"),
    ],
)
def test_an_error_of_one_process_ends_all_of_them_with_its_sentence(made, case, message):
    _, first, second = made
    assert re.match(message, first[case][0])
    assert first[case][0] == second[case][0]
    if case != "two":  # where each finds the error itself
        assert (first[case][1], second[case][1]) == (False, True)  # the first alone reports it


# one process


def test_processes_that_cannot_join_are_an_input_error(monkeypatch):
    for name in ("MASTER_ADDR", "MASTER_PORT", "RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match=r"the 2 processes cannot join .*RANK.*torchrun"):
        distributed.start(torch.device("cpu"))


def test_a_process_group_without_the_devices_backend_is_an_input_error(monkeypatch):
    monkeypatch.setattr(distributed, "have_joined", lambda: True)
    monkeypatch.setattr(distributed.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "rank_and_size", lambda: (0, 2))
    monkeypatch.setattr(distributed.dist, "get_backend_config", lambda: "cuda:nccl")
    with pytest.raises(InputError, match=r"no tensors on cpu.*cuda:nccl.*'gloo'"):
        distributed.start(torch.device("cpu"))
    monkeypatch.setattr(distributed.dist, "get_backend_config", lambda: "cpu:gloo,cuda:gloo")
    distributed.start(torch.device("cpu"))


def test_a_process_that_ends_leaves_the_group_that_the_trainer_has_joined(monkeypatch):
    at_the_end = []
    monkeypatch.setattr(distributed, "rank_and_size", lambda: (0, 2))
    monkeypatch.setattr(distributed.dist, "init_process_group", lambda backend, **_: None)
    monkeypatch.setattr(distributed, "rendezvous", lambda url: iter([(distributed.dist.HashStore(), 0, 2)]))
    monkeypatch.setattr(distributed, "_is_ours", False)
    monkeypatch.setattr("atexit.register", at_the_end.append)
    distributed.start(torch.device("cpu"))
    assert at_the_end == [distributed.stop]


def test_an_error_stays_what_it_is_in_a_single_process():
    with pytest.raises(ZeroDivisionError), distributed.sharing_errors():
        raise ZeroDivisionError
    assert distributed.of_first(math.pi) == math.pi
    assert distributed.of_all("x") == ["x"]
    assert distributed.union(["b", "a", "b"]) == ["b", "a"]
