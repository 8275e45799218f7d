"""`collective train-encoder`: learn task codes from recorded behaviour. The same command goes on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from collective import data, losses
from collective.analysis import embedding, telling
from collective.config_encoder import EncoderConfig
from collective.data import Dataset
from collective.encoder import Encoder, EncoderLearner
from collective.prefixes import Batch, WindowSampler
from collective.windows import compress
from rlcore import device, plots, seeding
from rlcore.config import diff, to_dict
from rlcore.errors import DataError, UsageError
from rlcore.files import explained, read_json, write_json
from rlcore.plots import read_metrics
from rlcore.run import Run

BATCHES = 8  # of held-out windows, whose losses a validation looks at
NEEDED = 2  # trajectories of a task: one to learn from, one to be examined on


def train(cfg: EncoderConfig) -> Path:
    """Train as `cfg` says; returns the run's folder. A step is an update.

    Errors: UsageError without data; DataError where they are damaged or too few; see rlcore.run.Run.open, and
    NumericalError.
    """
    if not cfg.data:
        raise UsageError("data: which behaviour? --data FOLDER; `collective record` makes some")
    device.set_threads(cfg.threads)
    where = device.resolve(cfg.device)
    recorded = data.load_all(cfg.data)
    check_enough(recorded)
    known, held_out = recorded.of_split("train"), recorded.of_split("validation")
    facts = facts_of(recorded)
    check_same_data(cfg, facts)
    with Run.open(cfg, program="collective", total=cfg.updates, facts={"stage": "encoder", **facts}) as run:
        learner = EncoderLearner(cfg, facts, compress(known.obs), run.seed("encoder"), where)
        sampler = sampler_of(cfg, known, run.numpy_generator("windows"), where)
        judge = Judge(cfg, known, held_out, where)
        parts = {"agent": learner, "sampler": sampler}
        step = run.restore(**parts)
        run.console.say(introduce(cfg, known, held_out))
        if run.unscored:
            run.score(step, partial(validate, run, step, learner, judge), **parts)
        while run.going(step):
            step += 1
            learn(run, step, learner, sampler)
            if run.due("log", step):
                run.train_row(step, step)
            if run.due("eval", step) or step == cfg.updates:
                with run.phase("validate"):
                    run.score(step, partial(validate, run, step, learner, judge), **parts)
            if run.due("save", step):
                with run.phase("save"):
                    run.save(step, **parts)
        if step >= cfg.updates and not run.unscored:
            # Before the final checkpoint, which tells others that all of this is there.
            write_card(run.folder, cfg, recorded, known, held_out)
        folder = run.finish(step, **parts)
        run.console.say(summary(folder))
    return folder


# --- before a run -----------------------------------------------------------------------------------------------------
def check_enough(recorded: Dataset) -> None:
    """DataError for a task without a trajectory to learn from, or without one to be examined on."""
    for number, task in enumerate(recorded.tasks):
        split = recorded.split[recorded.task_id == number]
        for name, value in (("train", 0), ("validation", 1)):
            if not (split == value).any():
                raise DataError(
                    f"{recorded.where}: {task} has {len(split)} trajectories and none in the {name} split: record more"
                    " (every fifth of a task is held out), or `collective dataset split`"
                )


def facts_of(recorded: Dataset) -> dict[str, Any]:
    """What a checkpoint must agree on, for env.json."""
    return {
        "tasks": list(recorded.tasks), "digest": data.digest_of(recorded), "trajectories": recorded.trajectories,
        "transitions": len(recorded.obs), "state_dim": compress(recorded.obs[:1]).shape[1],
        "action_dim": recorded.action.shape[1], "reward_version": recorded.meta.get("reward_version"),
    }  # fmt: skip


def check_same_data(cfg: EncoderConfig, facts: Mapping[str, Any]) -> None:
    """DataError where a run of that name learnt from other data; its checkpoints stay untouched."""
    path = cfg.dir / (cfg.name or "") / "env.json"
    if cfg.name is None or cfg.overwrite or not path.is_file():
        return
    before = read_json(path)
    if isinstance(before, dict) and before.get("stage") == "encoder":
        changes = diff({name: before.get(name) for name in facts}, facts)
        if changes:
            said = f"these data are not what {path.parent} learnt from ({'; '.join(changes)})"
            raise DataError(f"{said}: use another --name, or --overwrite")


def sampler_of(cfg: EncoderConfig, part: Dataset, rng: np.random.Generator, where: torch.device) -> WindowSampler:
    """Batches of a part of the data, as the configuration wants them."""
    return WindowSampler(part, cfg.model.length, cfg.batch, cfg.full_share, cfg.start_share, rng, where)


def introduce(cfg: EncoderConfig, known: Dataset, held_out: Dataset) -> str:
    """What is learnt from what."""
    aim = "by telling tasks apart" if cfg.objective == "classify" else f"by contrast (apart by {cfg.contrast_by})"
    return (
        f"codes of {cfg.model.code_dim} numbers for {len(known.tasks)} tasks, {aim}, read by a {cfg.encoder}: "
        f"{known.trajectories:,} trajectories with {len(known.obs):,} steps, {held_out.trajectories:,} held out"
    )


# --- a run ------------------------------------------------------------------------------------------------------------
def learn(run: Run, step: int, learner: EncoderLearner, sampler: WindowSampler) -> None:
    """One update. Raises: NumericalError, after keeping the batch, where its loss is not finite."""
    with run.phase("sample"):
        batch = sampler.sample()
    with run.phase("update"):
        parts = learner.update(batch)
    run.meters.add(parts)
    # A GPU is not waited for at every update: there the train row finds it.
    if parts["loss"].device.type == "cpu" and not math.isfinite(float(parts["loss"])):
        windows = dict(zip(("states", "actions", "rewards", "lengths"), batch.windows))
        run.diverged(step, "loss", {**windows, "task": batch.task})


class Judge:
    """Examines an encoder on held-out trajectories: always on the same windows, with the same things hidden."""

    def __init__(self, cfg: EncoderConfig, known: Dataset, held_out: Dataset, where: torch.device) -> None:
        self.cfg, self.known, self.held_out, self.where = cfg, known, held_out, where
        sampler = sampler_of(cfg, held_out, self.generator("validation windows"), where)
        self.batches = [sampler.sample() for _ in range(BATCHES)]

    def generator(self, name: str) -> np.random.Generator:
        """A stream of the run's seed that training never draws from."""
        return seeding.numpy_generator(self.cfg.seed, name)

    @torch.no_grad()
    def losses(self, learner: EncoderLearner) -> dict[str, float]:
        """Means over held-out batches: each part of the loss; the last state where it is hidden, and the one before it.

        The squared error of the last state is in variances, at the output of the last state's own token; `last_before`
        is that of taking the state before for it, which is not hidden.
        """
        rng = seeding.torch_generator(self.cfg.seed, "validation masks", device=str(self.where))
        rows = [{**learner.loss(batch, rng, learning=False)[1], **last_state(learner, batch)} for batch in self.batches]
        return {name: float(torch.stack([row[name] for row in rows]).mean()) for name in rows[0]}

    def tell(self, encoder: Encoder) -> telling.Told:
        """Codes of held-out windows, with centroids of training trajectories."""
        return telling.tell(encoder, self.known, self.held_out, self.cfg.validated, self.generator("validation exam"))


def last_state(learner: EncoderLearner, batch: Batch) -> dict[str, Tensor]:
    """How well the newest state is told when it is hidden, of windows with at least two states; each ()."""
    windows = learner.model.normalized(batch.windows)
    asked = windows.lengths > 1
    hidden = windows.states.clone()
    hidden[:, -1] = 0.0
    told = learner.model(windows._replace(states=hidden)).states[:, -1]  # of the last state's token: CLS comes after it
    last, before = windows.states[:, -1], windows.states[:, -2]
    return {"last_state": losses.masked_mse(told, last, asked), "last_before": losses.masked_mse(before, last, asked)}


def validate(run: Run, step: int, learner: EncoderLearner, judge: Judge) -> float:
    """Losses and accuracies on held-out trajectories; returns the score of a checkpoint, higher is better.

    That is minus the contrast (or cross-entropy) of held-out windows: unlike accuracies it still moves near 100 %.
    """
    row = {**judge.losses(learner), **telling.scores(judge.tell(learner.encoder()))}
    run.log("eval", step, {f"val_{name}": value for name, value in row.items()})
    aim = next(name for name in ("contrast", "cross_entropy") if name in row)
    run.console.say(
        f"update {step:,}: {row['accuracy']:.1%} of held-out windows told by the nearest centroid "
        f"({row['accuracy_1']:.0%} of those with one state), error {row['reconstruction']:.3f}, "
        f"{aim.replace('_', ' ')} {row[aim]:.3f}"
    )
    return -row[aim]


# --- after a run ------------------------------------------------------------------------------------------------------
def write_card(folder: Path, cfg: EncoderConfig, recorded: Dataset, known: Dataset, held_out: Dataset) -> None:
    """card.json and plots/embedding.png of the best checkpoint: the one that `Encoder.load` takes."""
    encoder = Encoder.load(folder)
    told = Judge(cfg, known, held_out, torch.device("cpu")).tell(encoder)
    rows = [row for row in read_metrics(folder) if row["kind"] == "eval"]
    aim = "val_contrast" if "val_contrast" in rows[-1] else "val_cross_entropy"
    best = max(rows, key=lambda row: (-row[aim], row["step"]))
    card = {
        "what": "encoder", "fingerprint": encoder.fingerprint, "step": best["step"], "tasks": list(encoder.tasks),
        "arms": sorted({int(arm) for arm in recorded.arm_id}), "code_dim": encoder.code_dim, "length": encoder.length,
        "data": {"folders": [str(path) for path in cfg.data], **facts_of(recorded),
                 "training": known.trajectories, "validation": held_out.trajectories},
        "validation": {k.removeprefix("val_"): v for k, v in best.items() if k.startswith("val_")},
        "config": to_dict(cfg),
    }  # fmt: skip
    with explained(folder):
        write_json(folder / "card.json", card)
        full = told.exam.lengths == told.exam.lengths.max()
        plane = embedding.pca(told.codes[full].astype(np.float64))
        title = (
            f"{folder.name}: held-out trajectories, {card['validation']['accuracy']:.1%} told by the nearest centroid"
        )
        plots.save(embedding.draw(told, plane, encoder.tasks, title), folder / "plots" / "embedding.png")


def summary(folder: Path) -> str:
    """How it ended."""
    card = read_json(folder / "card.json")
    row = card["validation"]
    spans = ", ".join(
        f"{name.removeprefix('accuracy_').replace('_', '-')}: {value:.0%}"
        for name, value in row.items()
        if name.startswith("accuracy_")
    )
    return (
        f"{folder}: encoder {card['fingerprint']} of update {card['step']:,} tells {row['accuracy']:.1%} of held-out "
        f"windows (by states in them, {spans}); see plots/embedding.png"
    )
