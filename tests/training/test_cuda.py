"""What only a GPU can show: skipped where there is none."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
import torch
from helpers.resuming import EPOCH, TASKS, assert_as_if_uninterrupted, fit, interrupt, scalars, terminate
from torch import nn

from torchdl import ArrayDataset, BatchLoader, Callback, Stopped, Supervised, Trainer, random
from torchdl.files import CHECKPOINT
from torchdl.training import checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")]


def test_the_generators_of_a_new_process_can_be_seeded():
    code = (
        "import torch; from torchdl.training.device import find_device, seed_generators\n"
        "device = find_device('cuda'); found = []\n"
        "for _ in range(2): seed_generators(device, 3, 4); found.append(torch.rand(5, device=device))\n"
        "assert found[0].equal(found[1])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_fit_leaves_the_generators_of_the_device_as_they_were_and_drops_the_same_again():
    data = ArrayDataset(torch.ones(8, 4), torch.ones(8, 1))
    torch.manual_seed(5)
    before, rows = torch.cuda.get_rng_state(), []
    for _ in range(2):
        task = Supervised(nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 1)), nn.MSELoss())
        nn.init.ones_(task.model[1].weight), nn.init.zeros_(task.model[1].bias)
        rows.append(Trainer(epochs=2, device="cuda").fit(task, BatchLoader(data, 4), BatchLoader(data, 4)))
        assert torch.equal(torch.cuda.get_rng_state(), before)
    assert rows[0] == rows[1]


def test_random_numbers_are_those_of_the_cpu():
    index = torch.arange(1000)
    for draw in (random.bits, random.uniform, random.normal):
        torch.testing.assert_close(draw(1, 2, index.cuda(), 8, 3).cpu(), draw(1, 2, index, 8, 3))


@pytest.mark.parametrize("name", TASKS)
def test_training_that_was_stopped_goes_on_as_if_it_never_had_been(tmp_path, name):
    whole = TASKS[name]()
    history = fit(whole, tmp_path / "whole", device="cuda")
    assert {tensor.device.type for tensor in whole.state_dict().values()} == {"cuda"}
    saved, shown = checkpoint.read(tmp_path / "whole" / CHECKPOINT), scalars(tmp_path / "whole")
    with pytest.raises(Stopped) as stopped:
        fit(interrupt(TASKS[name](), EPOCH + 2, terminate), tmp_path / "cut", device="cuda")
    assert stopped.value.signal_number == signal.SIGTERM
    task = TASKS[name]()
    rows = fit(task, tmp_path / "cut", resume=True, device="cuda")
    assert_as_if_uninterrupted((whole.state_dict(), history, saved, shown), task, rows, tmp_path / "cut")


@pytest.fixture
def exact():
    """Compute convolutions and recurrent layers in float32, instead of PyTorch's default, TF32."""
    kinds = torch.backends.cudnn.conv, torch.backends.cudnn.rnn
    before = [kind.fp32_precision for kind in kinds]
    for kind in kinds:
        kind.fp32_precision = "ieee"
    yield
    for kind, precision in zip(kinds, before, strict=True):
        kind.fp32_precision = precision


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("name", [name for name in TASKS if name != "classifier"])  # dropout draws by the device
def test_an_epoch_gives_what_it_gives_on_the_cpu(name):
    here, there = (fit(TASKS[name](), None, device=device, epochs=1)[0] for device in ("cpu", "cuda"))
    assert there.keys() == here.keys()
    for key, value in here.items():
        if "per_second" not in key:
            assert there[key] == pytest.approx(value, rel=1e-2, abs=1e-4), key


@pytest.mark.parametrize("precision", ["bf16", "tf32"])
@pytest.mark.parametrize("name", ["classifier", "averaged", "infonce"])
def test_lower_precisions_train(name, precision):
    history = fit(TASKS[name](), None, device="cuda", precision=precision)
    losses = [value for row in history for key, value in row.items() if "loss" in key]
    assert losses
    assert torch.tensor(losses).isfinite().all()


def test_tf32_rounds_products_in_a_training_and_not_after_it():
    class Product(Supervised):
        def losses(self, batch):
            found.append(error())
            yield from super().losses(batch)

    def error() -> float:
        return float(((x @ x).double() - exact).abs().max() / exact.abs().max())

    if torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("this GPU has no TF32")
    x = torch.randn(512, 512, device="cuda", generator=torch.Generator("cuda").manual_seed(0))
    exact, data = x.double() @ x.double(), ArrayDataset(torch.ones(4, 4), torch.ones(4, 1))
    found = [error()]
    for precision in ("fp32", "tf32"):
        task = Product(nn.Linear(4, 1), nn.MSELoss())
        Trainer(epochs=1, device="cuda", precision=precision).fit(task, BatchLoader(data, 4))
    before, in_fp32, in_tf32, after = *found, error()
    assert before == in_fp32 == after < 1e-5 < in_tf32 < 1e-2


class NoWaiting(Callback):
    """Make it an error to wait for the GPU, from the second step on to the one before the last of the epoch."""

    def on_step_end(self, training):
        torch.cuda.set_sync_debug_mode("error" if training.step < EPOCH - 1 else "default")

    def on_fit_end(self, training):
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", [*TASKS, "compiled"])
def test_no_step_waits_for_the_gpu(name):
    task = TASKS["deep" if name == "compiled" else name]()
    if name == "compiled":  # and captured, for each size of a batch, which does wait; the networks stay compiled
        fit(task, None, device="cuda", compile=True, log_every=EPOCH + 1)
    fit(task, None, epochs=1, device="cuda", log_every=EPOCH + 1, clip_norm=1.0, callbacks=[NoWaiting()])


@pytest.mark.parametrize("name", ["classifier", "simple", "averaged", "infonce"])
def test_cuda_graphs_give_what_the_gpu_gives_without_them(name):
    """More steps than a graph needs to be captured, an evaluation between them, and a network used after training."""

    def task():
        made = TASKS[name]()
        if name == "simple":
            made.generator_every = 2  # in every other step, no backward pass follows the generator's pass
        for module in made.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0  # compiled code draws other masks
        return made

    plain, compiled, options = task(), task(), {"accumulate": 2} if name == "classifier" else {}
    expected = fit(plain, None, device="cuda", epochs=2, **options)
    found = fit(compiled, None, device="cuda", epochs=2, compile=True, **options)
    for row, other in zip(expected, found, strict=True):
        for key, value in row.items():
            if "per_second" not in key:
                assert other[key] == pytest.approx(value, rel=2e-2, abs=1e-3), key
    if name == "classifier":
        x = torch.rand(3, 2, 1, 4, 4, device="cuda")
        with torch.no_grad():
            kept = [compiled.model.eval()(part) for part in x]
            for part, result in zip(x, kept, strict=True):
                torch.testing.assert_close(result, plain.model.eval()(part), rtol=2e-2, atol=1e-3)
