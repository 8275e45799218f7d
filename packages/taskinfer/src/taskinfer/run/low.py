"""`taskinfer low train`: bodies collect, the low level learns, evaluates, saves. The same command goes on."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rlcore import device
from rlcore.errors import QuintetWarning
from rlcore.run import Run
from rlcore.seeding import numpy_state, set_numpy_state
from taskinfer.analysis.tracking import measure
from taskinfer.config import LowConfig
from taskinfer.envs.bodies import Bodies, BodyStep
from taskinfer.low import Experience, LowLevel, TaskStream
from taskinfer.run.progress import write_progress

MAY_CHANGE = frozenset({"steps"})
BROKEN_SHARE, BROKEN_LEAST = 0.01, 10  # broken steps, as a share and at least, that a run is given up for


def train(cfg: LowConfig) -> Path:
    """Train as `cfg` says; returns the run's folder. Errors: see rlcore.run.Run.open, rlcore.errors.NumericalError."""
    device.set_threads(cfg.threads)
    where = device.resolve(cfg.device)
    bodies = Bodies(cfg.body, cfg.num_envs, seed=cfg.seed, horizon=cfg.horizon, tip=cfg.tip)
    obs_dim, action_dim = bodies.observation_dim, bodies.action_dim
    facts = {
        "env": cfg.body, "stage": "low", "groups": list(cfg.groups), "observation_dim": obs_dim,
        "action_dim": action_dim, "dt": bodies.bodies[0].dt, "action_repeat": 1,
    }  # fmt: skip
    with Run.open(
        cfg, program="taskinfer", total=cfg.steps, stride=cfg.num_envs, may_change=MAY_CHANGE, facts=facts
    ) as run:
        agent = LowLevel(cfg.sac, obs_dim, action_dim, cfg.groups, run.seed("agent"), where)
        tasks = TaskStream(cfg.num_envs, cfg.groups, cfg.ranges, cfg.hold, run.numpy_generator("tasks"), cfg.shares)
        experience = Experience(
            cfg.buffer_size, cfg.num_envs, obs_dim, action_dim, cfg.groups, cfg.ranges, relabel=cfg.relabel,
            alive=cfg.alive, rng=run.numpy_generator("relabel"), rows=run.numpy_generator("replay"),
            fall_cost=cfg.fall_cost, shares=cfg.shares,
        )  # fmt: skip
        first, watch = FirstActions(action_dim, run.numpy_generator("first actions")), Watch()
        parts = {
            "agent": agent, "envs": bodies, "tasks": tasks, "first": first, "watch": watch,
            "buffer": experience if cfg.save_replay else None,
        }  # fmt: skip
        bodies.reset()  # before the checkpoint, if there is one: it may be of step 0
        tasks.advance(bodies.state.x)
        step = run.restore(**parts)
        filled_from = step if step and not cfg.save_replay else 0  # without its replay, a resumed run refills first
        if run.unscored:
            run.score(step, partial(evaluate_now, run, step, agent, cfg), **parts)
        while run.going(step):
            obs = bodies.obs.copy()
            with run.phase("act"):
                if step < cfg.learning_starts:
                    action = first.draw(cfg.num_envs)
                else:
                    action = agent.act(obs, tasks.goal.relative(bodies.state.x), deterministic=False)
            with run.phase("env"):
                moved = bodies.step(action)
            with run.phase("store"):
                watch.saw(run, step, moved, bodies)
                experience.add(obs, action, moved, tasks)
                run.meters.add(tasks.rewards(moved.after))
                tasks.advance(bodies.state.x, moved.terminated | moved.truncated)
                step += cfg.num_envs
            if step - filled_from > cfg.learning_starts:
                with run.phase("learn"):
                    for _ in range(int(step * cfg.utd) - int((step - cfg.num_envs) * cfg.utd)):
                        run.meters.add(agent.sac.update(experience.sample(cfg.batch_size, cfg.gamma, where)))
            if run.due("log", step):
                run.train_row(step, agent.updates, broken_steps=watch.broken)
            if run.due("eval", step):
                with run.phase("evaluate"):
                    run.score(step, partial(evaluate_now, run, step, agent, cfg), **parts)
                with run.saving("progress.csv"):
                    write_progress(run.folder)
            if run.due("save", step):
                with run.phase("save"):
                    run.save(step, **parts)
        folder = run.finish(step, **parts)
        with run.saving("progress.csv"):
            write_progress(folder)
    bodies.close()
    return folder


def evaluate_now(run: Run, step: int, agent: LowLevel, cfg: LowConfig) -> float:
    """Always the same sub-goals on bodies of their own: training does not notice."""
    row = measure(agent, cfg.body, cfg.goal_range[1], cfg.eval_repeats, run.seed("selection"))[2]
    run.log("eval", step, row)
    found = ", ".join(f"{name} {row[f'{name}_reached']:.0%} (error {row[f'{name}_error']:.2f})" for name in cfg.groups)
    run.console.say(f"step {step:,}: reached {found}")
    return float(row["score"])


class FirstActions:
    """Actions before there is anything to learn from: uniform."""

    def __init__(self, action_dim: int, rng: np.random.Generator) -> None:
        self.action_dim, self.rng = action_dim, rng

    def draw(self, num: int) -> np.ndarray[Any, Any]:
        """(num, A) in [-1, 1]."""
        return self.rng.uniform(-1.0, 1.0, (num, self.action_dim)).astype(np.float32)

    def state_dict(self) -> dict[str, Any]:
        return {"rng": numpy_state(self.rng)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        set_numpy_state(self.rng, state["rng"])


class Watch:
    """Counts steps whose simulation broke down: one is said, one in a hundred ends the run."""

    def __init__(self) -> None:
        self.broken = self.steps = 0

    def saw(self, run: Run, step: int, moved: BodyStep, bodies: Bodies) -> None:
        """Raise NumericalError that names the body once more than `BROKEN_SHARE` of all steps are broken."""
        self.steps += bodies.num
        if not moved.broken.any():
            return
        which = moved.where[int(np.flatnonzero(moved.broken)[0])]
        if not self.broken:
            text = f"the simulation of {which} gave numbers that are not finite at step {step:,}: it was begun anew"
            warnings.warn(text, QuintetWarning, stacklevel=2)
        self.broken += int(moved.broken.sum())
        if self.broken >= max(BROKEN_LEAST, BROKEN_SHARE * self.steps):
            what = f"the simulation broke down in {self.broken} of {self.steps:,} steps; the state of {which}"
            run.diverged(step, what, {"obs": moved.final_obs.tolist()})

    def state_dict(self) -> dict[str, Any]:
        return {"broken": self.broken, "steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.broken, self.steps = int(state["broken"]), int(state["steps"])
