"""The commit of the clone that runs."""

from __future__ import annotations

import subprocess
from pathlib import Path

CLONE = Path(__file__).resolve().parents[2]
CODE = ("torchdl", "scripts", "experiments/benchmark")  # what results depend on


def commit(folder: Path = CLONE) -> str:
    """Return a clone's commit, and whether its code has changed since; an empty string outside a clone."""
    if not (folder / ".git").exists():  # an installed torchdl may lie within the clone of another project
        return ""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        found = git("rev-parse", "--short=10", "HEAD")
        return f"{found} with changes" if found and git("status", "--porcelain", "--", *CODE) else found
    except FileNotFoundError:  # no git here
        return ""
