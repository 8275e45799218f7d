"""`collective train-worker`: an expert a task, all in one program. The same command goes on.

Options and periods count env steps of each task, so that a preset suits one task as well as fifty; `step` in the record
counts those of all tasks together.
"""

from __future__ import annotations

import contextlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from collective.config_worker import WorkerConfig
from collective.data import Writer
from collective.experience import Experience, memory
from collective.experts import Expert, relabel, stack, unstack
from collective.run.many import FirstActions, Tally, act, described, facts_of, open_envs, score
from collective.run.snapshots import Snapshots
from rlcore import device
from rlcore.run import Run

Array = np.ndarray[Any, Any]
MAY_CHANGE = frozenset({"steps", "workers"})
LIMIT = 1e8  # a critic loss beyond it counts as infinite


def train(cfg: WorkerConfig) -> Path:
    """Train as `cfg` says; returns the run's folder. Errors: see rlcore.run.Run.open, rlcore.errors.NumericalError."""
    device.set_threads(cfg.threads)
    where, tasks = device.resolve(cfg.device), cfg.chosen
    total, stride = cfg.steps * len(tasks), cfg.num_envs
    facts = facts_of(cfg, "experts")
    with (
        Run.open(cfg, program="collective", total=total, stride=stride, may_change=MAY_CHANGE, facts=facts) as run,
        contextlib.closing(Learner(run, cfg, where)) as learner,
    ):
        step = run.restore(**learner.parts)
        learner.resumed(step)
        if run.unscored:
            run.score(step, partial(learner.evaluate, step), **learner.parts)
        while run.going(step):
            step = learner.turn(step)
            each = step // len(tasks)
            if any(run.due(what, each) for what in ("log", "eval", "save")):
                learner.check(step)  # before anything is written over a good checkpoint
            if run.due("log", each):
                learner.report(step)
            if learner.snapshots.due(each):
                learner.snapshots.take(each, learner.experience)
            if run.due("eval", each):
                run.score(step, partial(learner.evaluate, step), **learner.parts)
            if run.due("save", each):
                with run.phase("save"):
                    run.save(step, **learner.parts)
        learner.check(step)
        folder = run.finish(step, **learner.parts)
        learner.label_snapshots(step)
    return folder


class Learner:
    """Everything of a run that changes, and one turn of its loop."""

    def __init__(self, run: Run, cfg: WorkerConfig, where: torch.device) -> None:
        self.run, self.cfg, self.tasks = run, cfg, cfg.chosen
        run.console.say(f"replay: {memory(cfg.replay, len(self.tasks), cfg.num_envs, None, where)}")
        rngs = [run.numpy_generator("replay", task) for task in self.tasks]
        self.experience = Experience(cfg.replay, cfg.num_envs, rngs, device=where)
        self.sac = stack(cfg.sac, self.tasks, run.seed("experts"), where)
        self.tally = Tally(self.tasks, cfg.num_envs, where, cfg.reward_norm)
        self.first = FirstActions([run.numpy_generator("first actions", task) for task in self.tasks], cfg.num_envs)
        self.discount = torch.full((len(self.tasks), cfg.batch_size), cfg.gamma, device=where)  # no episode ever ends
        self.snapshots = Snapshots(run.folder, cfg)
        self.batch: dict[str, Tensor] = {}
        self.refill_from = 0  # without its replay, a resumed run collects anew before it learns
        self.envs = open_envs(cfg, run.seed("envs"))
        self.envs.reset()  # before the checkpoint, if there is one: it may be of step 0
        self.parts = {
            "agent": self.sac, "envs": self.envs, "tally": self.tally, "first": self.first,
            "buffer": self.experience if cfg.save_replay else None,
        }  # fmt: skip

    def close(self) -> None:
        """Close the envs."""
        self.envs.close()

    def resumed(self, step: int) -> None:
        """After a checkpoint of `step` was loaded, if any."""
        if step and not self.cfg.save_replay:
            self.refill_from = step // len(self.tasks)
            self.experience.age = self.tally.stats.running[1].astype(np.int64)
            again = f"no replay was saved: {self.cfg.random_steps:,} env steps of each task come before the next update"
            self.run.console.say(again)

    def turn(self, step: int) -> int:
        """One step of all envs, and the updates it is worth. Returns the next step."""
        run, cfg, obs, goal = self.run, self.cfg, self.envs.current_obs, self.envs.goal_id.copy()
        each = step // len(self.tasks)  # env steps of a task
        with run.phase("act"):
            action = self.first.draw() if each < cfg.random_steps else act(self.sac, obs, deterministic=False)
        if not np.isfinite(action).all():
            run.diverged(step, f"what the expert of {self._broken(action)} does", {"obs": obs, "action": action})
        with run.phase("env"):
            moved = self.envs.step(action)
        with run.phase("store"):
            self.experience.add(obs, action, moved, goal)
            for name, value in self.tally.saw(moved):
                run.meters.add({name: value})
        before, each = each, each + cfg.num_envs
        if each - self.refill_from > cfg.random_steps:
            with run.phase("learn"):
                for _ in range(int(each * cfg.updates_per_step) - int(before * cfg.updates_per_step)):
                    self.learn()
        return step + self.envs.num_envs

    def learn(self) -> None:
        """One update of every expert."""
        batch = self.experience.sample(self.cfg.batch_size)
        if self.tally.norm.on:
            scale = torch.as_tensor(self.tally.norm.scale, dtype=torch.float32, device=self.discount.device)
            batch["reward"] = batch["reward"] * scale[:, None]
        self.batch = {**batch, "discount": self.discount}
        self.tally.learnt(self.sac.update(unstack(self.batch, self.sac.agents)))

    def _broken(self, action: Array) -> str:
        return self.tasks[int(np.isnan(action).any(1).argmax()) // self.cfg.num_envs]

    def check(self, step: int) -> None:
        """NumericalError naming the task whose critics' loss was not finite, or above `LIMIT`, since the last check."""
        worst = self.tally.worst.cpu()
        bad = ~(worst <= LIMIT)
        if bad.any():
            i = int(bad.nonzero()[0])
            what = (
                f"critic loss of {self.tasks[i]} (it was {float(worst[i]):.3g}; above {LIMIT:.0e} counts as infinite)"
            )
            self.run.diverged(step, what, {"batch": self.batch, "agent": self.sac.state_dict()})
        self.tally.worst.zero_()

    def report(self, step: int) -> None:
        """A train row."""
        counts = {"task_step": step // len(self.tasks), "episodes": self.tally.episodes, "unstable": self.envs.unstable}
        self.run.train_row(step, self.sac.updates, **counts, **self.tally.read())

    def evaluate(self, step: int) -> float:
        """Episodes of its own, greedy, the same goals each time: training does not notice. Returns mean success."""
        run, cfg = self.run, self.cfg
        with run.phase("evaluate"):
            row = score(self.sac, cfg, run.seed("selection"))
        run.log("eval", step, row)
        reached = ", ".join(f"{task} {row[f'success/{task}']:.0%}" for task in self.tasks)
        run.console.say(f"step {step:,}: success {reached}; return {row['return_mean']:.0f}")
        return float(row["success"])

    def label_snapshots(self, step: int) -> None:
        """Write the snapshots as a data set, labelled by the experts as they are now; its folder is the run's."""
        cfg, agents = self.cfg, len(self.tasks)
        experts = [
            Expert.of(task, cfg.sac, self.sac.tensors(), i, agents, cfg.gamma, scale, self.sac.device)
            for i, (task, scale) in enumerate(zip(self.tasks, self.tally.norm.scale.tolist()))
        ]
        writer = Writer(self.run.folder, self.tasks, {**described(cfg), "policy": "train-worker", "expert": "sac"})
        writer.load_state_dict({"shards": 0})  # of an earlier end, or of one that was cut off: labels of other experts
        for data in self.snapshots.read(step // agents):
            writer.append(relabel(data, experts))
        if writer.transitions:
            what = f"{writer.trajectories} episodes, {writer.transitions:,} transitions, labelled by the final experts"
            self.run.console.say(f"{self.run.folder}: data set of {what}")
