"""Tables to learn from."""

from __future__ import annotations

import numpy as np
import pandas as pd


def table(rows: int = 60, seed: int = 0) -> pd.DataFrame:
    """Make rows whose target is a function of a number and a category, with noise."""
    random = np.random.default_rng(seed)
    size, kind = random.normal(50, 10, rows), random.choice(["red", "green", "blue"], rows)
    price = 3 * size + 20 * (kind == "red") + random.normal(0, 1, rows)
    return pd.DataFrame({"size": size, "kind": kind, "price": price})
