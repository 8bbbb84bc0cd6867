"""A figure that a notebook draws, with pyplot and without."""

from __future__ import annotations

import io

from matplotlib.figure import Figure


class PNGFigure(Figure):
    """A figure that IPython shows as a picture; it shows matplotlib's own only once pyplot's magic has been called."""

    def _repr_png_(self) -> bytes:
        picture = io.BytesIO()
        self.savefig(picture, format="png")
        return picture.getvalue()
