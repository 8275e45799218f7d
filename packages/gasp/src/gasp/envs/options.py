"""Environment names with options in them: `medium?goal=3,4&episode_length=300`, for workers take names only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode

from rlcore.config import nearest
from rlcore.errors import UsageError


@dataclass(frozen=True)
class Options:
    """A name and its options, complete."""

    name: str
    values: dict[str, Any]

    @classmethod
    def of(cls, name: str, given: Mapping[str, Any], defaults: Mapping[str, Any]) -> Options:
        """Options over their defaults. UsageError for an unknown one, or one of another type."""
        for key, value in given.items():
            if key not in defaults:
                known = f"known: {', '.join(defaults)}"
                raise UsageError(f"unknown environment option {key!r}{nearest(key, defaults)} ({known})")
            if type(value) is not type(defaults[key]):
                raise UsageError(f"environment option {key}: expected {type(defaults[key]).__name__}, got {value!r}")
        return cls(name, {**defaults, **given})

    @classmethod
    def read(cls, text: str, defaults: Mapping[str, Any]) -> Options:
        """Back from what `str` gave. UsageError as `of`."""
        name, _, query = text.partition("?")
        given: dict[str, Any] = {}
        for key, value in parse_qsl(query):
            kind = type(defaults.get(key, ""))
            try:
                given[key] = kind(value) if kind is not bool else value == "True"
            except ValueError:
                raise UsageError(f"environment option {key}: expected {kind.__name__}, got {value!r}") from None
        return cls.of(name, given, defaults)

    def __str__(self) -> str:
        return f"{self.name}?{urlencode(self.values)}"
