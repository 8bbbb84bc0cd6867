"""Look at figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def is_drawn(path: str | Path) -> bool:
    """Return whether a PNG is more than a blank page."""
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("L")).std() > 1
