"""Look at figures."""

from __future__ import annotations

import numpy as np
from PIL import Image


def is_drawn(path) -> bool:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("L")).std() > 1
