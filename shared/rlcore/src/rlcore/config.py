"""Configuration: frozen dataclasses, strict dictionaries, small .yaml, .toml and .json files. Loads no torch.

What a user can get wrong is a UsageError of one line; `where` in it is a file, a preset or "command line".
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import json
import math
import re
import reprlib
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from rlcore.errors import UsageError

T = TypeVar("T")
_KINDS: dict[Any, str] = {float: "a finite number", int: "a whole number", bool: "true or false", str: "printable text"}
_KINDS |= {Path: "a path", dict: "keys with values", list: "a list", tuple: "a list"}

# May differ when a run is continued: they change what is kept or shown, not what is learnt.
FREE_ON_RESUME: frozenset[str] = frozenset({
    "name", "dir", "device", "threads", "resume", "overwrite", "log_every", "keep_checkpoints", "keep_every",
    "on_save_error", "wandb", "tensorboard", "quiet", "debug",
})  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What every training command has."""

    # These comments are the --help texts: one line each, or tyro loses them.
    name: str | None = None  # Name of the run and its folder; None draws a fresh adjective-noun pair.
    dir: Path = Path("experiments")  # Folder that holds the runs.
    seed: int = 0  # Decides every random draw of the run.
    device: str = "auto"  # auto, cpu, cuda or cuda:0; auto takes a GPU if there is one.
    threads: int = 1  # CPU threads; 1 repeats bit for bit and is fastest for small nets.
    resume: Literal["auto", "never", "must"] = "auto"  # Continue a run of that name: if there is one, never, or fail.
    overwrite: bool = False  # Replace an existing run of that name.
    log_every: int = 1_000  # Env steps between training rows in metrics.jsonl.
    eval_every: int = 10_000  # Env steps between evaluations.
    save_every: int = 10_000  # Env steps between checkpoints.
    keep_checkpoints: int = 2  # Newest checkpoints to keep; the best one always stays.
    keep_every: int | None = None  # Keep the checkpoints at multiples of this many env steps, too.
    on_save_error: Literal["stop", "continue"] = "stop"  # When a checkpoint cannot be written: stop, or warn and go on.
    wandb: Literal["off", "offline", "online"] = "off"  # Mirror metrics to Weights & Biases (extra: wandb).
    tensorboard: bool = False  # Mirror metrics to TensorBoard (extra: tb).
    quiet: bool = False  # Show no progress.
    debug: bool = False  # Show full tracebacks.

    def __post_init__(self) -> None:
        if self.name is not None and not re.fullmatch(r"[A-Za-z0-9][\w.+=,@-]{0,127}", self.name, re.ASCII):
            raise UsageError(f"name: {reprlib.repr(self.name)} is no folder name (<= 128 letters, digits and ._-+=,@)")
        if not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,3})?", self.device):
            raise UsageError(f"device: expected auto, cpu, cuda or cuda:0, got {reprlib.repr(self.device)}")
        limits = {"seed": (0, 2**63), "threads": (1, 1_025)}
        for key in ("seed", "threads", "log_every", "eval_every", "save_every", "keep_checkpoints", "keep_every"):
            low, high = limits.get(key, (1, 2**63))
            if (value := getattr(self, key)) is not None and not low <= value < high:
                raise UsageError(f"{key}: must be in {low} .. {high - 1}, got {value}")


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean X?`, or nothing when no known word is like it."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def to_dict(config: Any) -> dict[str, Any]:
    """A dataclass as JSON would give it back: paths as text, tuples as lists."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config), default=str))
    return plain


def from_dict(cls: type[T], data: Any, where: str, base: T | None = None, absent: Any = dataclasses.MISSING) -> T:
    """A checked `cls` from plain types; keys may be written with dashes.

    What `data` leaves out comes from `base`, else from the defaults, else it is `absent` (or an error).
    """
    if not isinstance(data, Mapping):
        raise UsageError(f"{where}: expected keys with values, got {reprlib.repr(data)}")
    hints, made = get_type_hints(cls), {}
    given = {str(key).replace("-", "_"): value for key, value in data.items()}
    for f in dataclasses.fields(cls):  # type: ignore[arg-type]
        default = f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
        default = absent if default is dataclasses.MISSING else default
        made[f.name] = default if base is None else getattr(base, f.name)
        if f.name in given:
            made[f.name] = _convert(hints[f.name], given.pop(f.name), f"{where}: {f.name}", made[f.name])
        elif made[f.name] is dataclasses.MISSING:
            raise UsageError(f"{where}: missing key {f.name}")
    for key in given:
        raise UsageError(f"{where}: unknown key {reprlib.repr(key)}{nearest(key, made)}")
    return cls(**made)


def _convert(kind: Any, value: Any, where: str, default: Any = None) -> Any:
    """`value`, as YAML, TOML or JSON give it, as the annotated type `kind`."""
    origin, args = get_origin(kind), get_args(kind)
    if kind is Any or (kind is NoneType and value is None):
        return value
    if dataclasses.is_dataclass(kind):
        return from_dict(kind, value, where, default if isinstance(default, kind) else None)  # type: ignore[arg-type]
    if origin in (Union, UnionType):
        for arm in args:
            with contextlib.suppress(UsageError):
                return _convert(arm, value, where, default)
        return _convert(args[0], value, where, default)  # says what was expected
    if origin is Literal:
        value = "off" if value is False and "off" in args else value  # YAML reads a bare `off` as false
        if any(value == arg and type(value) is type(arg) for arg in args):
            return value
    elif origin in (list, tuple) and isinstance(value, list | tuple):
        kinds = [args[0]] * len(value) if origin is list or args[-1] is Ellipsis else args
        if len(kinds) == len(value):
            return origin(_convert(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, value)))
    elif origin is dict and isinstance(value, Mapping):
        return {_convert(args[0], k, where): _convert(args[1], v, f"{where}.{k}") for k, v in value.items()}
    elif kind is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        with contextlib.suppress(ValueError, OverflowError):  # text, because YAML reads 1e-3 so
            if math.isfinite(number := float(value)):
                return number
    elif (kind in (bool, int) and type(value) is kind) or (kind is Path and isinstance(value, Path)):
        return value
    elif kind in (str, Path) and isinstance(value, str) and value.isprintable():  # no NUL, no half a UTF-8 character
        return kind(value)
    wanted = f"one of {', '.join(map(str, args))}" if origin is Literal else _KINDS.get(origin or kind, str(kind))
    raise UsageError(f"{where}: expected {wanted}, got {reprlib.repr(value)}")


def diff(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Lines such as `sac.eta: 0.05 -> 0.1` for what differs between two plain dictionaries."""
    lines: list[str] = []
    for key in {**a, **b}:
        old, new = a.get(key, "(absent)"), b.get(key, "(absent)")
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            lines += diff(old, new, f"{prefix}{key}.")
        elif old != new:
            lines.append(f"{prefix}{key}: {old} -> {new}")
    return lines


def load_file(path: Path | str) -> dict[str, Any]:
    """The mapping in a .yaml, .yml, .toml or .json file; errors name the file, and the line where one is known."""
    readers: dict[str, Any] = {".yaml": _yaml, ".yml": _yaml, ".toml": tomllib.loads, ".json": json.loads}
    if (read := readers.get(Path(path).suffix.lower())) is None:
        raise UsageError(f"{path}: expected a .yaml, .toml or .json file")
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        data = json.loads(json.dumps(read(text), default=str))  # dates become text, keys too
    except Exception as error:  # parsers raise many types: PyYAML an IndexError for !!int "", say
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200] or repr(error)
        raise UsageError(f"{path}: {reason}") from None
    if not isinstance(data, dict | None):
        raise UsageError(f"{path}: expected keys with values, got {reprlib.repr(data)}")
    return data or {}


def _yaml(text: str) -> Any:
    import yaml

    return yaml.safe_load(text)
