"""`collective record`: episodes of random, scripted or mixed behaviour, every step labelled by the task's script."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from collective import envs
from collective.config_data import RecordConfig
from collective.data import Array, Writer
from collective.losses import LOG_STD_SCRIPTED
from collective.recorder import Recorder
from rlcore import device
from rlcore.run import Run
from rlcore.seeding import numpy_state, set_numpy_state

MAY_CHANGE = frozenset({"workers"})
DRIFT = 0.9  # of the noise from one step to the next: it pushes for about ten steps


def record(cfg: RecordConfig) -> Path:
    """Record as `cfg` says; returns the folder of the data set, which is that of the run.

    The same command goes on. Errors: see rlcore.run.Run.open; EnvironmentProblem without the simulator.
    """
    device.set_threads(cfg.threads)
    tasks = cfg.chosen
    turn = len(tasks) * cfg.copies
    total = -(-cfg.steps // cfg.copies) * turn
    facts = {"stage": "data", "tasks": list(tasks)}
    with (
        Run.open(cfg, program="collective", total=total, stride=turn, may_change=MAY_CHANGE, facts=facts) as run,
        contextlib.closing(Recording(run, cfg, tasks)) as recording,
    ):
        step = run.restore(**recording.parts)
        if not step:
            recording.writer.load_state_dict({"shards": 0})  # of a session that ended before its first checkpoint
        if not recording.begun:
            recording.begin()
        while run.going(step):
            recording.turn()
            step += turn
            if run.due("log", step):
                run.train_row(step, 0, trajectories=recording.writer.trajectories)
            if run.due("save", step) and step < total:
                recording.write()
                run.save(step, **recording.parts)
        recording.write(last=step >= total)
        folder = run.finish(step, **recording.parts)
        if step >= total:
            run.console.say(recording.report())
    return folder


class Recording:
    """Everything that a recording changes, and one turn of its loop."""

    def __init__(self, run: Run, cfg: RecordConfig, tasks: tuple[str, ...]) -> None:
        self.run, self.cfg, self.tasks = run, cfg, tasks
        self.envs = envs.make(
            tasks, seed=cfg.seed, copies=cfg.copies, goals=cfg.goals, goal_seed=cfg.goal_seed, horizon=cfg.horizon,
            workers=cfg.workers, reward_version=cfg.reward_version,
        )  # fmt: skip
        self.recorder = Recorder(tasks, self.envs.task_index, cfg.horizon)
        self.actor = Actor(cfg, self.envs.num_envs, run.numpy_generator("actions"))
        self.since = np.full(self.envs.num_envs, -1)  # steps since an episode's first success
        self.begun = False
        meta = {
            "horizon": cfg.horizon, "reward_version": cfg.reward_version, "goal_seed": cfg.goal_seed, "seed": cfg.seed,
            "policy": cfg.policy, "p_scripted": cfg.p_scripted if cfg.policy == "mixed" else None, "noise": cfg.noise,
            "expert": "scripted",
        }  # fmt: skip
        self.writer = Writer(run.folder, tasks, meta)
        self.parts = {"envs": self.envs, "recorder": self.recorder, "writer": self.writer, "recording": self}

    def begin(self) -> None:
        """First episodes."""
        self.envs.reset()
        self.actor.begin(np.ones(self.envs.num_envs, bool))
        self.begun = True

    def turn(self) -> None:
        """One step of all envs."""
        run, vec, obs = self.run, self.envs, self.envs.current_obs
        with run.phase("act"):
            labels = envs.script_actions(self.tasks, vec.task_index, obs)
            action, by_expert = self.actor.act(labels)
        goal_id = vec.goal_id.copy()
        with run.phase("env"):
            last = self.cfg.stop_after_success is not None and self.since + 1 >= self.cfg.stop_after_success
            moved = vec.step(action, stop=last & (self.since >= 0))
        with run.phase("store"):
            success = moved.info["success"]
            self.since = np.where(self.since >= 0, self.since + 1, np.where(success, 0, -1))
            ended = moved.terminated | moved.truncated
            after = np.where(ended[:, None], moved.final_obs, moved.obs)
            self.recorder.add(
                after, ended, goal_id, obs=obs, action=action, reward=moved.reward, success=success,
                expert_mean=labels, expert_log_std=np.full_like(labels, LOG_STD_SCRIPTED),
                executed_expert=by_expert,
            )  # fmt: skip
            if ended.any():
                run.meters.add({"success": float((self.since[ended] >= 0).mean())})
                self.since[ended] = -1
                self.actor.begin(ended)

    def write(self, last: bool = False) -> None:
        """Write the complete trajectories as a shard; at the `last` call, the unfinished ones too."""
        if last:
            self.recorder.cut(self.envs.current_obs, self.envs.goal_id)
        if (found := self.recorder.take()) is not None:
            self.writer.append(found)

    def report(self) -> str:
        """What came of it."""
        count, steps = self.writer.trajectories, self.writer.transitions
        unstable = f"; the simulator broke down on {self.envs.unstable} steps" if self.envs.unstable else ""
        return f"{self.run.folder}: {count:,} trajectories, {steps:,} steps of {len(self.tasks)} tasks{unstable}"

    def close(self) -> None:
        """Close the envs."""
        self.envs.close()

    def state_dict(self) -> dict[str, Any]:
        return {"actor": self.actor.state_dict(), "since": self.since.copy(), "begun": self.begun}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.actor.load_state_dict(state["actor"])
        self.since, self.begun = np.asarray(state["since"]).copy(), bool(state["begun"])


class Actor:
    """Who acts: chance, the script, the script with drifting noise, or a coin between script and chance."""

    def __init__(self, cfg: RecordConfig, num_envs: int, rng: np.random.Generator) -> None:
        self.share = {"random": 0.0, "scripted": 1.0, "mixed": cfg.p_scripted}[cfg.policy]
        self.noise, self.rng = cfg.noise, rng
        self.amplitude, self.drift = np.zeros(num_envs), np.zeros((num_envs, 4))

    def begin(self, where: Array) -> None:
        """Episodes begin in those envs: draw how noisy each will be."""
        drawn = self.rng.uniform(0.0, self.noise, len(where))
        self.amplitude = np.where(where, drawn, self.amplitude)
        self.drift[where] = 0.0

    def act(self, labels: Array) -> tuple[Array, Array]:
        """Actions (N, 4), and (N,) whether each is the script's own. The labels stay as they are."""
        n = len(labels)
        fresh = self.rng.standard_normal((n, 4)) * self.amplitude[:, None]
        self.drift = DRIFT * self.drift + np.sqrt(1 - DRIFT**2) * fresh
        scripted = self.rng.random(n) < self.share
        chance = self.rng.uniform(-1.0, 1.0, (n, 4))
        noisy = np.clip(labels + self.drift, -1.0, 1.0)
        action = np.where(scripted[:, None], noisy, chance).astype(np.float32)
        return action, scripted

    def state_dict(self) -> dict[str, Any]:
        return {"rng": numpy_state(self.rng), "amplitude": self.amplitude.copy(), "drift": self.drift.copy()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        set_numpy_state(self.rng, state["rng"])
        self.amplitude, self.drift = np.asarray(state["amplitude"]).copy(), np.asarray(state["drift"]).copy()
