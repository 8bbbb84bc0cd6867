"""Print lines on the console."""

from __future__ import annotations

from torchdl.collective import is_main_process
from torchdl.data import DatasetInfo


def say(text: str) -> None:
    """Print a line if this is process 0; print nothing for an empty one."""
    if is_main_process() and text:
        print(text, flush=True)


def describe_data(data: DatasetInfo) -> str:
    """Return a line that says where data comes from, with a warning above if it is fallback data."""
    return f"{'!' * 20} FALLBACK DATA {'!' * 20}\n{data.origin}" if data.fallback else f"data: {data.origin}"
