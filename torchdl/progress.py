"""Progress bars: a widget in a notebook, a line of text in a terminal, and none elsewhere, as in a log file."""

from __future__ import annotations

import sys
import warnings
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # tqdm warns in a notebook without ipywidgets, where its bar is a line of text
    from tqdm.auto import tqdm


def progress_bar(shown: bool = True, **settings: Any) -> tqdm[Any]:
    """Return tqdm's bar with these settings; it is hidden unless ``shown``, and there is a notebook or a terminal."""
    notebook = type(sys.stderr).__module__.startswith("ipykernel.")  # whose standard streams are no terminal
    hidden = not shown or sys.stderr is None or (False if notebook else None)  # None: unless there is a terminal
    return tqdm(**settings, disable=hidden)
