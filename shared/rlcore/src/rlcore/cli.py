"""One command line for every method: a table of verbs, options from dataclasses, one line for each error.

`--a.b v`, `--a.b=v` and `a.b=v` mean the same. Order: defaults, `--preset NAME`, `--config FILE`, options.
tyro, configuration classes and verbs are imported when asked for, so that `--help` is instant.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import re
import select
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pkgutil import resolve_name
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from rlcore.config import RunConfig, from_dict, load_file, nearest, to_dict
from rlcore.errors import EnvironmentProblem, Interrupted, Preempted, QuintetError, QuintetWarning, UsageError

Verbs = Mapping[str, tuple[str, str, str]]  # name -> help, "module:Config class", "module:function"
Presets = Mapping[str, Mapping[str, Any]] | None
Chooser = Callable[[Any], str | None] | None


def dispatch(
    prog: str, verbs: Verbs, argv: Sequence[str], *, version: str, presets: Presets = None, auto_preset: Chooser = None
) -> int:
    """Run the verb that `argv` names; returns the exit code: the verb's own if it returned an int, else 0.

    A verb may have up to three words ("plot training"). Presets are for verbs whose configuration is a RunConfig. Where
    a configuration has PRESETS of its own, these take their place. Without `--preset`, `auto_preset(config)` may name
    the one that suits what was asked for.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", QuintetWarning)
            warnings.showwarning = partial(_show_warning, warnings.showwarning)
            name = next((name for n in (3, 2, 1) if (name := " ".join(argv[:n])) in verbs), None)
            if name is None:
                return _list_verbs(prog, verbs, argv, version)
            prog, (summary, config, function) = f"{prog} {name}", verbs[name]
            cls, options = resolve_name(config), argv[len(name.split()) :]
            own = getattr(cls, "PRESETS", None)
            if own is not None or not issubclass(cls, RunConfig):
                presets, auto_preset = own, None
            cfg = parse(cls, options, prog, summary, presets, auto_preset)
            if not hasattr(cfg, "threads"):  # before torch loads: looking at a run takes no core from what trains
                os.environ.setdefault("OMP_NUM_THREADS", "1")
            result = resolve_name(function)(cfg)  # imported only now, so that --help and errors need not wait for it
            sys.stdout.flush()
            return result if isinstance(result, int) else 0
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except (Exception, KeyboardInterrupt) as error:
        if "--debug" in argv or "debug=true" in argv:
            raise
        code, message = _explain(prog, error)
        if message:
            print(f"{prog}: {message}", file=sys.stderr)
        return code


def parse(cls: Any, argv: Sequence[str], prog: str, summary: str, presets: Presets, auto: Chooser = None) -> Any:
    """The configuration that `argv` (without the verb) asks for; `--help` prints and raises SystemExit(0)."""
    import tyro

    options, taken = _rewrite(cls, argv)
    presets = presets or {}
    summary += "\n\n--config FILE reads options from .yaml, .toml or .json. key=value works like --key value."
    if presets:
        summary += f"\n\n--preset NAME starts from one of: {', '.join(presets)}; none starts from the defaults."

    def attempt(preset: str) -> Any:
        if preset not in {*presets, "none"}:
            known = ", ".join(presets) or "none for this command"
            raise UsageError(f"unknown preset {preset!r}{nearest(preset, presets)} (known: {known})")
        layers = [(f"preset {preset}", presets.get(preset, {})), *((file, load_file(file)) for file in taken["config"])]
        default, shown = None, io.StringIO()
        for where, data in layers:
            default = from_dict(cls, data, where, default, absent=tyro.MISSING_NONPROP)
        try:
            with contextlib.redirect_stderr(shown):
                made = tyro.cli(cls, args=options, prog=prog, description=summary, default=default)
        except SystemExit as stop:
            if not stop.code:
                raise
            raise UsageError(f"{_first_line(shown.getvalue())} (see `{prog} --help`)") from None
        return from_dict(cls, to_dict(made), "command line")  # tyro lets nan and control characters pass

    if taken["preset"] or auto is None:
        return attempt(taken["preset"][-1] if taken["preset"] else "none")
    errors = []
    for preset in ("none", *presets):  # options that suit a preset may not suit the defaults it replaces
        try:
            config = attempt(preset)
        except UsageError as error:
            errors.append(error)
            continue
        fitting = auto(config) or "none"
        if preset in ("none", fitting):
            return config if fitting == preset else attempt(fitting)
    raise errors[0]


def _rewrite(cls: Any, argv: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """`argv` in the form that tyro reads: `key=value` and `--key=value` by the type of the key.

    Apart from it, the values of `--config` and `--preset`.
    """
    options: list[str] = []
    taken: dict[str, list[str]] = {"config": [], "preset": []}
    words = iter(argv)
    for word in words:
        match = re.fullmatch(r"(?:--)?([A-Za-z_][\w.-]*)=(.*)", word, re.DOTALL)
        key, value = match.groups() if match else (word.removeprefix("--"), "")
        kind = _kind(cls, re.sub(r"(^|\.)no-", r"\1", key))
        if key in taken and key != word:
            if not (value := value or next(words, "")):
                raise UsageError(f"--{key} needs a value")
            taken[key].append(value)
        elif match is None:
            options.append(word)
            if key != word and kind is not bool:
                options += itertools.islice(words, 1)  # its value, which may look like anything
        elif kind is bool and value.lower() in ("true", "false"):
            options.append("--" + (key if value.lower() == "true" else re.sub(r"([^.]+)$", r"no-\1", key)))
        elif get_origin(kind) in (list, tuple):
            options += [f"--{key}", *filter(None, re.split(r"[\s,]+", value.strip("[]() ")))]
        elif kind is None:  # an alias, or a typo, for which tyro finds the nearest name if it stands alone
            options += [f"--{key}", value]
        else:
            none = value.lower() in ("none", "null") and NoneType in get_args(kind)
            options.append(f"--{key}={'None' if none else value}")
    return options, taken


def _kind(cls: Any, key: str) -> Any:
    """The annotated type of the dotted `key` of `cls`, or None when there is no such key."""
    for part in key.replace("-", "_").split("."):
        cls = get_type_hints(cls).get(part) if isinstance(cls, type) else None
    return cls


def _first_line(box: str) -> str:
    """What tyro's error box says, as one line with its first suggestion. Its rules are of "─", or "-" in a C locale."""
    body = "\n".join(line.strip("│ ") for line in re.sub(r"\x1b\[[0-9;]*m", "", box).splitlines()[1:])
    parts = [" ".join(part.split()) for part in re.split(r"(?m)^[─╰╯-]{3,}$", body)]
    said = next(filter(None, parts), "these options cannot be read")
    meant = re.search(r"Perhaps you meant: (--[\w.-]+)", " ".join(parts))
    return (said if len(said) < 300 else said[:297] + "...") + (f"; did you mean {meant[1]}?" if meant else "")


def _list_verbs(prog: str, verbs: Verbs, argv: Sequence[str], version: str) -> int:
    """`prog`, `prog --help`, `prog --version`, the verbs of a group such as `prog plot`; otherwise it is an error."""
    if list(argv) == ["--version"]:
        print(f"{prog} {version}")
        return 0
    asked = "--help" in argv or "-h" in argv
    group = [word for word in argv[:1] if not word.startswith("-")]
    shown = {name: verb for name, verb in verbs.items() if name.split()[: len(group)] == group}
    if not shown or (len(argv) > len(group) and not asked):
        wrong = " ".join(argv[: 2 if shown and group else 1])
        raise UsageError(f"unknown command {wrong!r}{nearest(wrong, verbs)} (see `{prog} --help`)")
    width = max(map(len, shown))
    lines = [f"usage: {' '.join([prog, *group])} COMMAND [options]", ""]
    lines += [f"  {name:{width}}  {summary}" for name, (summary, *_) in shown.items()]
    lines += ["", f"`{prog} COMMAND --help` lists the options of a command."]
    print(*lines, sep="\n", file=sys.stdout if asked else sys.stderr)
    return 0 if asked else UsageError.exit_code


def _explain(prog: str, error: BaseException) -> tuple[int, str]:
    """Exit code and the line to print, which is empty when there is nobody left to read it."""
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(str(error).split()))
    if isinstance(error, KeyboardInterrupt):
        return Interrupted.exit_code, "interrupted"
    if isinstance(error, QuintetError):
        return error.exit_code, f"{'stopped' if isinstance(error, Preempted | Interrupted) else 'error'}: {text}"
    if isinstance(error, BrokenPipeError) and _reader_left():
        return 141, ""  # what a shell says of a command whose `| head` has left
    if isinstance(error, OSError | ImportError):
        return EnvironmentProblem.exit_code, f"error: {text} (`{prog.split()[0]} doctor` looks for what is missing)"
    return 1, f"internal error: {type(error).__name__}: {text} (run with --debug for the traceback)"


def _reader_left() -> bool:
    """Whether it is standard output that broke. Then it is led to nowhere, or Python complains at exit."""
    poll = select.poll()
    poll.register(1, 0)
    if gone := any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0)):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return gone


def _show_warning(ordinary: Callable[..., None], message: object, category: type[Warning], *where: Any) -> None:
    """A QuintetWarning as one line; other warnings as ever."""
    if issubclass(category, QuintetWarning):
        print(f"warning: {message}", file=sys.stderr)
    else:
        ordinary(message, category, *where)
