"""`taskinfer config`: the options of a run, beside the defaults or another run's."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rlcore.config import to_dict
from rlcore.errors import DataError, UsageError
from rlcore.files import read_json
from rlcore.provenance import near
from taskinfer.analysis.records import flat
from taskinfer.config import LowConfig, ToyConfig
from taskinfer.config_use import ConfigDiffConfig, ConfigShowConfig

DEFAULTS: dict[str, type[ToyConfig | LowConfig]] = {"toy": ToyConfig, "low": LowConfig}  # by stage
PLACE = frozenset({"name", "dir"})  # where a run lies, not what it is


def show_options(cfg: ToyConfig | LowConfig) -> int:
    """Print the options that a command would train with. What is printed is a file for `--config`."""
    print(as_yaml(to_dict(cfg), to_dict(type(cfg)())))
    return 0


def show_run(cfg: ConfigShowConfig) -> int:
    """Print the options of a run."""
    options, defaults = read_run(cfg.run)
    print(as_yaml(options, defaults))
    return 0


def diff_runs(cfg: ConfigDiffConfig) -> int:
    """Print a table (or JSON) of the options that differ; name and folder are left out."""
    options, defaults = read_run(cfg.run)
    other = read_run(cfg.other)[0] if cfg.other else defaults
    if other is None:
        raise UsageError(f"{cfg.run}: the defaults of its stage are not known here; name a second run")
    a, b = flat(options), flat(other)
    found = {key: (a.get(key), b.get(key)) for key in {**a, **b} if key not in PLACE and a.get(key) != b.get(key)}
    if cfg.json:
        print(json.dumps(found))
        return 0
    if not found:
        print("no differences")
    rows = [("option", str(cfg.run), str(cfg.other or "defaults"))]
    rows += [(key, _plain(one), _plain(two)) for key, (one, two) in found.items()]
    width = [max(len(row[i]) for row in rows) for i in range(2)]
    for row in rows if found else []:
        print(f"{row[0]:{width[0]}}  {row[1]:{width[1]}}  {row[2]}")
    return 0


def read_run(folder: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The options in a run's config.json, and the defaults of its stage where they are known.

    Raises: UsageError where there is no run, with similar names; DataError where it is another program's.
    """
    if not (folder / "config.json").is_file():
        raise UsageError(f"there is no run {folder}{near(folder)}")
    saved = read_json(folder / "config.json")
    if not isinstance(saved, dict) or saved.get("program") != "taskinfer" or not isinstance(saved.get("config"), dict):
        raise DataError(f"{folder / 'config.json'} is not the configuration of a taskinfer run")
    environment = read_json(folder / "env.json") if (folder / "env.json").exists() else {}
    cls = DEFAULTS.get(str(environment.get("stage")))
    return saved["config"], to_dict(cls()) if cls else None


def as_yaml(options: Mapping[str, Any], defaults: Mapping[str, Any] | None) -> str:
    """YAML, a line an option; a comment gives the default where it is another."""
    return "\n".join(_lines(options, flat(defaults or {}), "", ""))


def _lines(options: Mapping[str, Any], defaults: Mapping[str, Any], prefix: str, indent: str) -> Iterator[str]:
    for key, value in options.items():
        if isinstance(value, Mapping):
            yield f"{indent}{key}:"
            yield from _lines(value, defaults, f"{prefix}{key}.", indent + "  ")
            continue
        default = defaults.get(prefix + key, value)
        yield f"{indent}{key}: {_plain(value)}" + (f"  # default: {_plain(default)}" if default != value else "")


def _plain(value: Any) -> str:
    """A value in one line of YAML."""
    import yaml

    return str(yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n").strip())
