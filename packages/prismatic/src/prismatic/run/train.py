"""`prismatic train`: collect, learn, evaluate, save. Running the same command again continues the run."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from prismatic import cpu
from prismatic import envs as tasks_
from prismatic.agent import Agent
from prismatic.config import MAY_CHANGE, TaskSpec, TrainConfig
from prismatic.envs.tasks import TaskEnvs
from prismatic.replay import TaskReplay, replay_bytes, widths_of
from rlcore import device
from rlcore.errors import QuintetWarning
from rlcore.evaluate import evaluate
from rlcore.run import Run
from rlcore.vecenv import EpisodeStats, VecEnv, VecStep

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
    envs = tasks_.make(specs, cfg.num_envs, seed=cfg.seed)
    agent = Agent(cfg, specs, where)
    facts = {
        "env": [spec.name for spec in specs], "action_repeat": [tasks_.action_repeat(spec.name) for spec in specs],
        "parameters": agent.model.num_learnable, "variant": cfg.variant,
    }  # fmt: skip
    with Run.open(
        cfg, program="prismatic", total=cfg.steps, stride=envs.num_envs, links=LINKS, may_change=MAY_CHANGE, facts=facts
    ) as run:
        run.console.say(predicted_memory(cfg, specs, agent))
        streams = [run.numpy_generator("replay", i) for i in range(len(specs))]
        replay = TaskReplay(cfg, widths_of(envs), streams, where)
        plan, stats, watch = agent.new_plan(envs.num_envs, cfg.seed, "acting"), EpisodeStats(envs.num_envs), Watch(envs)
        parts = {
            "agent": agent, "plan": plan, "envs": envs, "buffer": replay if cfg.save_replay else None, "stats": stats,
            "watch": watch,
        }  # fmt: skip
        envs.reset()  # before the checkpoint, if there is one: it may be of step 0
        step = run.restore(**parts)
        obs = envs.current_obs
        seed_steps = cfg.resolved_seed_steps(max(spec.episode_length for spec in specs)) * len(specs)
        # without its replay, a resumed run refills it first
        refill = step + seed_steps if step and not cfg.save_replay else seed_steps
        patience = refill + (cfg.seed_patience - 1) * seed_steps
        while run.going(step):
            random = np.full(envs.num_envs, step < refill) | (~watch.told & (step < patience))
            with run.phase("learn"):
                # All updates that the steps so far are worth, at first those of the random steps together. They come
                # before the next action, so that a run stopped among them goes on exactly.
                owed = 0 if random.all() else int(cfg.utd * step)
                while agent.updates < owed and run.going(step):
                    run.meters.add(agent.update(replay.sample(cfg.batch_size)))
                    if agent.updates % 1_000 == 0 and owed - agent.updates > 500:
                        run.console.say(f"update {agent.updates:,} of {owed:,} on the first {step:,} steps")
            if not run.going(step):
                break
            with run.phase("act"):
                if not random.all():
                    action = agent.act(obs, watch.is_init, envs.task_id, plan)
                if random.any():
                    drawn = envs.sample(cfg.seed_hold, at_limits=cfg.seed_action == "limits")
                    action = drawn if random.all() else np.where(random[:, None], drawn, action)
            with run.phase("env"):
                moved = envs.step(action)
            with run.phase("store"):
                replay.add(obs, action, moved, watch.is_init, envs.rows)
                watch.saw(moved, stats)
                obs, step = moved.obs, step + envs.num_envs
            if run.due("log", step):
                watch.check(run, step, agent, replay)
                run.train_row(step, agent.updates, **watch.row())
            if run.due("eval", step) and not random.all():
                with run.phase("evaluate"):
                    run.save_if_best(step, evaluate_now(run, step, agent, specs, cfg), **parts)
            if run.due("save", step):
                with run.phase("save"):
                    run.save(step, **parts)
        folder = run.finish(step, **parts)
    envs.close()
    return folder


def evaluate_now(run: Run, step: int, agent: Agent, specs: Sequence[TaskSpec], cfg: TrainConfig) -> float:
    """Planned episodes of every task, always the same ones, in envs of their own: training does not notice."""
    rows = [evaluate_task(agent, specs, i, cfg.eval_episodes, run.seed("selection")) for i in range(len(specs))]
    mean = float(np.mean([row["return_mean"] for row in rows]))
    if len(specs) == 1:
        run.log("eval", step, rows[0])
    else:
        for spec, row in zip(specs, rows):
            run.log("eval_task", step, {"task": spec.name, **row})
        run.log("eval", step, {"return_mean": mean, "episodes": cfg.eval_episodes * len(specs)})
    scores = ", ".join(f"{spec.name} {row['return_mean']:.1f}" for spec, row in zip(specs, rows))
    run.console.say(f"step {step:,}: {scores} over {cfg.eval_episodes} planned episodes")
    return mean


def evaluate_task(agent: Agent, specs: Sequence[TaskSpec], index: int, episodes: int, seed: int) -> dict[str, Any]:
    """The row of one task of an agent; episode e is that of env e under run seed `seed`."""

    def make_envs(num_envs: int, first_env: int) -> VecEnv:
        return cast(VecEnv, tasks_.make([specs[index]], num_envs, seed=seed, first_env=first_env))

    return evaluate(agent.policy(index, seed, "planning"), make_envs, episodes).as_row()


def predicted_memory(cfg: TrainConfig, specs: Sequence[TaskSpec], agent: Agent) -> str:
    """What the run is about to take, said before it takes it."""
    weights = agent.model.num_learnable
    sizes = {"replay": replay_bytes(cfg, specs), "weights, targets and Adam": 20 * weights}
    text = ", ".join(f"{name} {size / 2**20:,.0f} MiB" for name, size in sizes.items())
    return f"{', '.join(spec.name for spec in specs)}: {weights:,} parameters ({cfg.variant}); memory: {text}"


class Watch:
    """Episodes that ended since the last row, and whether everything is finite, looked at once a log row."""

    def __init__(self, envs: TaskEnvs) -> None:
        self.tasks, self.task_id = [task.name for task in envs.tasks], envs.task_id
        self.is_init = np.ones(envs.num_envs, bool)
        self.sums = np.zeros(envs.num_envs)  # NaN and Inf stay in a sum
        self.first, self.began = np.zeros(envs.num_envs, np.float32), False  # the first step's rewards
        self.told = np.zeros(envs.num_envs, bool)  # whether the env's task has ever given another reward
        self.ended: list[tuple[int, float, int]] = []  # task, return, length
        self.skipped = 0  # updates reported already

    def saw(self, moved: VecStep, stats: EpisodeStats) -> None:
        done = moved.terminated | moved.truncated
        ids = self.task_id[done].tolist()
        self.ended += [(task, *episode) for task, episode in zip(ids, stats.update(moved.reward, done))]
        self.is_init = done
        self.sums += moved.obs.sum(1) + moved.reward
        if not self.began:
            self.first, self.began = moved.reward.copy(), True
        if not self.told.all():
            tasks = self.task_id[moved.reward != self.first]
            self.told |= np.isin(self.task_id, tasks)

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

    def check(self, run: Run, step: int, agent: Agent, replay: TaskReplay) -> None:
        """Raise NumericalError, naming what is not finite, after writing what may explain it."""
        bad = np.flatnonzero(~np.isfinite(self.sums))
        self.sums[:] = 0.0
        if bad.size:
            task = self.tasks[self.task_id[bad[0]]]
            run.diverged(step, f"the observation or reward of env {bad[0]} ({task})", {"agent": agent.state_dict()})
        skipped = int(agent.skipped)
        if skipped > self.skipped:
            text = f"{skipped - self.skipped} updates before step {step:,} were skipped: loss or gradient not finite"
            warnings.warn(text, QuintetWarning, stacklevel=2)
            self.skipped = skipped
        if int(agent.bad_in_a_row) >= BAD_UPDATES:
            dump = {"agent": agent.state_dict(), "batch": replay.sample(run.cfg.batch_size)}  # type: ignore[attr-defined]
            run.diverged(step, f"{agent.bad_term()} of the last {int(agent.bad_in_a_row)} updates", dump)

    def state_dict(self) -> dict[str, Any]:
        return {
            "is_init": self.is_init, "sums": self.sums, "first": self.first, "began": self.began, "told": self.told,
            "ended": self.ended, "skipped": self.skipped,
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name in ("is_init", "sums", "first", "told"):
            setattr(self, name, np.asarray(state[name]).copy())
        self.ended = [(int(task), float(score), int(length)) for task, score, length in state["ended"]]
        self.skipped, self.began = int(state["skipped"]), bool(state["began"])
