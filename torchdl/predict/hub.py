"""Publish a trained run on the Hugging Face Hub, and use one from there.

Only data travels: the architecture, the weights as safetensors, the settings and results as JSON, and a card. No file
is pickled and none is run, so a stranger's repository is data, too. This needs ``pip install 'torchdl[hub]'``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from torchdl.errors import InputError, first_line, require
from torchdl.files import ARCHITECTURE, EVALUATION, PREPROCESSING, RESULTS, WEIGHTS, PathLike, read_json
from torchdl.predict.base import Predictor
from torchdl.predict.loading import load_predictor
from torchdl.predict.pretrained_weights import CARD

FILES = (ARCHITECTURE, WEIGHTS, PREPROCESSING)  # what load_predictor reads
README = "README.md"  # the card's name on the Hub


def push_to_hub(
    folder: PathLike, repository: str, private: bool | None = None, message: str = "", token: str | None = None
) -> str:
    """Publish a run on the Hugging Face Hub, in a new repository or as a new commit of one.

    What is uploaded is what answers need (``architecture.json``, ``weights.safetensors``, ``preprocessing.json``) and
    the results. ``config.json`` stays, because it names folders of this machine. Look into ``preprocessing.json`` first
    if your data is private: it has class names, categories or a vocabulary. A card is written (from ``card.md`` in the
    folder, if it is there) unless the repository has one.

    Args:
        folder: The folder of a run.
        repository: ``user/name``.
        private: Whether only you can see a new repository; None for your account's default.
        message: The commit's message.
        token: Your access token; None for that of ``hf auth login`` or of ``$HF_TOKEN``.

    Returns:
        The address of the commit.

    Raises:
        InputError: The folder cannot be used, the package is not installed, or the Hub refuses.

    Example:
        >>> torchdl.push_to_hub("runs/lenet/first", "first")
        Traceback (most recent call last):
            ...
        torchdl.errors.InputError: a repository's name is like user/name, not 'first'
    """
    folder = Path(folder)
    check_name(repository)
    predictor = load_predictor(folder, "cpu")  # before anything is uploaded
    files = [name for name in (*FILES, RESULTS, EVALUATION) if (folder / name).is_file()]
    with explained(repository) as hub:
        api = hub.HfApi(token=token, library_name="torchdl")
        api.create_repo(repository, private=private, exist_ok=True)
        operations = [hub.CommitOperationAdd(name, folder / name) for name in files]
        if not api.file_exists(repository, README):
            operations.append(hub.CommitOperationAdd(README, card_of(folder, repository, predictor).encode()))
        done = api.create_commit(repository, operations, commit_message=message or f"Add a {predictor.kind} of torchdl")
    return str(done.commit_url)


def from_hub(
    repository: str,
    revision: str | None = None,
    device: str | torch.device = "auto",
    batch_size: int = 500,
    token: str | None = None,
) -> Predictor[Any]:
    """Load a run that somebody has published with :func:`push_to_hub`, as something to use.

    Its three files are downloaded to the Hub's cache once, and no code of the repository is run.

    Args:
        repository: ``user/name``.
        revision: A branch, a tag or a commit; a commit never changes. None for the newest.
        device: auto, cpu, cuda, cuda:N or mps.
        batch_size: The number of inputs that are computed at once.
        token: Your access token, for a private repository.

    Raises:
        InputError: The package is not installed, there is no such repository, it cannot be reached, or it holds no run.

    Example:
        >>> torchdl.from_hub("https://huggingface.co/user/name")
        Traceback (most recent call last):
            ...
        torchdl.errors.InputError: a repository's name is like user/name, not 'https://huggingface.co/user/name'
    """
    check_name(repository)
    with explained(repository) as hub:
        place = hub.snapshot_download(
            repository, revision=revision, allow_patterns=list(FILES), token=token, library_name="torchdl"
        )
    missing = [name for name in FILES if not (Path(place) / name).is_file()]
    require(not missing, f"{repository} is no run of torchdl: it has no {' and no '.join(missing)}")
    return load_predictor(place, device, batch_size)


def check_name(repository: str) -> None:
    """Raise :class:`InputError` unless a repository's name is like user/name."""
    known = re.fullmatch(r"[\w.-]+/[\w.-]+", repository) is not None
    require(known, f"a repository's name is like user/name, not {repository!r}")


@contextmanager
def explained(repository: str) -> Iterator[Any]:
    """Yield the package ``huggingface_hub``; what it raises becomes one sentence."""
    try:
        import huggingface_hub
        from huggingface_hub.errors import HTTPError
    except ImportError as error:
        raise InputError("huggingface_hub is not installed: pip install 'torchdl[hub]'") from error
    try:
        yield huggingface_hub
    except InputError:
        raise
    except (HTTPError, OSError, ValueError) as error:  # it raises many kinds of these
        raise InputError(f"{repository}: the Hub cannot do that ({first_line(error)})") from error


def card_of(folder: Path, repository: str, predictor: Predictor[Any]) -> str:
    """Return a card for the Hub: the folder's own, or what its files say."""
    labels = f"---\nlibrary_name: torchdl\ntags:\n- torchdl\n- {predictor.kind.replace(' ', '-')}\n---\n\n"
    if (folder / CARD).is_file():
        return labels + (folder / CARD).read_text(encoding="utf-8")
    network = read_json(folder / ARCHITECTURE)["class"]
    parameters = sum(parameter.numel() for parameter in predictor.model.parameters())
    results = read_json(folder / RESULTS) if (folder / RESULTS).is_file() else {}
    numbers = {k: v for k, v in results.items() if isinstance(v, (int, float))} if isinstance(results, dict) else {}
    figures = "".join(f"- {name}: {json.dumps(value)}\n" for name, value in numbers.items())
    return f"""{labels}# {repository.split("/")[1]}

A trained {predictor.kind} of torchdl: {network}, {parameters:,} parameters.

```python
import torchdl

predictor = torchdl.from_hub("{repository}")
```

{figures}
Say here what it was trained on, under which licence, and what it is not for.
"""
