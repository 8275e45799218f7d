"""Copies of classes whose functions see other globals: a way to speed up a package without changing it."""

from __future__ import annotations

from collections.abc import Mapping
from types import FunctionType
from typing import Any


def rebound(
    cls: type, stand_ins: Mapping[str, Any], skip: tuple[str, ...] = ()
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(functions, globals): those in the body of `cls`, copied, and what the copies look names up in.

    Where a function would look up a name in `stand_ins`, its copy finds that. Static methods, class methods and
    properties stay such. A decorated function is unwrapped (its decorator keeps it in a cell `func`; Meta-World's only
    check). The caller should put the copied class into the globals under its old name, for its functions may use it.
    """
    functions: dict[str, Any] = {}
    names: dict[str, Any] = {}

    def copy(function: FunctionType) -> FunctionType:
        code, cells = function.__code__, function.__closure__
        if "func" in code.co_freevars and cells is not None:
            return copy(cells[code.co_freevars.index("func")].cell_contents)
        if not names:
            known = function.__globals__
            names.update({**known, **{name: value for name, value in stand_ins.items() if name in known}})
        made = FunctionType(code, names, function.__name__, function.__defaults__, cells)
        made.__kwdefaults__ = function.__kwdefaults__
        return made

    for name, value in vars(cls).items():
        if name in skip:
            continue
        if isinstance(value, FunctionType):
            functions[name] = copy(value)
        elif isinstance(value, staticmethod | classmethod):
            functions[name] = type(value)(copy(value.__func__))  # type: ignore[arg-type]
        elif isinstance(value, property) and isinstance(value.fget, FunctionType):
            functions[name] = property(copy(value.fget))
    return functions, names
