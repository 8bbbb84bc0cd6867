"""The exceptions of torchdl: a mistake that its user can correct, and a training that was stopped."""

from __future__ import annotations

from pathlib import Path


class InputError(ValueError):
    """Bad input: the message is one sentence that states what is wrong, what was expected and what to do.

    Scripts print the message and exit with status 2; other code can catch a ``ValueError``. A message may quote a
    stranger's file, so line breaks and other characters that cannot be printed are written as in Python's code.

    Example:
        >>> torchdl.MLP(dropout=1.5)
        Traceback (most recent call last):
            ...
        torchdl.errors.InputError: MLP: dropout must be in [0, 1), not 1.5
        >>> issubclass(torchdl.InputError, ValueError)
        True
    """

    def __init__(self, message: str = "") -> None:
        super().__init__("".join(c if c.isprintable() else repr(c)[1:-1] for c in message))


class FallbackWarning(UserWarning):
    """Data were neither found nor downloaded, and others replace them; the message names both.

    ``warnings.simplefilter("error", torchdl.errors.FallbackWarning)`` makes it an error.
    """


class Stopped(Exception):  # not an error: the user asked for it
    """Training was stopped by a signal, after it saved a checkpoint if it has a folder.

    Args:
        message: When it was stopped, in words.
        signal_number, folder: As the attributes.

    Attributes:
        signal_number: The signal: SIGINT (Ctrl-C) or SIGTERM.
        folder: The folder with the checkpoint to resume from; None if nothing was saved.

    Example:
        >>> import signal
        >>> def loss(output, target):
        ...     signal.raise_signal(signal.SIGINT)  # as Ctrl-C does
        ...     return (output - target).square().mean()
        >>> loader = torchdl.BatchLoader(torchdl.ArrayDataset(torch.ones(8, 1), torch.ones(8, 1)), batch_size=2)
        >>> torchdl.Trainer().fit(torchdl.Supervised(torch.nn.Linear(1, 1), loss), loader)
        Traceback (most recent call last):
            ...
        torchdl.errors.Stopped: stopped after step 1
    """

    def __init__(self, message: str, signal_number: int, folder: Path | None = None) -> None:
        super().__init__(message)
        self.signal_number, self.folder = signal_number, folder


def require(condition: bool, message: str) -> None:
    """Raise :class:`InputError` with ``message`` unless ``condition`` holds."""
    if not condition:
        raise InputError(message)


def first_line(error: BaseException) -> str:
    """Return the first line of another library's message, or the name of the error's class if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def kind_of(value: object) -> str:
    """Return the name of a value's class after its article.

    Example:
        >>> from torchdl.errors import kind_of
        >>> kind_of(3), kind_of([3]), kind_of(torchdl.MLP()), kind_of(torchdl.Autoencoder())
        ('an int', 'a list', 'an MLP', 'an Autoencoder')
    """
    name = type(value).__name__
    spelt = name[:2].isupper()  # letter by letter, such as MLP
    return f"{'an' if name.startswith(tuple('AEFHILMNORSX' if spelt else 'AEIOaeio')) else 'a'} {name}"
