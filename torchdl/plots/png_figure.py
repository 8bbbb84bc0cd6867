"""A figure that a notebook draws, with pyplot and without."""

from __future__ import annotations

import io
from typing import Any

from matplotlib.figure import Figure

from torchdl.plots.figure import styled


class PNGFigure(Figure):
    """A figure that IPython shows as a picture; it shows matplotlib's own only once pyplot's magic has been called."""

    @styled()
    def draw(self, renderer: Any) -> None:
        """Draw it in the style it was made in: matplotlib makes some ticks only now."""
        super().draw(renderer)

    def _repr_png_(self) -> bytes:
        picture = io.BytesIO()
        self.savefig(picture, format="png")
        return picture.getvalue()
