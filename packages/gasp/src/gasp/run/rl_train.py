"""`gasp rl train`: choose skills, carry them out, learn from what came of it. The same command goes on."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gasp.agent import Agent
from gasp.config_rl import RLConfig
from gasp.hierarchy import Experience, Rollout, Transitions, Usage
from gasp.run.episodes import Stage, done_key
from gasp.run.rl_pictures import draw_training
from gasp.run.setting import Setting, keep_copy, open_setting
from rlcore import device
from rlcore.run import Run
from rlcore.vecenv import EpisodeStats, VecEnv, VecStep

MAY_CHANGE = frozenset({"steps", "backend"})
LAST = 20  # training episodes that `success_last20` is the mean of


def train(cfg: RLConfig) -> Path:
    """Train as `cfg` says; returns the run's folder.

    Errors: UsageError where the skills do not fit the task; see rlcore.run.Run.open, rlcore.errors.NumericalError.
    """
    device.set_threads(cfg.threads)
    where = device.resolve(cfg.device)
    setting = open_setting(cfg)
    facts = {**setting.facts(), "skills": str(cfg.skills), "skills_updates": setting.skills.step}
    with (
        Run.open(cfg, program="gasp", total=cfg.steps, stride=cfg.num_envs, may_change=MAY_CHANGE, facts=facts) as run,
        contextlib.closing(Learner(run, setting, where)) as learner,
    ):
        keep_copy(run.folder, setting.skills)
        step = run.restore(**learner.parts)
        if step and not cfg.save_replay:
            learner.refill_from = step
            run.console.say(f"no replay was saved: {cfg.warmup:,} steps of new experience come before the next update")
        if not learner.tally.begun:  # a run that was stopped before its first step has
            learner.evaluate(step)  # what the skills do before anything is learnt
            learner.begin()
        if run.unscored:
            run.score(step, partial(learner.evaluate, step), **learner.parts)
        while run.going(step):
            step = learner.turn(step)
            if run.due("log", step):
                learner.report(step)
            if run.due("eval", step):
                run.score(step, partial(learner.evaluate, step), **learner.parts)
            if run.due("save", step):
                with run.phase("save"):
                    run.save(step, **learner.parts)
        folder = run.finish(step, **learner.parts)
        draw_training(folder, setting, learner.experience.kept(), learner.usage)
    return folder


class Learner:
    """Everything of a run that changes, and one turn of its loop."""

    def __init__(self, run: Run, setting: Setting, where: Any) -> None:
        cfg, spec = setting.cfg, setting.spec
        self.run, self.setting, self.cfg = run, setting, cfg
        self.agent: Agent = setting.agent(run.seed("agent"), where)
        self.envs: VecEnv = setting.make(cfg.num_envs, run.seed("envs"))
        guided, z, semi = self.agent.guided, self.agent.skill_dim, cfg.agent.discount == "step"
        self.rollout = Rollout(
            cfg.num_envs, spec.obs_dim, z, setting.horizon, cfg.agent.gamma if semi else 1.0, 2 * z * guided
        )
        self.experience = Experience(
            cfg.replay, spec.obs_dim, z, gamma=cfg.agent.gamma, horizon=1 if semi else setting.horizon, guided=guided,
            rng=run.numpy_generator("replay"), device=where,
        )  # fmt: skip
        self.usage = Usage(setting.components, cfg.num_envs) if setting.components else None
        self.tally = Tally(cfg.num_envs)
        self.stage = Stage(setting, cfg.eval_episodes, run.seed("selection"))
        self.refill_from = 0  # without its replay, a resumed run collects anew before it learns
        self.parts = {
            "agent": self.agent, "envs": self.envs, "rollout": self.rollout, "usage": self.usage, "tally": self.tally,
            "buffer": self.experience if cfg.save_replay else None,
        }  # fmt: skip

    def close(self) -> None:
        """Close all envs."""
        self.envs.close()
        self.stage.close()

    def begin(self) -> None:
        """First episodes."""
        obs = self.envs.reset()
        if self.agent.guided:
            self.rollout.proposal[:] = self.agent.proposal(obs)
        self.tally.begun = True

    def turn(self, step: int) -> int:
        """One step of all envs, and the updates that the skills it ended are worth. Returns the next step."""
        run, obs = self.run, self.envs.current_obs
        with run.phase("act"):
            if (envs := self.rollout.asking()).size:
                self.decide(envs, obs[envs], step)
            action = self.agent.act(obs, self.rollout.z)
        if not np.isfinite(action).all():  # an env would do anything with it
            run.diverged(step, "what the agent does", {"obs": obs.copy(), "z": self.rollout.z.copy()})
        with run.phase("env"):
            moved = self.envs.step(action)
        with run.phase("store"):
            step += self.cfg.num_envs
            ended = self.rollout.advance(moved)
            if ended is not None:
                self.store(step, ended, moved)
            for key, value in self.tally.saw(moved, self.setting.spec.subtasks):
                run.meters.add({key: value})
        if ended is not None and step - self.refill_from > self.cfg.warmup:
            with run.phase("learn"):
                for _ in range(self.tally.due(self.cfg.updates_per_skill, len(ended["env"]))):
                    run.meters.add(self.agent.update(self.experience.sample(self.cfg.batch_size)))
        return step

    def decide(self, envs: np.ndarray[Any, Any], obs: np.ndarray[Any, Any], step: int) -> None:
        """Begin a skill in those envs. At first the policy is the prior; without one, skills are drawn uniformly."""
        uniform = not self.agent.guided and step <= self.cfg.warmup
        self.rollout.begin(envs, obs, self.agent.choose(obs, "uniform" if uniform else "policy"))
        if self.usage:
            self.usage.saw(envs, self.rollout.z[envs])

    def store(self, step: int, ended: Transitions, moved: VecStep) -> None:
        """Keep the transitions of the skills that are over, and what the prior says of the states to come."""
        envs, done = ended["env"], ended["done"]
        for name in ("next_obs", "reward"):
            if not np.isfinite(ended[name]).all():
                self.run.diverged(step, f"{name} of {self.cfg.task}", {k: v.copy() for k, v in ended.items()})
        if self.agent.guided:
            said = self.agent.proposal(np.concatenate((ended["next_obs"], moved.obs[envs[done]])))
            ended["next_proposal"] = said[: len(envs)]
            self.rollout.proposal[envs] = ended["next_proposal"]
            self.rollout.proposal[envs[done]] = said[len(envs) :]
        self.experience.add(ended)
        self.tally.skills += len(envs)
        if self.usage:
            self.usage.ended(envs[done])

    def report(self, step: int) -> None:
        """A train row."""
        used = self.usage.row() if self.usage else {}
        seconds = self.run.phase.seconds
        whole = max(sum(seconds.values()), 1e-9)
        shares = {f"share_{name}": seconds.get(name, 0.0) / whole for name in ("env", "act", "store", "learn")}
        self.run.train_row(step, self.agent.updates, skills=self.tally.skills, **self.tally.row(), **used, **shares)

    def evaluate(self, step: int) -> float:
        """Episodes of its own, once with the mean skill and once with a drawn one: training does not notice.

        Returns the score of a checkpoint: the mean return of the first.
        """
        run, cfg, spec = self.run, self.cfg, self.setting.spec
        with run.phase("evaluate"):
            played = self.stage.play(self.agent, {"mean": "mean", "drawn": "policy"})
            mean, drawn = (played[name].row(spec.subtasks) for name in ("mean", "drawn"))
        run.log("eval", step, {**mean, "episodes": cfg.eval_episodes, **{f"drawn_{k}": v for k, v in drawn.items()}})
        what = f"{mean['subtasks_mean']:.2f} subtasks" if spec.subtasks else f"success {mean['success_rate']:.0%}"
        of = f"{drawn['subtasks_mean']:.2f}" if spec.subtasks else f"{drawn['success_rate']:.0%}"
        alpha = float(self.agent.log_alpha.detach().exp())
        run.console.say(f"step {step:,}: {what} by the mean skill, {of} by drawn ones; temperature {alpha:.3g}")
        return mean["return_mean"]


class Tally:
    """Episodes and skills so far, and how the last episodes ended."""

    def __init__(self, num_envs: int) -> None:
        self.stats = EpisodeStats(num_envs)
        self.skills = self.episodes = 0
        self.begun = False
        self.last: deque[bool] = deque(maxlen=LAST)

    def saw(self, moved: VecStep, subtasks: tuple[str, ...]) -> list[tuple[str, float]]:
        """Count one step of all envs; what there is to average over the episodes that it ended."""
        done = moved.terminated | moved.truncated
        found: list[tuple[str, float]] = []
        for total, length in self.stats.update(moved.reward, done):
            found += [("return_mean", total), ("length_mean", float(length))]
        if found:
            successes = moved.info["success"][done].tolist()
            self.episodes += len(successes)
            self.last.extend(successes)
        if found and subtasks:
            completed = moved.info["completed"][done]
            found += [("subtasks_mean", float(row.sum())) for row in completed]
            found += [(done_key(name), float(flag)) for row in completed for name, flag in zip(subtasks, row)]
        return found

    def due(self, rate: float, new: int) -> int:
        """Updates that the newest `new` skills are worth: whole ones, that add up to the rate."""
        return int(self.skills * rate) - int((self.skills - new) * rate)

    def row(self) -> dict[str, Any]:
        """Counts, and the success of the last episodes."""
        return {"episodes": self.episodes, "success_last20": float(np.mean(self.last)) if self.last else None}

    def state_dict(self) -> dict[str, Any]:
        """Everything that shapes the future."""
        return {
            "stats": self.stats.state_dict(), "skills": self.skills, "episodes": self.episodes,
            "last": list(self.last), "begun": self.begun,
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self.stats.load_state_dict(state["stats"])
        self.skills, self.episodes = int(state["skills"]), int(state["episodes"])
        self.begun = bool(state["begun"])
        self.last = deque((bool(each) for each in state["last"]), maxlen=LAST)
