"""Settings that may be left open, for somebody else's defaults to fill in."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TypeVar

OverridesT = TypeVar("OverridesT", bound="Overrides")


@dataclass(frozen=True)
class Overrides:
    """Settings in which None means the default, such as a network's; parts of them may be such settings, too."""

    def with_defaults(self: OverridesT, defaults: OverridesT) -> OverridesT:
        """Return these settings with every None replaced by the value from ``defaults``."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        for name, value in given.items():
            if isinstance(value, Overrides):
                given[name] = value.with_defaults(getattr(defaults, name))
        return replace(defaults, **{name: value for name, value in given.items() if value is not None})
