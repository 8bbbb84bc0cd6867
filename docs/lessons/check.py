"""Check the answers to a lesson's exercises; of a lesson that runs as a script, save the figures, too."""

import atexit
import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np

NUMBERS = itertools.count(1)  # of the exercises
PICTURES = Path("runs/lessons")


def check(answer: Any, wanted: Any, hint: str = "", close: float = 1e-3) -> bool | None:
    """Print whether an answer is right, or what is off, and return it; None while the answer is still ``...``.

    Args:
        answer: A number, a text, a list, an array or a tensor; anything if ``wanted`` is a function.
        wanted: The right answer; or a function that takes the answer, and returns True, or a sentence on what is off.
        hint: A sentence that is printed after a wrong answer.
        close: The largest relative difference between numbers; integers in ``wanted`` must be met exactly. A number
            may also be off by a millionth of the largest one in ``wanted``, or by 1e-9 if all are 0.
    """
    place = f"Exercise {next(NUMBERS)} (line {sys._getframe(1).f_lineno}): " if is_script() else ""
    if answer is ...:
        print(f"{place}Your turn: replace the three dots.")
        return None
    try:
        off = wanted(answer) if callable(wanted) else faults(answer, wanted, close)
    except Exception as error:
        off = f"it raises {type(error).__name__}: {error}"
    right = off is True or off == ""
    print(place + ("Right." if right else f"Not yet: {off or 'it is something else'}. {hint}".rstrip()))
    return right


def is_script() -> bool:
    """Return whether a lesson runs as a script; a page and a notebook show their figures themselves."""
    main = getattr(sys.modules["__main__"], "__file__", None) or ""
    return Path(main).resolve().parent == Path(__file__).resolve().parent and "sphinx_gallery" not in sys.modules


def save_figures() -> None:
    """Save all figures that are made from now on, when the lesson ends; print where they are."""
    from matplotlib.figure import Figure

    made: list[Figure] = []
    init = Figure.__init__

    def remember(figure: Figure, *args: Any, **kwargs: Any) -> None:
        init(figure, *args, **kwargs)
        made.append(figure)

    def save() -> None:
        drawn = [figure for figure in made if figure.axes]
        names = [f"{Path(sys.argv[0]).stem[:2]}-{number}.png" for number in range(1, len(drawn) + 1)]
        PICTURES.mkdir(parents=True, exist_ok=True)
        for figure, name in zip(drawn, names, strict=True):
            figure.savefig(PICTURES / name)
        print(f"{len(names)} pictures in {PICTURES}: {', '.join(names)}")

    Figure.__init__ = remember  # type: ignore[assignment, method-assign]
    atexit.register(save)


def faults(answer: Any, wanted: Any, close: float) -> str:
    """Return what differs between an answer and the right one, without giving that one away; "" if nothing does."""
    given, right = (np.asarray(v.detach() if hasattr(v, "detach") else v) for v in (answer, wanted))
    if given.shape != right.shape:
        return f"its shape is {given.shape}, but {right.shape} is wanted"
    if right.dtype.kind not in "iufc":
        return "" if (given == right).all() else "it is something else"
    if given.dtype.kind not in "iufc":
        return "a number is wanted"
    slack = 1e-6 * np.abs(right).max(initial=0) or 1e-9
    wrong = given != right if right.dtype.kind in "iu" else ~np.isclose(given, right, rtol=close, atol=slack)
    if not wrong.any():
        return ""
    if right.ndim:
        return f"{wrong.sum()} of {right.size} numbers differ, the first at {tuple(map(int, np.argwhere(wrong)[0]))}"
    return "it is too small" if given < right else "it is too large"


if is_script():
    save_figures()
