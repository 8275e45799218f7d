"""`collective pipeline`: from scripted experts to one evaluated policy, stage by stage; the same command goes on."""

from __future__ import annotations

import dataclasses
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from collective.analysis.report import report
from collective.config_data import RecordConfig
from collective.config_distill import DistillConfig, EvaluateConfig
from collective.config_encoder import EncoderConfig
from collective.config_pipeline import PipelineConfig
from collective.run import evaluate as evaluation
from collective.run.distill import distill
from collective.run.record import record
from collective.run.train_encoder import train as train_encoder
from rlcore.config import FREE_ON_RESUME, diff, from_dict, to_dict
from rlcore.errors import Preempted, UsageError
from rlcore.files import explained, locked, read_json, set_aside, write_json

T = TypeVar("T")
SHARED = (  # options that every stage gets
    "seed", "device", "threads", "quiet", "tensorboard", "wandb", "debug", "on_save_error", "keep_checkpoints",
    "keep_every",
)  # fmt: skip


def pipeline(cfg: PipelineConfig) -> Path:
    """Do the stages that are not complete; returns the pipeline's folder.

    Raises: what the stages raise; UsageError where the name was used with other options.
    """
    folder = cfg.dir / cfg.called
    every = stages(cfg, folder)  # a mistake in an option is found before the name is taken
    with explained(folder), preempted(folder):
        if cfg.overwrite and folder.exists():
            set_aside(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            same_options(folder, cfg)
            clocks = Clocks(folder)
            for name, (result, stage) in every.items():
                if result is not None and result.exists():
                    continue
                with clocks.of(name):
                    stage()
            report(folder, clocks.seconds, cfg.arms)
    return folder


@contextmanager
def preempted(folder: Path) -> Iterator[None]:
    """SIGTERM where no run of a stage listens, between them and while scoring: Preempted, and what is whole stays."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Preempted(f"stopped in {folder}; the same command goes on")

    if threading.current_thread() is not threading.main_thread():
        yield  # Python lets the main thread alone handle signals
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def stages(cfg: PipelineConfig, folder: Path) -> dict[str, tuple[Path | None, Callable[[], Any]]]:
    """What is done, in order, each with the file that is there once it is complete."""
    data, encoder = folder / "data", folder / "encoder"
    common = {key: getattr(cfg, key) for key in SHARED}
    recording = stage_config(
        RecordConfig, cfg, {
            "tasks": cfg.chosen, "benchmark": None, "policy": "mixed", "dir": folder, "name": "data",
            **{key: getattr(cfg, key) for key in ("steps", "p_scripted", "noise", "horizon", "workers")}, **common,
        },
    )  # fmt: skip
    encoding = stage_config(
        EncoderConfig, cfg,
        {"data": (data,), "dir": folder, "name": "encoder", "updates": cfg.encoder_updates, **common},
    )  # fmt: skip
    same = ("updates", "critic_updates", "rounds", "round_steps", "arms", "workers")
    distilling = stage_config(
        DistillConfig, cfg, {
            "data": (data,), "encoder": encoder if "cls" in cfg.arms else None, "dir": folder, "name": "collective",
            **{key: getattr(cfg, key) for key in same}, **common,
        },
    )  # fmt: skip
    exams = [exam(cfg, folder, arm) for arm in cfg.arms]
    final = Path("checkpoints/final.pt")
    every: dict[str, tuple[Path | None, Callable[[], Any]]] = {
        "record": (data / final, lambda: record(recording)),
        "train-encoder": (encoder / final, lambda: train_encoder(encoding)),
        "distill": (folder / "collective" / final, lambda: distill(distilling)),
        "evaluate": (None, lambda: score(exams)),
    }
    if "cls" not in cfg.arms:
        del every["train-encoder"]
    return every


def stage_config(cls: type[T], cfg: PipelineConfig, changes: Mapping[str, Any]) -> T:
    """The stage's own preset of that name, with `changes` over it."""
    presets: dict[str, Any] = getattr(cls, "PRESETS", {})
    if cfg.stage_preset not in {*presets, "cpu", "debug"}:
        known = ", ".join(presets)
        raise UsageError(f"stage_preset: {cls.__name__} has none called {cfg.stage_preset!r} (known: {known})")
    preset = dict(presets.get(cfg.stage_preset, {}))
    base = from_dict(cls, {**preset, "data": ["."]} if "data" in changes else preset, f"preset {cfg.stage_preset}")
    return dataclasses.replace(base, **changes)  # type: ignore[type-var]


def exam(cfg: PipelineConfig, folder: Path, arm: str) -> EvaluateConfig:
    """How an arm is scored. The first one's episodes go on to the end, whatever happens before."""
    return EvaluateConfig(
        run=folder / "collective", episodes=cfg.eval_episodes, horizon=cfg.eval_horizon, arms=(arm,),
        label=f"eval_{arm}", device=cfg.device, quiet=cfg.quiet, workers=cfg.workers, seed=cfg.seed,
        stop_after_success=None if arm == cfg.arms[0] else 1,
    )  # fmt: skip


def score(exams: Sequence[EvaluateConfig]) -> None:
    """Score each arm that has no file yet."""
    for options in exams:
        assert options.run is not None
        if not (options.run / f"{options.label}.json").is_file():
            evaluation.write(evaluation.measure(options), options.run, options.label)


def same_options(folder: Path, cfg: PipelineConfig) -> None:
    """UsageError where the pipeline was begun with other options, or may not go on."""
    path, free = folder / "config.json", FREE_ON_RESUME | {"workers"}
    if not path.exists():
        if cfg.resume == "must":
            raise UsageError(f"--resume must: there is no pipeline {folder}")
        write_json(path, {"program": "collective pipeline", "config": to_dict(cfg)})
        return
    if cfg.resume == "never":
        raise UsageError(f"{folder} exists and --resume never was given: use another --name")
    before = read_json(path).get("config", {})
    old, new = ({k: v for k, v in options.items() if k not in free} for options in (before, to_dict(cfg)))
    if changes := diff(old, new):
        raise UsageError(f"{folder} was begun with other options ({'; '.join(changes)}): use another --name")


class Clocks:
    """Seconds that each stage has taken, all sessions together."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "clocks.json"
        self.seconds: dict[str, dict[str, float]] = read_json(self.path) if self.path.exists() else {}

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Count what happens inside, also where it fails. CPU seconds are this process's, less those of workers."""
        wall, cpu = time.monotonic(), time.process_time()
        try:
            yield
        finally:
            before = self.seconds.get(name, {"wall_s": 0.0, "cpu_s": 0.0})
            spent = {"wall_s": time.monotonic() - wall, "cpu_s": time.process_time() - cpu}
            self.seconds[name] = {key: round(before[key] + spent[key], 1) for key in spent}
            write_json(self.path, self.seconds)
