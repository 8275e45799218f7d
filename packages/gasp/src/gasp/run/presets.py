"""`gasp presets`: which there are, and what they set."""

from __future__ import annotations

import json
from pkgutil import resolve_name
from typing import Any

from gasp.config import PresetsConfig
from rlcore.config import nearest
from rlcore.errors import UsageError

VERBS = {"skills train": "gasp.config_skills:SkillsConfig", "rl train": "gasp.config_rl:RLConfig"}


def presets(cfg: PresetsConfig) -> int:
    """Print names with the commands that take them, or one preset's options for each command."""
    tables: dict[str, dict[str, dict[str, Any]]] = {verb: resolve_name(cls).PRESETS for verb, cls in VERBS.items()}
    names = list(dict.fromkeys(name for table in tables.values() for name in table))
    if cfg.name is None:
        taken = {name: [verb for verb in VERBS if name in tables[verb]] for name in names}
        width = max(map(len, names))
        lines = [f"{name:{width}}  {', '.join(verbs)}" for name, verbs in taken.items()]
        print(json.dumps(taken) if cfg.json else "\n".join(lines))
        return 0
    if cfg.name not in names:
        raise UsageError(f"no preset {cfg.name!r}{nearest(cfg.name, names)} (known: {', '.join(names)})")
    found = {verb: table[cfg.name] for verb, table in tables.items() if cfg.name in table}
    print(json.dumps(found) if cfg.json else "\n".join(_as_yaml(verb, cfg.name, found[verb]) for verb in found))
    return 0


def _as_yaml(verb: str, name: str, options: dict[str, Any]) -> str:
    """What a preset sets, under a comment."""
    import yaml

    plain = json.loads(json.dumps(options, default=str))
    return f"# gasp {verb} --preset {name}\n{yaml.safe_dump(plain, sort_keys=False)}"
