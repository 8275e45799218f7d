"""Copies of classes whose functions see other globals: a way to speed up a package without changing it."""

from __future__ import annotations

from collections.abc import Mapping
from types import FunctionType
from typing import Any


def rebound(cls: type, stand_ins: Mapping[str, Any], skip: tuple[str, ...] = ()) -> dict[str, Any]:
    """The functions in the body of `cls`, copied: where they look up a name in `stand_ins`, they find that.

    Static methods, class methods and properties stay such. A decorated function is unwrapped where the decorator only
    checks (its inner function keeps the original in a cell `func`). The class's own name is to be set by the caller in
    the returned "globals", for its functions may use it.
    """
    found: dict[str, Any] = {}
    fresh: dict[str, Any] = {}

    def copy(function: FunctionType) -> FunctionType:
        if "func" in function.__code__.co_freevars:
            assert function.__closure__ is not None
            return copy(function.__closure__[function.__code__.co_freevars.index("func")].cell_contents)
        if not fresh:
            known = function.__globals__
            fresh.update({**known, **{name: value for name, value in stand_ins.items() if name in known}})
        made = FunctionType(
            function.__code__, fresh, function.__name__, function.__defaults__, function.__closure__
        )  # fmt: skip
        made.__kwdefaults__ = function.__kwdefaults__
        return made

    for name, value in vars(cls).items():
        if name in skip:
            continue
        if isinstance(value, FunctionType):
            found[name] = copy(value)
        elif isinstance(value, staticmethod | classmethod):
            found[name] = type(value)(copy(value.__func__))  # type: ignore[arg-type]
        elif isinstance(value, property) and isinstance(value.fget, FunctionType):
            found[name] = property(copy(value.fget))
    return {"functions": found, "globals": fresh}
