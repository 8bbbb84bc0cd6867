"""The options that all training scripts share, and the old names of renamed options."""

from __future__ import annotations

import os
import shlex
import sys
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from torchdl.collective import rank_and_size

#: The names of the options of the script that is running; none in a program that calls the library.
SCRIPT_OPTIONS: ContextVar[frozenset[str]] = ContextVar("SCRIPT_OPTIONS", default=frozenset())

#: Old and new names of the options that were renamed. The old ones work until 0.3.
RENAMED = {
    "--judge": "--feature-extractor",
    "--judged": "--evaluation-samples",
    "--paired": "--kid-samples",
    "--kinds": "--categories",
    "--valid-per-class": "--validation-per-class",
    "--held-out": "--test-share",
    "--flip": "--horizontal-flip",
    "--verbose": "--summary",
}
#: The same for the keys of ``config.json`` in runs from before 0.2, and for values in it.
RENAMED_FIELDS = {old.strip("-").replace("-", "_"): new.strip("-").replace("-", "_") for old, new in RENAMED.items()}
RENAMED_VALUES = {f"val/{name}": f"samples/{name}" for name in ("frechet_distance", "coverage")}


@dataclass(frozen=True)
class RunOptions:
    """Where a run finds its data and puts its results, and how its process is set up."""

    data_root: Path | None = None
    """The folder of the datasets. If not given: $TORCHDL_DATA, the system's folders, ~/.cache/torchdl, a download."""
    out: Path = Path("runs")
    """The folder of all runs."""
    name: str = ""
    """The run's name; the date and time if not given. A dry run has none."""
    resume: Path | None = None
    """The folder of a run to continue. Options that are not given keep that run's values."""
    logger: str = "tensorboard"
    """Where to log, beside the tables and pictures in the run's folder: tensorboard, mlflow, wandb (Weights & Biases),
    or several of these, as in tensorboard,mlflow; none for nowhere."""
    threads: int = 0
    """CPU threads; 0 lets PyTorch choose."""
    summary: bool = False
    """Print the network's layers before training: names, kinds, output shapes for one example, parameters."""
    keep_memory: bool = True
    """Keep freed memory for the next step, which is faster on CPUs and needs a little more memory."""


def resume_command(folder: Path) -> str:
    """Return the command that continues a run of the script that is running; nothing if that has no such option."""
    if "--resume" not in SCRIPT_OPTIONS.get():
        return ""
    command, size = shlex.join([sys.argv[0], "--resume", str(folder)]), rank_and_size()[1]
    if size == 1:
        return f"python {command}"
    if os.environ.get("LOCAL_WORLD_SIZE") == str(size) and "TORCHELASTIC_RUN_ID" in os.environ:
        return f"torchrun --nproc-per-node {size} {command}"
    return f"the same launcher with {size} processes, and {command}"
