"""`prismatic train`: collect, learn, evaluate, save. Running the same command again continues the run."""

from __future__ import annotations

import contextlib
import gc
import signal
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from prismatic import cpu
from prismatic import envs as tasks_
from prismatic.agent import Agent
from prismatic.config import MAY_CHANGE, TaskSpec, TrainConfig
from prismatic.envs.tasks import TaskEnvs
from prismatic.model import WorldModel
from prismatic.replay import TaskReplay, replay_bytes, widths_of
from prismatic.run.eval_csv import write_evaluations
from rlcore import device
from rlcore.errors import DataError, QuintetWarning, UsageError
from rlcore.evaluate import evaluate
from rlcore.logger import rss_mib
from rlcore.run import Run
from rlcore.vecenv import EpisodeStats, VecEnv, VecStep

Array = np.ndarray[Any, Any]
LINKS = {
    "last": ("last.pt", "latest.pt"),
    "best": ("best.pt", "best_model.pt"),
    "final": ("final.pt", "final_model.pt"),
}
BAD_UPDATES = 3  # skipped in a row before the run is given up


def train(cfg: TrainConfig) -> Path:
    """Train as `cfg` says; returns the run's folder. Errors: see rlcore.run.Run.open, rlcore.errors.NumericalError."""
    device.set_threads(cfg.threads)
    cpu.reuse_memory()
    where = device.resolve(cfg.device)
    specs = [tasks_.describe(name) for name in tasks_.expand(cfg.tasks)]
    check_windows(cfg, specs)
    repeats, size = [tasks_.action_repeat(spec.name) for spec in specs], learnable(cfg, specs)
    facts = {
        "env": [spec.name for spec in specs], "action_repeat": repeats, "parameters": size, "variant": cfg.variant,
    }  # fmt: skip
    stride = cfg.num_envs * len(specs)
    with Run.open(
        cfg, program="prismatic", total=cfg.steps, stride=stride, links=LINKS, may_change=MAY_CHANGE, facts=facts
    ) as run:
        run.console.say(predicted_memory(cfg, specs, size))
        with contextlib.closing(tasks_.make(specs, cfg.num_envs, seed=cfg.seed)) as envs:
            return Training(run, cfg, specs, envs, where, float(np.mean(repeats))).go()


class Training:
    """What a run owns, and its loop: learn, act, log, evaluate, save."""

    def __init__(
        self, run: Run, cfg: TrainConfig, specs: Sequence[TaskSpec], envs: TaskEnvs, where: torch.device, repeat: float
    ) -> None:
        self.run, self.cfg, self.specs, self.envs, self.repeat = run, cfg, specs, envs, repeat
        self.agent = Agent(cfg, specs, where)
        streams = [run.numpy_generator("replay", i) for i in range(len(specs))]
        self.replay = TaskReplay(cfg, widths_of(envs), streams, where)
        self.plan = self.agent.new_plan(envs.num_envs, cfg.seed, "acting")
        self.stats, self.watch = EpisodeStats(envs.num_envs), Watch(envs)
        self.parts: dict[str, Any] = {
            "agent": self.agent, "plan": self.plan, "envs": envs, "buffer": self.replay if cfg.save_replay else None,
            "stats": self.stats, "watch": self.watch,
        }  # fmt: skip
        envs.reset()  # before the checkpoint, if there is one: it may be of step 0
        self.step = run.restore(**self.parts)
        self.obs = envs.current_obs
        self.watch.is_init |= envs.not_replayed  # windows and plans end where an env could not be brought back
        self.stats.running[:, envs.not_replayed] = 0
        seed_steps = cfg.resolved_seed_steps(max(spec.episode_length for spec in specs)) * len(specs)
        # without its replay, a resumed run refills it first
        self.refill = self.step + seed_steps if self.step and not cfg.save_replay else seed_steps
        if seed_steps < self.refill and self.step < cfg.steps:
            over = "; the run ends before that: give more --steps" if self.refill >= cfg.steps else ""
            run.console.say(f"no replay was saved: {seed_steps:,} random steps come before the next update{over}")
        self.patience = self.refill + (cfg.seed_patience - 1) * seed_steps

    def go(self) -> Path:
        """To the end, or to the signal that stops it; returns the run's folder."""
        run = self.run
        if run.unscored:
            self.score()
        while run.going(self.step):
            random = self.random()
            with run.phase("learn"):
                self.learn(0 if random.all() else int(self.cfg.utd * self.step))
            if not run.going(self.step):
                break
            self.collect(random)
            if run.due("log", self.step):
                self.watch.check(run, self.step, self.agent)
                facts = {"frame": self.frame, "buffer": len(self.replay)}
                run.train_row(self.step, self.agent.updates, **facts, **self.watch.row())
                self.heed_memory()
            if run.due("eval", self.step) and (self.agent.updates or not random.all()):
                self.score()
            if run.due("save", self.step):
                with run.phase("save"):
                    run.save(self.step, **self.parts)
        return run.finish(self.step, **self.parts)

    @property
    def frame(self) -> int:
        """Simulator steps so far, over all tasks."""
        return int(self.step * self.repeat)

    def random(self) -> Array:
        """Which envs (E,) act at random in the next step."""
        unknown = self.watch.told < self.cfg.seed_rewards
        return np.full(self.envs.num_envs, self.step < self.refill) | (unknown & (self.step < self.patience))

    def learn(self, owed: int) -> None:
        """All updates that the steps so far are worth, at first those of the random steps together. They come before
        the next action, so that a run stopped among them goes on exactly."""
        agent, run = self.agent, self.run
        if self.cfg.obs_norm and owed and not agent.updates:
            agent.standardise(*self.replay.obs_moments())
        while agent.updates < owed and run.going(self.step):
            if run.asked_to_free:
                run.asked_to_free = False
                agent.clean_memory()
            self.watch.batch = self.replay.sample(self.cfg.batch_size)
            run.meters.add(agent.update(self.watch.batch))
            if agent.updates % 1_000 == 0 and owed - agent.updates > 500:
                run.console.say(f"update {agent.updates:,} of {owed:,} on the first {self.step:,} steps")

    def collect(self, random: Array) -> None:
        """One step of each env into the replay."""
        cfg, envs, run = self.cfg, self.envs, self.run
        with run.phase("act"):
            if not random.all():
                action = self.agent.act(self.obs, self.watch.is_init, envs.task_id, self.plan)
            if random.any():
                drawn = envs.sample(cfg.seed_hold, at_limits=cfg.seed_action == "limits")
                action = drawn if random.all() else np.where(random[:, None], drawn, action)
        with run.phase("env"):
            moved = envs.step(action)
        with run.phase("store"):
            self.replay.add(self.obs, action, moved, self.watch.is_init, envs.rows)
            self.watch.saw(moved, self.stats)
            self.obs, self.step = moved.obs, self.step + envs.num_envs

    def heed_memory(self) -> None:
        """Above the limit, let go of what can be made again; if that is not enough, stop as on SIGTERM."""
        limit = self.cfg.memory_limit
        if limit is None or rss_mib() <= 1024 * limit:
            return
        self.agent.clean_memory()
        gc.collect()
        if (used := rss_mib()) > 1024 * limit:
            self.run.console.say(f"step {self.step:,}: {used:,.0f} MiB in use, above --memory-limit {limit:g} GiB")
            self.run.ask_to_stop(signal.SIGTERM)  # also where no signal is listened to, outside the main thread

    def score(self) -> None:
        """Evaluate, keep the agent if it is the best so far, and bring eval.csv up to date."""
        self.run.score(self.step, self.evaluate, **self.parts)
        try:
            with self.run.saving("eval.csv"):
                write_evaluations(self.run.folder, [spec.name for spec in self.specs])
        except DataError as error:  # somebody has touched the record: no reason to stop
            self.run.console.say(f"eval.csv was not written: {error}")

    def evaluate(self) -> float:
        """Planned episodes of every task, always the same ones, in envs of their own: training does not notice."""
        run, specs, count, seed = self.run, self.specs, self.cfg.eval_episodes, self.run.seed("selection")
        with run.phase("evaluate"):
            rows = [evaluate_task(self.agent, specs, i, count, seed) for i in range(len(specs))]
        mean = float(np.mean([row["return_mean"] for row in rows]))
        if len(specs) == 1:
            run.log("eval", self.step, {"frame": self.frame, **rows[0]})
        else:
            for spec, row in zip(specs, rows):
                run.log("eval_task", self.step, {"task": spec.name, "frame": self.frame, **row})
            run.log("eval", self.step, {"frame": self.frame, "return_mean": mean, "episodes": count * len(specs)})
        scores = ", ".join(f"{spec.name} {row['return_mean']:.1f}" for spec, row in zip(specs, rows))
        run.console.say(f"step {self.step:,}: {scores} over {count} planned episodes")
        return mean


def evaluate_task(agent: Agent, specs: Sequence[TaskSpec], index: int, episodes: int, seed: int) -> dict[str, Any]:
    """The row of one task of an agent; episode e is that of env e under run seed `seed`."""

    def make_envs(num_envs: int, first_env: int) -> VecEnv:
        return cast(VecEnv, tasks_.make([specs[index]], num_envs, seed=seed, first_env=first_env))

    return evaluate(agent.policy(index, seed, "planning"), make_envs, episodes).as_row()


def check_windows(cfg: TrainConfig, specs: Sequence[TaskSpec]) -> None:
    """UsageError unless the random steps leave a window to learn from in each env; a warning where they are all."""
    for spec in specs:
        if spec.episode_length < cfg.horizon:
            raise UsageError(f"horizon: {cfg.horizon} steps, but an episode of {spec.name} has {spec.episode_length}")
    if cfg.buffer_size < (least := 2 * cfg.horizon * cfg.num_envs * len(specs)):
        raise UsageError(f"buffer_size: {cfg.buffer_size} steps may hold no window of each env: take at least {least}")
    random = cfg.resolved_seed_steps(max(spec.episode_length for spec in specs))
    if random < (least := cfg.num_envs * cfg.horizon):
        raise UsageError(
            f"seed_steps: {random} steps of a task in {cfg.num_envs} envs hold no window of horizon {cfg.horizon}: "
            f"take at least {least}"
        )
    if cfg.steps <= (random := random * len(specs)):
        text = f"steps: the first {random:,} are random, so with {cfg.steps:,} nothing is learnt: give more --steps"
        warnings.warn(text, QuintetWarning, stacklevel=2)


def learnable(cfg: TrainConfig, specs: Sequence[TaskSpec]) -> int:
    """Parameters of the agent that there will be, for which nothing is allocated."""
    with torch.device("meta"):
        return WorldModel(cfg, specs).num_learnable


def predicted_memory(cfg: TrainConfig, specs: Sequence[TaskSpec], size: int) -> str:
    """What the run is about to take, said before it takes it. size: parameters."""
    sizes = {"replay": replay_bytes(cfg, specs), "weights, targets and Adam": 20 * size}
    text = ", ".join(f"{name} {taken / 2**20:,.0f} MiB" for name, taken in sizes.items())
    return f"{', '.join(spec.name for spec in specs)}: {size:,} parameters ({cfg.variant}); memory: {text}"


class Watch:
    """Episodes that ended since the last row, and whether everything is finite, looked at once a log row."""

    def __init__(self, envs: TaskEnvs) -> None:
        self.tasks, self.task_id = [task.name for task in envs.tasks], envs.task_id
        self.is_init = np.ones(envs.num_envs, bool)
        self.sums = np.zeros(envs.num_envs)  # NaN and Inf stay in a sum
        self.first, self.began = np.zeros(envs.num_envs, np.float32), False  # the first step's rewards
        self.told = np.zeros(envs.num_envs, np.int64)  # steps in which the env's task has given another reward
        self.ended: list[tuple[int, float, int]] = []  # task, return, length
        self.skipped, self.dead = 0, 0  # updates, experts: reported already
        self.batch: dict[str, Tensor] = {}  # of the last update: what to look at where it was bad

    def saw(self, moved: VecStep, stats: EpisodeStats) -> None:
        done = moved.terminated | moved.truncated
        ids = self.task_id[done].tolist()
        self.ended += [(task, *episode) for task, episode in zip(ids, stats.update(moved.reward, done))]
        self.is_init = done
        self.sums += moved.obs.sum(1) + moved.reward + np.where(done, moved.final_obs.sum(1), 0.0)
        if not self.began:
            self.first, self.began = moved.reward.copy(), True
        others = np.bincount(self.task_id, moved.reward != self.first).astype(np.int64)  # of each task
        self.told += others[self.task_id]

    def row(self) -> dict[str, Any]:
        """Mean return and length of the episodes that ended, of all and of each task."""
        ended, self.ended = self.ended, []
        if not ended:
            return {}
        row: dict[str, Any] = {
            "return_mean": float(np.mean([score for _, score, _ in ended])),
            "length_mean": float(np.mean([length for _, _, length in ended])),
            "episodes": len(ended),
        }
        if len(self.tasks) > 1:
            for task in sorted({task for task, _, _ in ended}):
                row[f"return/{self.tasks[task]}"] = float(np.mean([score for t, score, _ in ended if t == task]))
        return row

    def check(self, run: Run, step: int, agent: Agent) -> None:
        """Raise NumericalError, naming what is not finite, after writing what may explain it. Warn of dead experts."""
        bad = np.flatnonzero(~np.isfinite(self.sums))
        self.sums[:] = 0.0
        if bad.size:
            task = self.tasks[self.task_id[bad[0]]]
            run.diverged(step, f"the observation or reward of env {bad[0]} ({task})", {"agent": agent.state_dict()})
        if len(dead := agent.dead_experts()) > self.dead:
            text = f"step {step:,}: hardly used for long: {', '.join(dead)}; a larger --moe-lb-alpha spreads the load"
            warnings.warn(text, QuintetWarning, stacklevel=2)
        self.dead, skipped = len(dead), int(agent.skipped)
        if skipped > self.skipped:
            text = f"{skipped - self.skipped} updates before step {step:,} were skipped: loss or gradient not finite"
            warnings.warn(text, QuintetWarning, stacklevel=2)
            self.skipped = skipped
        if int(agent.bad_in_a_row) >= BAD_UPDATES:
            dump = {"agent": agent.state_dict(), "batch": self.batch}
            run.diverged(step, f"{agent.bad_term()} of the last {int(agent.bad_in_a_row)} updates", dump)

    def state_dict(self) -> dict[str, Any]:
        return {
            "is_init": self.is_init, "sums": self.sums, "first": self.first, "began": self.began, "told": self.told,
            "ended": self.ended, "skipped": self.skipped, "dead": self.dead,
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name in ("is_init", "sums", "first"):
            setattr(self, name, np.asarray(state[name]).copy())
        self.told = np.asarray(state["told"]).astype(np.int64)
        self.ended = [(int(task), float(score), int(length)) for task, score, length in state["ended"]]
        self.skipped, self.began = int(state["skipped"]), bool(state["began"])
        self.dead = int(state.get("dead", 0))
