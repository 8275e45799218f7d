"""`collective config`: the options of a command under a preset, or of a run as it was started."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from collective.config_use import ShowConfig
from rlcore.config import from_dict, nearest, to_dict
from rlcore.errors import UsageError
from rlcore.files import read_json

CONFIGS = {  # of the commands that have presets
    "pipeline": "config_pipeline:PipelineConfig", "record": "config_data:RecordConfig",
    "train-encoder": "config_encoder:EncoderConfig", "distill": "config_distill:DistillConfig",
    "train-worker": "config_worker:WorkerConfig", "online-distill": "config_worker:OnlineConfig",
    "train-student": "config_student:StudentConfig", "finetune": "config_student:FinetuneConfig",
}  # fmt: skip
STAND_INS: dict[str, Any] = {"data": ["."], "task": "toy-reach", "teacher": "none"}  # for what must be given


def show(cfg: ShowConfig) -> int:
    """Print them. UsageError for what is neither a command nor a run."""
    options = (
        of_run(Path(cfg.what)) if Path(cfg.what, "config.json").is_file() else of_command(cfg.what, cfg.with_preset)
    )
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
    verb = name.replace("_", "-")
    if verb not in CONFIGS:
        raise UsageError(f"{name!r} is neither a run's folder nor a training command{nearest(verb, CONFIGS)}")
    cls = resolve_name(f"collective.{CONFIGS[verb]}")
    presets: dict[str, Any] = getattr(cls, "PRESETS", {})
    if preset not in {*presets, "none"}:
        raise UsageError(f"{verb} has no preset {preset!r}{nearest(preset, presets)} (known: {', '.join(presets)})")
    needed = {f.name: "(needed)" for f in missing(cls)}
    stand_in = {key: STAND_INS.get(key, ".") for key in needed}
    made = to_dict(from_dict(cls, {**presets.get(preset, {}), **stand_in}, f"preset {preset}"))
    return {**made, **needed}


def missing(cls: Any) -> list[Any]:
    """Fields without a default."""
    absent = dataclasses.MISSING
    return [f for f in dataclasses.fields(cls) if f.default is absent and f.default_factory is absent]
