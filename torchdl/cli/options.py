"""The options that all training scripts share, and the old names of renamed options."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

#: Old and new names of the options renamed in 0.2. The old ones work until 0.3.
RENAMED = {
    "--judge": "--feature-extractor",
    "--judged": "--evaluation-samples",
    "--paired": "--kid-samples",
    "--kinds": "--categories",
    "--valid-per-class": "--validation-per-class",
    "--held-out": "--test-share",
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
    """The run's name; the date and time if not given."""
    resume: Path | None = None
    """The folder of a run to continue. Options that are not given keep that run's values."""
    threads: int = 0
    """CPU threads; 0 lets PyTorch choose."""
    keep_memory: bool = True
    """Keep freed memory for the next step, which is faster on CPUs and needs a little more memory."""
