"""The one exception that torchdl raises for a mistake that its user can correct."""

from __future__ import annotations


class InputError(ValueError):
    """Bad input: the message is one sentence that states what is wrong, what was expected and what to do.

    Scripts print the message and exit with status 2; other code can catch a ``ValueError``.

    Example:
        >>> torchdl.MLP(dropout=1.5)
        Traceback (most recent call last):
            ...
        torchdl.errors.InputError: MLP: dropout must be in [0, 1), not 1.5
        >>> issubclass(torchdl.InputError, ValueError)
        True
    """


def require(condition: bool, message: str) -> None:
    """Raise :class:`InputError` with ``message`` unless ``condition`` holds."""
    if not condition:
        raise InputError(message)
