"""All that only a GPU can show, in six minutes: ``python experiments/gpu_check.py FOLDER``.

It runs the tests that need a GPU, the benchmark's trainings with few repeats, and airbench on CIFAR-10 in bf16, of
which it notes the accuracy and the seconds. FOLDER gets ``results.json`` and ``log.txt``.

It needs no network, but the packages of ``requirements.txt`` and pytest. ``TORCHDL_DATA`` names the folder of MNIST and
of ``cifar10-jpeg``. Without MNIST, the digits in the package are used; without ``cifar10-jpeg``, airbench is left out.
"""

from __future__ import annotations

import importlib.util
import json
import os
import runpy
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, TextIO

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # of this clone, installed or not
SPEED = "speed.json"
SECONDS = 360.0  # in all; a part that lasts longer than its share is stopped
NEEDED = ("torch", "torchvision", "tyro", "msgspec", "lazy_loader", "tensorboard", "safetensors", "sklearn", "pytest")
CIFAR = "cifar10-jpeg"
AIRBENCH = (
    f"scripts/train_cnn.py --model airbench --width 128 --epochs 20 --batch-size 512 --dataset {CIFAR} --flip 0.5 "
    "--precision bf16 --device cuda"
)


def obstacle() -> str:
    """Return why nothing can be measured here; an empty string if something can."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        return f"install the packages {', '.join(missing)} first (as wheels, where there is no network)"
    import torch

    return "" if torch.cuda.is_available() else "there is no CUDA device here"


def parts(folder: Path) -> dict[str, tuple[list[str], float]]:
    """Return the arguments of Python and the most seconds of each part, by name; ``folder`` is for their results."""
    workers = ["-n", "4"] if importlib.util.find_spec("xdist") else []
    tests = ["-m", "pytest", "-q", *workers, "tests/training/test_cuda.py", "tests/test_features.py"]
    found = {"tests": (tests, 150.0)}
    for name in ("gan", "mlp", "lenet", "cpc"):
        options = f"--device cuda --repeats 3 --seconds 1 --json {folder / name}.json"
        found[name] = (["scripts/benchmark.py", name, *options.split()], 70.0)
    airbench = ["experiments/gpu_check.py", "airbench", *AIRBENCH.split(), "--out", str(folder), "--name", "airbench"]
    return {**found, "airbench": (airbench, 120.0)}


def measure(out: Path) -> dict[str, Any]:
    """Run all parts, and return their results; the file of these is written anew after each."""
    out.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary, open(out / "log.txt", "w", encoding="utf-8") as log:
        folder = Path(temporary)
        for name, (arguments, most) in parts(folder).items():
            left = min(most, SECONDS - (time.monotonic() - start))
            results[name] = run(name, arguments, left, log)
            place = folder / "cnn" / name  # where the script of training puts its run
            for path in (folder / f"{name}.json", place / "results.json", place / SPEED):
                results[name] |= json.loads(path.read_text()) if path.is_file() else {}
            (out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    return results


def run(name: str, arguments: list[str], left: float, log: TextIO) -> dict[str, Any]:
    """Run a part for at most the seconds that are left; return its status and its seconds."""
    if name == "airbench" and not (Path(os.environ.get("TORCHDL_DATA", "")) / CIFAR / "train").is_dir():
        return {"status": f"left out: TORCHDL_DATA has no {CIFAR}"}
    if left <= 0:
        return {"status": "left out: the time is over"}
    began, paths = time.monotonic(), [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    print(f"\n{name}: python {' '.join(arguments)}", file=log, flush=True)
    command = [sys.executable, *arguments]
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=log, stderr=log, timeout=left)
        status = "done" if done.returncode == 0 else f"failed with status {done.returncode}: see log.txt"
    except subprocess.TimeoutExpired:
        status = f"stopped after {left:.0f} s: see log.txt"
    return {"status": status, "seconds in all": round(time.monotonic() - began, 1)}


def airbench(arguments: list[str]) -> None:
    """Run the script of training in this process, with a callback that writes the seconds into the run's folder."""
    import torch

    from experiments.benchmark.measure import clock
    from torchdl.callbacks import Callback, Training
    from torchdl.cli.run import MORE_CALLBACKS

    class Seconds(Callback):
        def on_fit_start(self, training: Training) -> None:
            self.start = clock(training.device.type)

        def on_fit_end(self, training: Training) -> None:
            if training.folder is not None:
                found = {"seconds of training": round(clock(training.device.type) - self.start, 2)}
                found["peak MiB"] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
                (training.folder / SPEED).write_text(json.dumps(found))

    MORE_CALLBACKS.set((Seconds(),))
    sys.argv = arguments
    runpy.run_path(arguments[0], run_name="__main__")


def main(arguments: list[str]) -> str | int:
    """Measure, or run a part of it; return a sentence if that is not possible."""
    if arguments[:1] == ["airbench"]:
        airbench(arguments[1:])
        return 0
    if len(arguments) != 1:
        return "gpu_check.py: give it the folder for the results"
    if reason := obstacle():
        return f"gpu_check.py: {reason}"
    results = measure(Path(arguments[0]))
    print(json.dumps(results, indent=2))
    return int(any(found["status"] != "done" for found in results.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
