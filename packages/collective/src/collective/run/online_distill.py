"""`collective online-distill`: chance, a copy of the expert that is still learning, and the expert act in turn.

Whoever acts, each step is labelled with what the task's expert would have done there, and the copy learns from that
(Ross et al. 2011, arXiv:1011.0686). What is kept is the data; the copy only leads to states where a learner gets.
Options count env steps of each task, `step` in the record those of all together. The same command goes on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from collective.config import ACTION_DIM
from collective.config_worker import OnlineConfig
from collective.data import Writer
from collective.experience import Experience, chunks, memory, unlabelled
from collective.experts import Expert, load_all, relabel, stack
from collective.labels import Labels
from collective.losses import distil_loss
from collective.run.many import FirstActions, Tally, act, described, facts_of, open_envs, score
from rlblocks.config import SACConfig
from rlblocks.sac import SAC
from rlcore import checkpoint, device
from rlcore.buffer import Field
from rlcore.config import from_dict, to_dict
from rlcore.errors import DataError
from rlcore.files import explained
from rlcore.run import Run
from rlcore.seeding import numpy_state, set_numpy_state

Array = np.ndarray[Any, Any]
MAY_CHANGE = frozenset({"workers", "experts", "checkpoint"})
COPY = "experts.pt"  # in the run's folder: the labels stay those of one expert when its run goes on or moves
EXTRA = {
    "expert_mean": Field((ACTION_DIM,)), "expert_log_std": Field((ACTION_DIM,)), "executed_expert": Field((), "bool"),
}  # fmt: skip
SHARD = 50_000  # transitions of a shard, about


def collect(cfg: OnlineConfig) -> Path:
    """Record as `cfg` says; returns the run's folder, which is the data set's, too.

    Errors: DataError where there is no expert, naming the command that makes one; see rlcore.run.Run.open.
    """
    device.set_threads(cfg.threads)
    where, tasks = device.resolve(cfg.device), cfg.chosen
    experts = open_experts(cfg)
    total = cfg.phases[-1] * len(tasks)
    facts = {**facts_of(cfg, "online"), "expert": cfg.expert}
    with (
        Run.open(
            cfg, program="collective", total=total, stride=cfg.num_envs, may_change=MAY_CHANGE, facts=facts
        ) as run,
        contextlib.closing(Collector(run, cfg, experts, where)) as collector,
    ):
        keep_copy(run.folder, experts)
        step = run.restore(**collector.parts)
        if run.unscored:
            run.score(step, partial(collector.evaluate, step), **collector.parts)
        while run.going(step):
            before, step = step, collector.turn(step)
            if step == before:  # stopped among updates
                break
            if collector.due("log", step):
                collector.report(step)
            if collector.due("eval", step) and collector.learning(step):
                run.score(step, partial(collector.evaluate, step), **collector.parts)
            if collector.due("save", step):
                with run.phase("save"):
                    run.save(step, **collector.parts)
        folder = run.finish(step, **collector.parts)
        collector.write()
    return folder


class Collector:
    """Everything of a run that changes, and one turn of its loop."""

    def __init__(self, run: Run, cfg: OnlineConfig, experts: list[Expert] | None, where: torch.device) -> None:
        self.run, self.cfg, self.tasks = run, cfg, cfg.chosen
        capacity = -(-cfg.phases[-1] // cfg.num_envs) * cfg.num_envs  # all of it: the data set is made from it
        run.console.say(f"record: {memory(capacity, len(self.tasks), cfg.num_envs, EXTRA, where)}")
        rngs = [run.numpy_generator("replay", task) for task in self.tasks]
        self.experience = Experience(capacity, cfg.num_envs, rngs, EXTRA, where)
        actors = replace(cfg.sac, learn_alpha=False)
        self.net = stack(actors, self.tasks, run.seed("temporary network"), where)
        self.teachers = Teachers(self.tasks, experts, run)
        self.tally = Tally(self.tasks, cfg.num_envs, where, norm=False)
        self.first = FirstActions([run.numpy_generator("first actions", task) for task in self.tasks], cfg.num_envs)
        self.envs = open_envs(cfg, run.seed("envs"))
        self.envs.reset()  # before the checkpoint, if there is one: it may be of step 0
        self.parts = {
            "agent": self.net, "envs": self.envs, "tally": self.tally, "first": self.first, "teachers": self.teachers,
            "buffer": self.experience,
        }  # fmt: skip

    def close(self) -> None:
        """Close the envs."""
        self.envs.close()

    def due(self, what: str, step: int) -> bool:
        """Whether it is time for a row, an evaluation or a checkpoint; the budget shortens their periods."""
        every = self.cfg.scaled(getattr(self.cfg, f"{what}_every"))
        return (step // len(self.tasks)) % every < self.cfg.num_envs

    def learning(self, step: int) -> bool:
        """Whether this is a phase in which the temporary network changes."""
        return self.cfg.phases[0] < step // len(self.tasks) <= self.cfg.phases[1]

    def owed(self, each: int) -> int:
        """Updates of the temporary network that come before it has seen more than `each` env steps of a task."""
        random, network, _ = self.cfg.phases
        if each < random:
            return 0
        return self.cfg.scaled(self.cfg.catch_up) + (min(each, network) - random) // self.cfg.update_every

    def turn(self, step: int) -> int:
        """The updates that are owed, then one step of all envs. Returns the next step: the same where stopped first."""
        run, cfg, each = self.run, self.cfg, step // len(self.tasks)
        with run.phase("learn"):
            while self.net.updates < self.owed(each):
                if not run.going(step):  # there are thousands of updates before the network's first step
                    return step
                self.learn()
        obs, goal = self.envs.current_obs, self.envs.goal_id.copy()
        with run.phase("act"):
            mean, log_std = self.teachers.labels.of(obs, self.envs.task_index)
            by_expert = each >= cfg.phases[1]
            if each < cfg.phases[0]:
                action = self.first.draw()
            elif by_expert:
                action = self.teachers.act(obs, self.envs.task_index, mean)
            else:
                action = act(self.net, obs, deterministic=False)
        if not np.isfinite(action).all():
            run.diverged(step, "what is to be done", {"obs": obs, "action": action})
        with run.phase("env"):
            moved = self.envs.step(action)
        with run.phase("store"):
            flags = np.full(len(obs), by_expert)
            self.experience.add(
                obs, action, moved, goal, expert_mean=mean, expert_log_std=log_std, executed_expert=flags
            )  # fmt: skip
            for name, value in self.tally.saw(moved):
                run.meters.add({name: value})
            run.meters.add({"executed_expert": float(by_expert)})
        return step + self.envs.num_envs

    def learn(self) -> None:
        """One update of every temporary network."""
        batch = self.experience.sample(self.cfg.batch_size)
        self.tally.learnt(imitate(self.net, batch))

    def report(self, step: int) -> None:
        """A train row."""
        each = step // len(self.tasks)
        phase = ("random", "network", "expert", "expert")[sum(each > end for end in self.cfg.phases)]
        counts = {"task_step": each, "episodes": self.tally.episodes, "unstable": self.envs.unstable, "phase": phase}
        self.run.train_row(step, self.net.updates, **counts, **self.tally.read())

    def evaluate(self, step: int) -> float:
        """The temporary networks in envs of their own, greedy: recording does not notice. Returns mean success."""
        run = self.run
        with run.phase("evaluate"):
            row = score(self.net, self.cfg, run.seed("selection"))
        run.log("eval", step, row)
        reached = ", ".join(f"{task} {row[f'success/{task}']:.0%}" for task in self.tasks)
        run.console.say(f"step {step:,}: the temporary network reaches {reached}")
        return float(row["success"])

    def write(self) -> None:
        """The data set, its values by the experts: r + gamma V(s'). What is there already is written anew."""
        cfg = self.cfg
        writer = Writer(self.run.folder, self.tasks, {**described(cfg), "policy": "online", "expert": cfg.expert})
        writer.load_state_dict({"shards": 0})
        experts = self.teachers.experts
        spans = [span for env in range(self.envs.num_envs) for span in self.experience.episodes(env, partial=True)]
        shares = []
        for group in chunks(spans, SHARD):
            parts = ((span.env // cfg.num_envs, self.experience.rows(span)) for span in group)
            data = unlabelled(parts, self.tasks)
            writer.append(relabel(data, experts, q_only=True) if experts else data)
            shares.append(data.executed_expert.sum())
        what = f"{writer.trajectories} episodes, {writer.transitions:,} transitions"
        share = sum(shares) / writer.transitions
        self.run.console.say(f"{self.run.folder}: data set of {what}, {share:.0%} of their actions by experts")


class Teachers:
    """The experts: their labels, and their actions where they act themselves.

    A script acts as it says; a soft actor-critic draws its actions, from a stream of the run.
    """

    def __init__(self, tasks: tuple[str, ...], experts: list[Expert] | None, run: Run) -> None:
        self.experts, self.labels = experts, Labels(tasks, None)
        self.labels.experts = experts
        for expert in experts or ():
            expert.sac.exploration = [run.numpy_generator("expert", expert.task)]

    def act(self, obs: Array, task: Array, mean: Array) -> Array:
        """Actions (N, 4) in the states obs (N, 39) of task numbers (N,), whose labels have the means `mean`."""
        if self.experts is None:
            return mean.copy()  # never one array for what was done and what is taught
        action = np.empty_like(mean)
        for number, expert in enumerate(self.experts):
            own = task == number
            action[own] = expert.act(obs[own], deterministic=False)
        return action

    def state_dict(self) -> dict[str, Any]:
        return {"streams": [numpy_state(expert.sac.exploration[0]) for expert in self.experts or ()]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for expert, saved in zip(self.experts or (), state["streams"]):
            set_numpy_state(expert.sac.exploration[0], saved)


def imitate(net: SAC, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """One step of each actor of a stack towards its expert's labels; metrics (N,), detached.

    Args: batch: obs (N, B, 39), expert_mean (squashed) and expert_log_std (N, B, 4).
    """
    obs, target, spread = batch["obs"], batch["expert_mean"], batch["expert_log_std"]
    now = net.policy(obs, torch.zeros_like(target))
    losses = [distil_loss(*rows) for rows in zip(now.mean, now.log_std, target, spread)]
    loss = torch.stack(losses)
    net.actor_adam.step(loss)
    net.updates += 1
    mean, log_std = now.mean.detach(), now.log_std.detach()
    return {
        "actor_loss": loss.detach(), "mu_div": (mean.tanh() - target).square().mean((1, 2)),
        "log_std_div": (log_std - spread).square().mean((1, 2)),
    }  # fmt: skip


def open_experts(cfg: OnlineConfig) -> list[Expert] | None:
    """The experts of the tasks: those that the run has a copy of, or else those asked for; None for scripts."""
    if cfg.expert == "scripted":
        return None
    where, copy = device.resolve(cfg.device), cfg.dir / (cfg.name or "") / COPY
    if not (cfg.name and not cfg.overwrite and copy.is_file()):
        return load_all(cfg.experts, cfg.chosen, cfg.checkpoint, where)
    state = checkpoint.load(copy)
    try:
        experts = [
            Expert.from_state(from_dict(SACConfig, each["sac"], where=f"expert in {copy}"), each, where)
            for each in state["experts"]
        ]
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{copy} holds no experts: {' '.join(str(error).split())[:200]}") from error
    return experts


def keep_copy(folder: Path, experts: list[Expert] | None) -> None:
    """Leave the experts in the run's folder, unless they are there."""
    if experts is None or (folder / COPY).exists():
        return
    with explained(folder):
        states = [{**expert.state_dict(), "sac": to_dict(expert.sac.cfg)} for expert in experts]
        checkpoint.save(folder / COPY, {"experts": states})
