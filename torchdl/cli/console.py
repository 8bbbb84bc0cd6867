"""Lines on the console."""

from __future__ import annotations

from torchdl.collective import is_main_process
from torchdl.data import DatasetInfo


def say(text: str) -> None:
    """Print a line on process 0."""
    if is_main_process() and text:
        print(text, flush=True)


def describe_data(data: DatasetInfo) -> str:
    """Return a line on where data comes from, a loud one where it is fallback data."""
    return f"{'!' * 20} FALLBACK DATA {'!' * 20}\n{data.origin}" if data.fallback else f"data: {data.origin}"
