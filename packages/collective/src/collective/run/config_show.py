"""`collective config`: the options of a command under a preset, or of a run as it was started."""

from __future__ import annotations

import json
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, get_type_hints

from collective.config_use import ShowConfig
from rlcore.config import from_dict, nearest, to_dict
from rlcore.errors import UsageError
from rlcore.files import read_json


def show(cfg: ShowConfig) -> int:
    """Print them. UsageError for what is neither a command nor a run."""
    options = of_run(Path(cfg.what)) if Path(cfg.what, "config.json").is_file() else of_command(cfg.what, cfg.preset)
    if cfg.json:
        print(json.dumps(options, indent=2))
    else:
        import yaml

        print(yaml.safe_dump(options, sort_keys=False, allow_unicode=True), end="")
    return 0


def of_run(folder: Path) -> dict[str, Any]:
    """What a run was started with."""
    options = read_json(folder / "config.json").get("config", {})
    return dict(options)


def of_command(name: str, preset: str) -> dict[str, Any]:
    """The defaults of a command, with a preset over them. What must be given is left out."""
    from collective.cli import VERBS

    verb = name.replace("_", "-")
    if verb not in VERBS:
        raise UsageError(f"{name!r} is neither a run's folder nor a command{nearest(verb, VERBS)}")
    cls = resolve_name(VERBS[verb][1])
    presets: dict[str, Any] = getattr(cls, "PRESETS", {})
    if preset not in {*presets, "none"}:
        raise UsageError(f"{verb} has no preset {preset!r}{nearest(preset, presets)} (known: {', '.join(presets)})")
    needed = {key: "(needed)" for key in get_type_hints(cls) if key in {f.name for f in missing(cls)}}
    stand_in = {key: ["."] if "tuple" in str(get_type_hints(cls)[key]) else "." for key in needed}
    made = to_dict(from_dict(cls, {**presets.get(preset, {}), **stand_in}, f"preset {preset}"))
    return {**made, **needed}


def missing(cls: Any) -> list[Any]:
    """Fields without a default."""
    import dataclasses

    absent = dataclasses.MISSING
    return [f for f in dataclasses.fields(cls) if f.default is absent and f.default_factory is absent]
