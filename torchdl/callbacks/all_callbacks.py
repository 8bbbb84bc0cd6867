"""The list of all callbacks of a training."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from torchdl.callbacks.base import Callback, Training
from torchdl.errors import InputError, require

PLACES = [name for name in vars(Callback) if name.startswith("on_")]


class Callbacks:
    """All callbacks of a training, called in their order; a checkpoint keeps their states by name."""

    def __init__(self, callbacks: Sequence[Callback], training: Training) -> None:
        for callback in callbacks:
            if not isinstance(callback, Callback):
                advice = "an instance of a subclass of torchdl.Callback"
                raise InputError(f"a callback is {advice}, not {callback!r}")
            unknown = ", ".join(name for name in dir(type(callback)) if name.startswith("on_") and name not in PLACES)
            kind = type(callback).__name__
            require(not unknown, f"no training calls {kind}.{unknown}: the methods are {', '.join(PLACES)}")
            for place in PLACES:
                taken = inspect.signature(getattr(callback, place)).parameters.values()
                names = ", ".join(p.name for p in taken if p.kind not in (p.KEYWORD_ONLY, p.VAR_KEYWORD))
                advice = f"gets the training alone, not ({names}): write def {place}(self, training)"
                require(names.count(",") == 0 and names != "", f"{kind}.{place} {advice}")
        self.callbacks, self.training = list(callbacks), training

    def call(self, place: str) -> None:
        """Call one method of all."""
        for callback in self.callbacks:
            getattr(callback, place)(self.training)

    def named(self) -> dict[str, Callback]:
        """Return the callbacks by the names of their classes; a further one of a class gets a number."""
        found: dict[str, Callback] = {}
        for callback in self.callbacks:
            name = type(callback).__name__
            same = sum(known.split(" ")[0] == name for known in found)
            found[f"{name} {same + 1}" if same else name] = callback
        return found

    def state_dict(self) -> dict[str, Any]:
        """Return the states of those that have one."""
        states = {name: callback.state_dict() for name, callback in self.named().items()}
        return {name: state for name, state in states.items() if state}

    def load_state_dict(self, states: dict[str, Any]) -> None:
        """Load the states; raise :class:`InputError` if a callback with a state is missing."""
        named = self.named()
        missing = ", ".join(states.keys() - named.keys())
        require(not missing, f"it has the state of the callback {missing}: give it to fit, too")
        for name, state in states.items():
            named[name].load_state_dict(state)
