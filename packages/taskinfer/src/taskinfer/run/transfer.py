"""`taskinfer transfer reuse`: the toy's beliefs and policy drive a body, beside three other high levels."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rlcore import device
from rlcore.errors import QuintetWarning, UsageError
from rlcore.files import explained, write_json
from rlcore.run import Run
from taskinfer.analysis.gauge import Gauge, lived_features, log_density, training_features
from taskinfer.config_transfer import TransferConfig
from taskinfer.record import Record, episode_scores
from taskinfer.run.progress import write_progress
from taskinfer.run.saved import training_episodes
from taskinfer.run.stack import Reused, put_together
from taskinfer.run.tables import means, write_table
from taskinfer.transfer import Driver

OUTSIDE = 0.5  # share of transitions outside of training above which a warning is given
SCORES = ("return", "error", "success", "family_accuracy", "group_accuracy", "fell")


def reuse(cfg: TransferConfig) -> Path:
    """Score each high level on the same bodies and tasks; returns the run's folder."""
    device.set_threads(cfg.threads)
    where = str(device.resolve(cfg.device))
    reused = put_together(cfg, where)
    tasks = reused.tasks()
    turn = len(tasks) * cfg.decisions * reused.stack.stride  # body steps of one high level
    facts = {"env": reused.stack.body, "stage": "transfer", "source": sources(reused)}
    with Run.open(
        cfg, program="taskinfer", total=turn * len(cfg.high_level), stride=turn, may_change=frozenset({"json"}),
        facts=facts,
    ) as run:  # fmt: skip
        results = Results(sources(reused))
        step = run.restore(results=results)
        gauge = fit_gauge(reused) if step < run.total else None
        while run.going(step):
            name = cfg.high_level[step // turn]
            record = play(run, reused, name, step)
            if record is None:
                break
            step += turn
            with explained(run.folder):
                record.save(run.folder / "trajectories" / f"{name}.npz")
            found = results.add(name, record, gauge, reused)
            run.log("eval", step, {"high_level": name, **{k: v for k, v in found.items() if isinstance(v, float)}})
            run.console.say(f"{name}: {told(found)}")
            run.save(step, results=results)
        folder = run.finish(step, results=results)
        with explained(folder):
            report = write_results(folder, reused, results)
    print(json.dumps(report) if cfg.json else summary(report, folder))
    return folder


def play(run: Run, reused: Reused, name: str, step: int) -> Record | None:
    """One episode of every body under one high level; None where a signal asked for a stop."""
    cfg, tasks = reused.cfg, reused.tasks()
    driver = Driver(reused.stack, len(tasks), cfg.decisions, run.seed("bodies"))
    every, rows = max(1, cfg.decisions // 10), run.record.length

    def going(t: int) -> bool:
        now = step + t * len(tasks) * reused.stack.stride
        if t and t % every == 0:
            run.train_row(now, 0, high_level=name, alive=float(driver.alive.mean()))
        return run.going(now)

    record = driver.run(reused.high_level(name), lambda t: tasks, going)
    driver.close()
    if record is None:
        run.record.cut(rows)  # the episode is played again, and tells of itself again
    if driver.broken:
        text = f"{name}: the simulation of {driver.broken} of {driver.num} bodies broke down: they count as fallen"
        warnings.warn(text, QuintetWarning, stacklevel=2)
    return record


def sources(reused: Reused) -> dict[str, Any]:
    """What is put together."""
    return {
        part: {"run": str(saved.folder), "checkpoint": saved.checkpoint.name, "step": saved.step}
        for part, saved in (("inference", reused.toy), ("low", reused.low))
    }


def fit_gauge(reused: Reused) -> Gauge | None:
    """The training distribution of the toy run; None, with a warning, where its episodes are gone."""
    episodes = training_episodes(reused.toy)
    if episodes is None:
        text = f"{reused.toy.folder} has no replay any more: how far the body leaves the training data is not measured"
        warnings.warn(text, QuintetWarning, stacklevel=2)
        return None
    inference = reused.stack.inference
    latents = inference.encode(episodes).mean[:, 1:].flatten(0, 1)
    features = training_features(episodes, inference.cfg)
    return Gauge.fit(reused.stack.toy, features, log_density(inference, latents))


class Results:
    """What each high level came to, so far. A part of the run's checkpoints."""

    def __init__(self, source: Mapping[str, Any]) -> None:
        self.source = dict(source)
        self.levels: dict[str, dict[str, Any]] = {}

    def add(self, name: str, record: Record, gauge: Gauge | None, reused: Reused) -> dict[str, Any]:
        """Score one high level's episodes; warn where the encoder was shown what it does not know."""
        episodes = {key: value.astype(float).tolist() for key, value in episode_scores(record).items()}
        found: dict[str, Any] = {key: float(np.mean(episodes[key])) for key in SCORES}
        found["return_std"] = float(np.std(episodes["return"]))
        if gauge is not None:
            inference = reused.stack.inference
            density = log_density(inference, record.belief_mean[:, 1:][record.alive])
            shares = gauge.report(lived_features(record, inference.cfg), density)
            found |= {"outside": shares["outside"], "gauge": shares}
            if name == "toy" and shares["outside"] > OUTSIDE:
                worst = max(shares["by_feature"], key=shares["by_feature"].get)
                text = (
                    f"{shares['outside']:.0%} of what the body showed the encoder lies outside of 99 % of its training "
                    f"data (most of all {worst}): beliefs may be wrong; see gauge in result.json"
                )
                warnings.warn(text, QuintetWarning, stacklevel=2)
        self.levels[name] = {**found, "episodes": episodes}
        return found

    def state_dict(self) -> dict[str, Any]:
        return {"source": self.source, "levels": self.levels}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """UsageError where either run has gone on since."""
        if state["source"] != self.source:
            raise UsageError(f"the runs have changed since this transfer began ({state['source']} -> {self.source}): "
                             "use another --name, or --overwrite")  # fmt: skip
        self.levels = {name: dict(found) for name, found in state["levels"].items()}


def write_results(folder: Path, reused: Reused, results: Results) -> dict[str, Any]:
    """result.json, tasks.csv and progress.csv; returns what is in the first."""
    cfg, single = reused.cfg, reused.tasks().single()
    levels = {name: {k: v for k, v in found.items() if k != "episodes"} for name, found in results.levels.items()}
    rows = []
    for name, found in results.levels.items():
        for i, task in enumerate(single):
            scores = {key: round(found["episodes"][key][i], 6) for key in SCORES}
            place = {"repeat": i // (len(single) // cfg.repeats), "family": task.family.name, "spec": task.spec}
            rows.append({"high_level": name, "task": str(task), **place, **scores})
        levels[name]["tasks"] = by_task(rows, name)
    report = {
        **results.source, "toy": reused.stack.toy, "body": reused.stack.body, "seed": cfg.seed,
        "stride": f"fixed:{reused.stack.stride}",
        "decisions": cfg.decisions, "repeats": cfg.repeats, "reach": cfg.reach, "reward": cfg.reward,
        "high_levels": levels, "margins": margins(levels),
    }  # fmt: skip
    write_json(folder / "result.json", report)
    write_table(folder / "tasks.csv", rows)
    write_progress(folder)
    return report


def by_task(rows: list[dict[str, Any]], name: str) -> dict[str, dict[str, float]]:
    """Means over the bodies of each task."""
    found: dict[str, dict[str, float]] = {}
    for task in dict.fromkeys(row["task"] for row in rows):
        own = [row for row in rows if row["task"] == task and row["high_level"] == name]
        found[task] = means(own, SCORES)
    return found


def margins(levels: Mapping[str, Any]) -> dict[str, float]:
    """What the toy's policy gains on the others, as a share of their |return|; its success over the oracle's."""
    if "toy" not in levels:
        return {}
    toy, found = levels["toy"], {}
    for name in ("zeroed", "random"):
        if name in levels and (size := abs(levels[name]["return"])) > 0:
            found[f"over_{name}"] = (toy["return"] - levels[name]["return"]) / size
    if "oracle" in levels and levels["oracle"]["success"] > 0:
        found["success_of_oracle"] = toy["success"] / levels["oracle"]["success"]
    return found


def told(found: Mapping[str, Any]) -> str:
    outside = f"  {found['outside']:>5.0%} outside training" if "outside" in found else ""
    return (
        f"return {found['return']:8.2f} ± {found['return_std']:6.2f}  success {found['success']:>4.0%}  "
        f"family {found['family_accuracy']:>4.0%}  group {found['group_accuracy']:>4.0%}{outside}"
    )


def summary(report: Mapping[str, Any], folder: Path) -> str:
    """The lines that are printed at the end."""
    levels, tasks = report["high_levels"], len(next(iter(report["high_levels"].values()))["tasks"])
    lines = [f"{report['toy']} on {report['body']}: {tasks} tasks x {report['repeats']} bodies, {report['decisions']} "
             f"decisions, stride {report['stride']}"]  # fmt: skip
    lines += [f"  {name:7} {told(found)}" for name, found in levels.items()]
    words = {"over_zeroed": "better than a zeroed belief by {:.0%}", "over_random": "than random sub-goals by {:.0%}",
             "success_of_oracle": "success {:.2f} of the oracle's"}  # fmt: skip
    if said := [text.format(report["margins"][key]) for key, text in words.items() if key in report["margins"]]:
        lines.append(f"toy: {', '.join(said)}")
    return "\n".join([*lines, f"written to {folder / 'result.json'}"])
