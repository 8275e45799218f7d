"""`collective embed`: draw the codes of held-out windows by task, and measure how well they tell tasks apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from collective import data
from collective.analysis import embedding, telling
from collective.config_encoder import EmbedConfig
from collective.encoder import Encoder, find
from rlcore import plots, seeding
from rlcore.errors import DataError, UsageError
from rlcore.files import explained, read_json, write_json


def embed(cfg: EmbedConfig) -> int:
    """Write a figure and, beside it, its numbers as .json.

    Errors: DataError without an encoder, where data are missing or lack a split; UsageError where the data are unknown.
    """
    encoder, out = Encoder.load(cfg.encoder), place(cfg)
    recorded = data.load_all(cfg.data or data_of(cfg.encoder))
    known = recorded.of_split("train")
    asked = known if cfg.split == "train" else recorded.of_split("validation")
    told = telling.tell(encoder, known, asked, cfg.windows, seeding.numpy_generator(cfg.seed, "embed"))
    found = findings(cfg, encoder, recorded, told)
    full = told.exam.lengths == told.exam.lengths.max()
    plane = embedding.plane_of(cfg.method, told.codes[full], cfg.seed)
    title = f"{cfg.split} trajectories, {found['accuracy']:.1%} of their windows told by the nearest centroid"
    with explained(out.parent):
        plots.save(embedding.draw(told, plane, recorded.tasks, title), out)
        write_json(out.with_suffix(".json"), found)
    print(json.dumps(found, indent=2) if cfg.json else report(found, out))
    return 0


def findings(cfg: EmbedConfig, encoder: Encoder, recorded: data.Dataset, told: telling.Told) -> dict[str, Any]:
    """Accuracies, silhouette, clusters, and who is taken for whom."""
    full = told.exam.lengths == told.exam.lengths.max()
    first = told.exam.lengths == 1
    tasks, rng = recorded.tasks, seeding.numpy_generator(cfg.seed, "k-means")
    return {
        "encoder": encoder.fingerprint, "data": data.digest_of(recorded), "split": cfg.split, "seed": cfg.seed,
        "tasks": list(tasks), "trained_on": list(encoder.tasks), "windows": len(told.codes),
        **telling.scores(told), "clusters_accuracy": telling.unnamed(told, len(tasks), rng),
        "by_task": shares(telling.by_task(told, full), tasks),
        "by_task_one_state": shares(telling.by_task(told, first), tasks),
        "confused": confused(telling.confusion(told, full, len(tasks)), tasks),
        "confused_one_state": confused(telling.confusion(told, first, len(tasks)), tasks),
    }  # fmt: skip


def shares(values: Any, tasks: tuple[str, ...]) -> dict[str, float]:
    """By name, of the tasks that were asked."""
    return {task: round(float(value), 4) for task, value in zip(tasks, values) if np.isfinite(value)}


def confused(table: Any, tasks: tuple[str, ...]) -> list[list[Any]]:
    """[task, taken for, share] for every pair that a tenth of the windows or more are confused in, worst first."""
    pairs = [(float(table[i, j]), i, j) for i, j in zip(*np.nonzero(table >= 0.1)) if i != j]
    return [[tasks[i], tasks[j], round(share, 4)] for share, i, j in sorted(pairs, reverse=True)]


def report(found: dict[str, Any], out: Path) -> str:
    """What is printed."""
    lines = [
        f"{found['windows']:,} windows of {len(found['tasks'])} tasks ({found['split']} trajectories)",
        f"told by the nearest centroid: {found['accuracy']:.1%}; silhouette of full windows {found['silhouette']:.2f}; "
        f"clusters without labels {found['clusters_accuracy']:.1%}",
    ]
    named = {key: value for key, value in found.items() if key.startswith("accuracy_")}
    lines += [
        f"  {key.removeprefix('accuracy_').replace('_', ' to ')} states: {value:.1%}" for key, value in named.items()
    ]
    lines += [f"  {a} taken for {b}: {share:.0%} of full windows" for a, b, share in found["confused"]]
    return "\n".join([*lines, str(out)])


def place(cfg: EmbedConfig) -> Path:
    """Where the figure goes."""
    if cfg.out is not None:
        if cfg.out.suffix not in (".png", ".svg", ".pdf"):
            raise UsageError(f"out: expected a name that ends in .png, .svg or .pdf, got {cfg.out}")
        return cfg.out
    return run_of(cfg.encoder) / "plots" / f"embedding_{cfg.method}_{cfg.split}.png"


def run_of(path: Path) -> Path:
    """The run's folder of a run or of one of its checkpoints."""
    return path if path.is_dir() else find(path).resolve().parent.parent


def data_of(path: Path) -> tuple[Path, ...]:
    """The data that the encoder's run learnt from. UsageError where its folder does not say."""
    try:
        record = read_json(run_of(path) / "config.json")
    except DataError:
        raise UsageError(f"data: {path} is in no run that says what it learnt from: give --data FOLDER") from None
    return tuple(Path(folder) for folder in record["config"]["data"])
