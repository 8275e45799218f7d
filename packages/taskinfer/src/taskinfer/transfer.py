"""A body driven by beliefs and sub-goals, in decisions of a fixed number of body steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from taskinfer import tasks as task_rules
from taskinfer.envs.bodies import Bodies
from taskinfer.envs.toy import dims, obs_of
from taskinfer.highlevel import HighLevel
from taskinfer.inference import Inference
from taskinfer.low import LowLevel
from taskinfer.record import Record, Recorder, TasksAt
from taskinfer.tasks import State

Array = np.ndarray[Any, Any]
Pay = Literal["last", "mean", "sum"]
SPEEDS = ("vx", "vz", "omega", "vy")


@dataclass(frozen=True)
class Stack:
    """What drives a body: beliefs in the toy's terms, and the controller of the body."""

    inference: Inference
    toy: str  # name of the toy whose observations the beliefs read
    low: LowLevel
    body: str
    stride: int  # body steps a decision
    pay: Pay = "last"  # what a decision is paid of its body steps


class Driver:
    """n bodies at once. The sub-goal steers, the true task pays: neither sees the other.

    Whoever falls stays where it fell, at rest, and is paid for that until the end; so does a body whose simulation
    breaks down. Bodies begin from states that `seed` decides, whoever sets the sub-goals.
    """

    def __init__(self, stack: Stack, num: int, decisions: int, seed: int, render: bool = False) -> None:
        self.stack, self.num, self.decisions = stack, num, decisions
        self.bodies = Bodies(stack.body, num, seed=seed, horizon=decisions * stack.stride + 1, render=render)
        self.obs = self.bodies.reset()
        self.here = self.bodies.state  # (n,) each, with the fallen where they fell
        self.alive = np.ones(num, bool)
        self.broken = 0  # bodies whose simulation broke down

    def run(
        self, high: HighLevel, tasks_at: TasksAt, going: Callable[[int], bool] = lambda t: True,
        watch: Callable[[int, Driver], None] | None = None,
    ) -> Record | None:  # fmt: skip
        """One episode of each body; None where `going(decision)` says stop.

        watch: called after every body step with its number and this driver.
        """
        stack = self.stack
        inference, toy = stack.inference, stack.toy
        recorder = Recorder(
            inference.families, inference.cfg.latent_dim, self.num, self.decisions, dims(toy)[0], 1,
            dt=self.bodies.bodies[0].dt * stack.stride, toy=toy, body=stack.body,
        )  # fmt: skip
        stream = inference.stream(self.num)
        for t in range(self.decisions):
            if not going(t):
                return None
            tasks, was, before = tasks_at(t), self.alive.copy(), obs_of(toy, self.here)
            recorder.saw(t, before, stream.belief)
            subgoal = high.propose(self.here, stream.belief, tasks)
            target, paid, missed = subgoal.absolute(self.here.x), [], []
            for i in range(stack.stride):
                self._step(stack.low.act(self.obs, target.relative(self.here.x), deterministic=True))
                paid.append(task_rules.reward(tasks, self.here))
                missed.append(task_rules.error(tasks, self.here))
                if watch is not None:
                    watch(t * stack.stride + i, self)
            reward = {"last": paid[-1], "mean": np.mean(paid, 0), "sum": np.sum(paid, 0)}[stack.pay]
            inference.update(stream, before, reward, obs_of(toy, self.here), was)
            recorder.did(
                t, tasks, action=subgoal.value[:, None], subgoal_group=subgoal.group, reward=reward,
                error=np.mean(missed, 0), alive=was,
            )  # fmt: skip
        recorder.saw(self.decisions, obs_of(toy, self.here), stream.belief)
        return recorder.done()

    def _step(self, action: Array) -> None:
        """One body step of those that are still up."""
        moved = self.bodies.step(action)
        self.obs = moved.obs
        self.here = State(*np.where(self.alive, np.stack(moved.after), np.stack(self.here)))
        ended = self.alive & (moved.terminated | moved.broken)
        if ended.any():
            self.broken += int((moved.broken & self.alive).sum())
            self.here = self.here._replace(**{name: np.where(ended, 0.0, getattr(self.here, name)) for name in SPEEDS})
            self.alive = self.alive & ~ended

    def close(self) -> None:
        self.bodies.close()
