"""`gasp skills train`: learn skills from demonstrations. The same command goes on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from gasp import data
from gasp.analysis.growth import last_change
from gasp.config_skills import SkillsConfig
from gasp.data import Array, Demos
from gasp.score import data_facts, errors
from gasp.skills import SkillLearner
from gasp.windows import WindowSampler, batches, evenly
from rlcore import device
from rlcore.config import diff
from rlcore.errors import DataError, UsageError
from rlcore.files import read_json
from rlcore.plots import read_metrics
from rlcore.run import Run

VALIDATED = 2_000  # windows of the held-out episodes that a validation looks at, at most


def train(cfg: SkillsConfig) -> Path:
    """Train as `cfg` says; returns the run's folder. A step is an update.

    Errors: UsageError without data; DataError where they are damaged; see rlcore.run.Run.open, and NumericalError.
    """
    if cfg.data is None:
        raise UsageError("data: which demonstrations? --data FILE; `gasp data collect` makes some")
    device.set_threads(cfg.threads)
    where, horizon = device.resolve(cfg.device), cfg.model.horizon
    demos = data.load(cfg.data)
    known, held_out = demos.split(cfg.val_share, cfg.seed)
    facts = data_facts(demos, horizon)
    fitted = evenly(known, horizon, cfg.mixture.windows)
    validated = evenly(held_out, horizon, VALIDATED)
    check_same_data(cfg, facts)
    with Run.open(cfg, program="gasp", total=cfg.total, facts={"stage": "skills", **facts}) as run:
        learner = SkillLearner(cfg, facts, len(fitted), run.seed("skills"), where)
        learner.model.normalize_by(torch.from_numpy(known.obs).to(where))
        sampler = WindowSampler(known, horizon, cfg.batch, run.numpy_generator("windows"), where)
        parts = {"agent": learner, "sampler": sampler}
        step = run.restore(**parts)
        run.console.say(introduce(cfg, facts, len(sampler.starts), len(held_out.starts(horizon))))
        if run.unscored:
            run.score(step, partial(validate, run, step, learner, held_out, validated), **parts)
        while run.going(step):
            step += 1
            learn(run, step, learner, sampler)
            if step % cfg.updates_per_epoch == 0 and learner.fits_after(epoch := step // cfg.updates_per_epoch - 1):
                with run.phase("fit"):
                    fit(run, step, epoch, learner, known, fitted)
            if run.due("log", step):
                run.train_row(step, step)
            if run.due("eval", step) or step == cfg.total:
                with run.phase("validate"):
                    run.score(step, partial(validate, run, step, learner, held_out, validated), **parts)
            if run.due("save", step):
                with run.phase("save"):
                    run.save(step, **parts)
        folder = run.finish(step, **parts)
        run.console.say(summary(folder))
    return folder


def check_same_data(cfg: SkillsConfig, facts: Mapping[str, Any]) -> None:
    """DataError where a run of that name learnt from other demonstrations; its checkpoints stay untouched."""
    path = cfg.dir / (cfg.name or "") / "env.json"
    if cfg.name is None or cfg.overwrite or not path.is_file():
        return
    before = read_json(path)
    if isinstance(before, dict) and before.get("stage") == "skills":
        changes = diff({name: before.get(name) for name in facts}, facts)
        if changes:
            said = f"{cfg.data} is not what {path.parent} learnt from ({'; '.join(changes)})"
            raise DataError(f"{said}: use another --name, or --overwrite")


def introduce(cfg: SkillsConfig, facts: dict[str, Any], known: int, held_out: int) -> str:
    """What is learnt from what, and with which of the two published losses of the skill prior."""
    prior = "a growing mixture (GASP)" if cfg.latent_prior == "dpmm" else "N(0, I) (SPiRL)"
    loss = {"nll": "-log p(z|s)", "kl": "KL(q || p)"}[cfg.prior_loss]
    windows = f"{known:,} windows of {facts['horizon']} steps from {facts['task']}, {held_out:,} held out"
    return f"skills from {windows}; latent prior: {prior}; loss of the skill prior: {loss} ({cfg.prior_loss})"


def learn(run: Run, step: int, learner: SkillLearner, sampler: WindowSampler) -> None:
    """One update. Raises: NumericalError, after keeping the batch, where its loss is not finite."""
    with run.phase("sample"):
        batch = sampler.sample()
    with run.phase("update"):
        parts = learner.update(batch)
    run.meters.add(parts)
    # A GPU is not waited for at every update: there the train row finds it.
    if parts["loss"].device.type == "cpu" and not math.isfinite(float(parts["loss"])):
        run.diverged(step, "loss", {"obs": batch[0], "action": batch[1]})


def fit(run: Run, step: int, epoch: int, learner: SkillLearner, known: Demos, fitted: Array) -> None:
    """Fit the mixture to windows encoded afresh, and add a row to its history."""
    row = learner.fit(batches(known, fitted, learner.cfg.model.horizon, learner.device))
    run.log("mixture", step, {"epoch": epoch, **row})
    moves = ", ".join(f"{row[name]} {name}" for name in ("births", "merges", "deletes") if row[name])
    run.console.say(f"epoch {epoch}: {row['components']} components" + (f" after {moves}" if moves else ""))
    if not row["kept"]:
        run.console.say(f"epoch {epoch}: this fit ended below where it began and was undone; please report it")
    if row["latent_std"] < 0.05:
        run.console.say(f"epoch {epoch}: skills hardly differ (std {row['latent_std']:.3f}); a smaller --beta may help")


def validate(run: Run, step: int, learner: SkillLearner, held_out: Demos, starts: Array) -> float:
    """Errors on held-out episodes; returns minus the reconstruction error, the score of a checkpoint."""
    row = errors(learner.model, learner.prior, held_out, starts)
    run.log("eval", step, {f"val_{name}": value for name, value in row.items()})
    run.console.say(
        f"update {step:,}: error {row['mse']:.4f} on held-out windows, {row['share']:.1%} of the actions' variance "
        f"({row['prior_share']:.0%} from the first state alone)"
    )
    return -row["mse"]


def summary(folder: Path) -> str:
    """How it ended: error, components, what the fits cost."""
    rows = read_metrics(folder)
    last = [row for row in rows if row["kind"] == "eval"][-1]
    said = f"{folder}: error {last['val_share']:.1%} of the actions' variance"
    fits = [row for row in rows if row["kind"] == "mixture"]
    if fits:
        share = sum(row["fit_cpu_s"] for row in fits) / max(rows[-1]["cpu_s"], 1e-9)
        counts = " ".join(str(row["components"]) for row in fits)
        moved = f" (the last fit changed their number by {last_change(fits)})" if len(fits) > 1 else ""
        said += f"; components {counts}{moved}; fits took {share:.1%} of the training's CPU time"
    return said
