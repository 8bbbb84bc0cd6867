from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import gaussian
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import torchdl
from torchdl.training.distributed import synchronize_batch_norm

ROOT = Path(__file__).resolve().parents[2]

#: What one process with batches of 16 and two with batches of 8 do. Four epochs of five steps: 75 examples leave a last
#: batch of 11 (shares of 5 and 6), 65 one of 1 (shares of 0 and 1). CPC has batches of 8, and of 2 by 4.
WORKER = '''
import os, runpy, signal, sys
from contextlib import nullcontext, suppress
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from torch.distributed.tensor import DTensor

import torchdl
from torchdl import CPC, BatchLoader, Callback, ContextNetwork, CPCTask, GANTask, ImageDataset, InputError
from torchdl import Predictors, Stopped, Supervised, Trainer
from torchdl.tasks import accuracy, cpc
from torchdl.training import checkpoint, distributed

generator = torch.Generator().manual_seed(5)
LABELS = torch.arange(96) % 3
CENTRES = torch.randn(3, 1, 4, 4, generator=generator)
PIXELS = 128 + 40 * CENTRES[LABELS] + 40 * torch.randn(96, 1, 4, 4, generator=generator)
PIXELS = PIXELS.clamp(0, 255).to(torch.uint8)
NOISE = ImageDataset(PIXELS[:16], low=-1).without_labels()


def classifier(norm):
    torch.manual_seed(1)
    # before a batch norm a bias has no gradient but noise, which Adam would scale up
    hidden = (nn.Linear(16, 24, bias=False), nn.BatchNorm1d(24)) if norm else (nn.Linear(16, 24),)
    layers = nn.Flatten(), *hidden, nn.Tanh(), nn.Linear(24, 3)
    return Supervised(nn.Sequential(*layers), F.cross_entropy, {"accuracy": accuracy})


def gan(**options):
    torch.manual_seed(2)
    pair = torchdl.simple_gan((1, 4, 4), z_dim=6)
    return GANTask(pair, **options)


class Sequences(torch.utils.data.Dataset):
    """Sequences of vectors of ten kinds that follow each other, five of context and two of future."""

    def __init__(self, count, first):
        generator = torch.Generator().manual_seed(first)
        kinds = (torch.randint(10, (count, 1), generator=generator) + torch.arange(7)) % 10
        self.expected, self.label = kinds[:, 5:].clone(), (torch.arange(count) % 4 > 0).long()
        kinds[:, 5:] += (1 - self.label)[:, None] * torch.randint(1, 10, (count, 2), generator=generator)
        self.digits = kinds % 10
        centres = torch.randn(10, 6, generator=torch.Generator().manual_seed(3))
        self.x = centres[self.digits] + 0.2 * torch.randn(count, 7, 6, generator=generator)

    def __len__(self):
        return len(self.x)

    def __getitems__(self, index):
        x = self.x[index]
        return x[:, :5], x[:, 5:], self.label[index], self.digits[index], self.expected[index]


def contrastive(head, **options):
    torch.manual_seed(4)
    encoder = nn.Sequential(nn.Linear(6, 12, bias=False), nn.BatchNorm1d(12), nn.Tanh(), nn.Linear(12, 5))
    return CPCTask(CPC(encoder, ContextNetwork(5, 7), Predictors(7, 5, 2), **options), head)


def fit(task, examples, batch, folder, resume=False, **options):
    if isinstance(task, CPCTask):
        trainer = Trainer(epochs=4, device="cpu", log_every=4, **options)
        train, held_out = BatchLoader(Sequences(examples, 0), batch // 2, shuffle=True), Sequences(21, 1)
        history = trainer.fit(task, train, BatchLoader(held_out, batch // 2), folder, verbose=True)
        return {"state": task.state_dict(), "history": list(history)}

    def images(rows):
        data = ImageDataset(PIXELS[rows], LABELS[rows], -1, 1)
        return data if isinstance(task, Supervised) else data.without_labels()

    trainer = Trainer(epochs=4, device="cpu", log_every=4, **options)
    train = BatchLoader(images(slice(0, examples)), batch, shuffle=True)
    held_out = BatchLoader(images(slice(75, 96)), batch)
    history = trainer.fit(task, train, held_out, folder, resume=resume, verbose=True)
    return {"state": task.state_dict(), "history": list(history)}


def run_all(batch, folder, rank=0):
    made = {
        "classifier": fit(classifier(norm=False), 75, batch, folder / f"classifier-of-{rank}"),
        "one left": fit(classifier(norm=False), 65, batch, folder / f"one-left-of-{rank}"),
        "norm": fit(classifier(norm=True), 75, batch, folder / f"norm-of-{rank}"),
        "gan": fit(gan(), 75, batch, folder / f"gan-of-{rank}"),
        "infonce": fit(contrastive("infonce"), 37, batch, folder / f"infonce-of-{rank}"),
        "every term": fit(contrastive("infonce", every_term=True), 37, batch, folder / f"every-term-of-{rank}"),
        "paired": fit(contrastive("paired"), 37, batch, folder / f"paired-of-{rank}"),
    }
    return made


def resumed(batch, folder, rank, **options):
    """Stop after the seventh step, by a signal to one of the processes, and go on."""

    class Interrupt(Callback):
        def on_step_end(self, training):
            if training.step == 7 and rank == 1:
                os.kill(os.getpid(), signal.SIGTERM)

    task = classifier(norm=True)
    task.configure_callbacks = lambda: [Interrupt()]
    try:
        fit(task, 75, batch, folder, **options)
    except Stopped as stopped:
        reason = str(stopped)
    return {**fit(classifier(norm=True), 75, batch, folder, resume=True, **options), "reason": reason}


class Held(Callback):
    """Count the numbers that this process holds of the parameters and of what the optimizers keep of them."""

    def on_epoch_end(self, training):
        states = [s for o in training.optimizers.values() for state in o.state.values() for s in state.values()]
        tensors = [*training.task.parameters(), *(s for s in states if s.dim())]
        self.numbers = sum((t.to_local() if isinstance(t, DTensor) else t).numel() for t in tensors)


def labelled():
    return ImageDataset(PIXELS[:32], LABELS[:32], -1, 1)


def run_sharded(folder, rank):
    held, penalty = Held(), GANTask(torchdl.simple_gan((1, 4, 4), z_dim=6), "wgan_gp")
    made = {
        "norm": fit(classifier(norm=True), 75, 8, folder / f"shared-norm-{rank}", shard=True, clip_norm=1e9),
        "gan": fit(gan(average=0.9), 75, 8, folder / f"shared-gan-{rank}", shard=True),
        "infonce": fit(contrastive("infonce"), 37, 8, folder / f"shared-infonce-{rank}", shard=True),
        "resumed": resumed(8, folder / "shared-resumed", rank, shard=True),
    }
    Trainer(max_steps=1, device="cpu", shard=True).fit(gan(), BatchLoader(NOISE, 8), callbacks=[held])
    tied, best, place = classifier(norm=False), torchdl.BestWeights("train/loss", "max"), folder / "best"
    tied.model.append(nn.Linear(3, 3)).append(tied.model[-1])
    refused = {"penalty": (penalty, NOISE), "tied": (tied, labelled()), "average": (gan(), NOISE)}
    for name, (task, data) in refused.items():
        callbacks = [torchdl.WeightAverage(task.generator, 0.9)] if name == "average" else []
        try:
            Trainer(max_steps=1, device="cpu", shard=True).fit(task, BatchLoader(data, 8), callbacks=callbacks)
        except InputError as error:
            made[name] = str(error)
    for epochs in (2, 3):  # the first epoch's loss is the largest
        task, trainer = classifier(norm=False), Trainer(epochs=epochs, device="cpu", shard=True)
        trainer.fit(task, BatchLoader(labelled(), 8), None, place, resume=epochs > 2, callbacks=[best])
        made[f"best {epochs}"] = task.state_dict()
    return {**made, "held": held.numbers}


if __name__ == "__main__":
    torch.set_num_threads(1)
    distributed.LARGE = 100  # so that these small networks have large gradients, too
    folder, rank = Path(sys.argv[1]), int(os.environ["RANK"])
    script = Path(torchdl.__file__).parents[1] / "scripts" / "train_autoencoder.py"
    options = "--dataset mnist_5k --max-steps 2 --width 2 --code-size 2 --noise 0.3 --monitor val/loss --name x"
    sys.argv, sys.path[0] = [str(script), *options.split()], str(script.parent)
    leave, distributed.stop = distributed.stop, lambda: None  # a group of processes cannot be joined again
    with suppress(SystemExit):
        runpy.run_path(str(script), run_name="__main__")
    made = run_all(8, folder, rank)
    made["resumed"] = resumed(8, folder / "resumed", rank)
    made["shared"] = run_sharded(folder, rank)
    cpc.gather = lambda *tensors: (list(tensors), 0)
    made["infonce alone"] = fit(contrastive("infonce"), 37, 8, folder / "alone")
    torch.save(made, folder / f"made-by-{rank}.pt")
    leave()
'''


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Train everything by two processes, then by one; return what each came to, and the folder."""
    folder = tmp_path_factory.mktemp("distributed")
    path = folder / "worker.py"
    path.write_text(WORKER)
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths, "GLOO_SOCKET_IFNAME": "lo"}
    command = [*launch, str(path), str(folder)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-9000:]
    two = [torch.load(folder / f"made-by-{rank}.pt", weights_only=True) for rank in (0, 1)]
    spec = importlib.util.spec_from_file_location("distributed_worker", path)
    worker = importlib.util.module_from_spec(spec)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    spec.loader.exec_module(worker)
    one = worker.run_all(16, folder / "one")
    torch.set_num_threads(threads)
    return one, two, folder, done.stdout


@pytest.mark.slow
def test_two_processes_train_an_autoencoder_and_one_reports(made):
    folder, said = made[2:]
    results = json.loads((folder / "runs" / "autoencoder" / "x" / "results.json").read_text())
    assert results["images"] == 500
    assert said.count("noise of 0.3: mse 0.09000 before, ") == 1


@pytest.mark.slow
def test_the_best_model_is_what_both_processes_end_with(made):
    assert made[3].count("the best val/loss, ") == 1


def test_the_batch_norm_of_all_processes_takes_bfloat16_as_pytorchs_does():
    x, norms = gaussian(6, 4, 3, 3).bfloat16(), [torch.nn.BatchNorm2d(4) for _ in range(2)]
    synchronize_batch_norm(norms[1])
    outputs = [norm(x) for norm in norms]
    assert [output.dtype for output in outputs] == [torch.bfloat16] * 2
    torch.testing.assert_close(*outputs)
    for one, other in zip(*(norm.state_dict().values() for norm in norms), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5)


CASES = ["classifier", "one left", "norm", "gan", "infonce", "every term", "paired"]


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_two_processes_come_to_the_parameters_of_one_with_twice_the_batch(made, name):
    one, two, _, _ = made
    for key, value in one[name]["state"].items():
        torch.testing.assert_close(two[0][name]["state"][key], value, rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_both_processes_hold_the_same_state_to_the_bit(made, name):
    _, two, _, _ = made
    for key, value in two[0][name]["state"].items():
        assert torch.equal(two[1][name]["state"][key], value), key


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_two_processes_measure_what_one_does(made, name):
    one, two, _, _ = made
    assert two[0][name]["history"] == two[1][name]["history"]
    assert len(one[name]["history"]) == 4
    for row, expected in zip(two[0][name]["history"], one[name]["history"], strict=True):
        assert any(key.startswith("val/") for key in row)
        assert row == pytest.approx(expected, rel=1e-5, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_two_processes_log_what_one_does(made, name):
    folder, run = made[2], f"{name.replace(' ', '-')}-of-0"
    ours, expected = (EventAccumulator(str(path)).Reload() for path in (folder / run, folder / "one" / run))
    assert ours.Tags()["scalars"] == expected.Tags()["scalars"]
    for tag in expected.Tags()["scalars"]:
        if "per_second" not in tag:
            points = [(event.step, pytest.approx(event.value, rel=1e-5, abs=1e-5)) for event in expected.Scalars(tag)]
            assert [(event.step, event.value) for event in ours.Scalars(tag)] == points


@pytest.mark.slow
def test_only_the_first_process_writes_and_speaks(made):
    folder, said = made[2], made[3]
    assert [path.name for path in folder.glob("*-of-*")] != []
    assert not list(folder.glob("*-of-1"))
    # seven runs, the resumed one, four that are shared out, and the one without the candidates of the other process
    assert said.count("epoch 4") == 13


@pytest.mark.slow
def test_a_resume_under_two_processes_equals_never_having_stopped(made):
    _, two, _, _ = made
    for rank in (0, 1):
        resumed, expected = two[rank]["resumed"], two[rank]["norm"]
        assert resumed["reason"] == "stopped after step 7"  # on both, though the signal came to one
        assert resumed["history"] == expected["history"]
        for key, value in expected["state"].items():
            assert torch.equal(resumed["state"][key], value), key


@pytest.mark.slow
@pytest.mark.parametrize("name", ["norm", "gan", "infonce"])
def test_a_model_that_is_shared_out_is_trained_as_a_whole_one(made, name):
    one, two, _, _ = made
    shared = [each["shared"][name] for each in two]
    assert shared[0]["history"] == shared[1]["history"]
    for row, expected in zip(shared[0]["history"], one[name]["history"], strict=True):
        assert row == pytest.approx(expected, rel=1e-5, abs=1e-5)
    for key, value in one[name]["state"].items():
        torch.testing.assert_close(shared[0]["state"][key], value, rtol=0, atol=1e-6)
        assert torch.equal(shared[1]["state"][key], shared[0]["state"][key]), key


@pytest.mark.slow
def test_a_training_that_is_shared_out_goes_on_exactly(made):
    for each in made[1]:
        resumed, expected = each["shared"]["resumed"], each["shared"]["norm"]
        assert resumed["history"] == expected["history"]
        for key, value in expected["state"].items():
            assert torch.equal(resumed["state"][key], value), key


@pytest.mark.slow
def test_each_process_holds_its_part_of_the_numbers(made):
    pair = torchdl.simple_gan((1, 4, 4), z_dim=6)
    numbers = 3 * sum(p.numel() for p in pair.parameters())  # parameters, and two averages of Adam
    held = [each["shared"]["held"] for each in made[1]]
    assert sum(held) == numbers
    assert max(held) < 0.51 * numbers


@pytest.mark.slow
def test_what_cannot_be_shared_out_is_refused_in_a_sentence(made):
    for each in made[1]:
        assert "knows no derivatives of gradients" in each["shared"]["penalty"]
        assert "weights that two layers have in common" in each["shared"]["tied"]
        assert "with shard, which trains a copy" in each["shared"]["average"]


@pytest.mark.slow
def test_the_best_weights_of_a_model_that_was_shared_out_survive_a_resume(made):
    for each in made[1]:
        best = [each["shared"][f"best {epochs}"] for epochs in (2, 3)]
        for key, value in best[0].items():
            assert torch.equal(best[1][key], value), key


@pytest.mark.slow
def test_without_the_other_processes_candidates_infonce_is_another_loss(made):
    one, two, _, _ = made
    state, expected = two[0]["infonce alone"]["state"], one["infonce"]["state"]
    assert max((state[key] - value).abs().max() for key, value in expected.items()) > 1e-2
    alone, together = (row[0]["train/loss"] for row in (two[0]["infonce alone"]["history"], one["infonce"]["history"]))
    assert alone < together - 0.3  # log 4 instead of log 8 where nothing is known
