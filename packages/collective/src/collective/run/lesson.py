"""What training a student and fine-tuning share: the loop, envs, memory, evaluation, counts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from collective.config_student import LearnConfig
from collective.envs import make
from collective.rollout import Acting
from collective.run.exam import Exam, row_of
from collective.students import Experience
from rlblocks.sac import SAC
from rlcore.errors import NumericalError
from rlcore.run import Run
from rlcore.vecenv import EpisodeStats, VecStep

Array = np.ndarray[Any, Any]
MAY_CHANGE = frozenset({"steps", "early_stop"})
LAST = 20  # training episodes that `success_last20` is the mean of
CATCH_UP = 100  # updates that are owed before an env step waits for them: a signal is heard at least as often
EXPLODED = 1e8  # critic loss


class Learner(ABC):
    """Everything of a run that changes, and one turn of its loop. Its children say who acts and what is stored.

    Args: advised: whether what is stored also holds a teacher's advice.
    """

    def __init__(self, run: Run, cfg: LearnConfig, sac: SAC, advised: bool = False) -> None:
        self.run, self.cfg, self.sac = run, cfg, sac
        self.envs = make(
            (cfg.task,), seed=run.seed("envs"), copies=cfg.num_envs, goals=cfg.goals, goal_seed=cfg.goal_seed,
            horizon=cfg.horizon, reward_version=cfg.reward_version,
        )  # fmt: skip
        rng = run.numpy_generator("replay")
        self.experience = Experience(cfg.replay, cfg.num_envs, sac.obs_dim, cfg.gamma, rng, sac.device, advised)
        self.exam, self.tally = Exam(cfg, run.seed("evaluation")), Tally(cfg.num_envs)
        self.refill_from = 0  # without its replay, a resumed run collects anew before it learns
        self.parts: dict[str, Any] = {
            "envs": self.envs, "tally": self.tally, "buffer": self.experience if cfg.save_replay else None,
        }  # fmt: skip

    # --- what children do -------------------------------------------------------------------------------------------
    @abstractmethod
    def begin(self, obs: Array) -> None:
        """First episodes, with their observations (N, 39)."""

    @abstractmethod
    def choose(self, obs: Array, step: int) -> Array:
        """Actions (N, 4) after `step` env steps."""

    @abstractmethod
    def keep(self, obs: Array, action: Array, moved: VecStep, after: Array, step: int) -> None:
        """Store what the actions led to: `after` (N, 39), also where an episode ended. `step`: before them."""

    @abstractmethod
    def owed(self, before: int, step: int) -> float:
        """Updates that the env steps from `before` to `step` are worth."""

    @abstractmethod
    def update(self, step: int) -> None:
        """One update."""

    @abstractmethod
    def player(self) -> Acting:
        """The policy as it is, greedy."""

    def shown(self, step: int) -> dict[str, Any]:
        """More numbers for a train row."""
        return {}

    # --- the loop ---------------------------------------------------------------------------------------------------
    def learn(self) -> Path:
        """To the end, from where the run stood."""
        run = self.run
        step = run.restore(**self.parts)
        if step and not self.cfg.save_replay:
            self.refill_from = step
            run.console.say("no replay was saved: new experience comes before the next update")
        if not self.tally.begun:  # a run that was stopped before its first step has
            self.evaluate(step)
            self.begin(self.envs.reset())
            self.tally.begun = True
        if run.unscored:
            run.score(step, partial(self.evaluate, step), **self.parts)
        while run.going(step) and not self.passed():
            step, before = self.turn(step), step
            if step > before:
                self.watch(step)
        return run.finish(step, **self.parts)

    def turn(self, step: int) -> int:
        """One step of all envs, and updates; or only updates, where many are owed. Returns the next step."""
        run = self.run
        if self.tally.owed < CATCH_UP:
            obs = self.envs.current_obs
            with run.phase("act"):
                action = self.choose(obs, step)
            if not np.isfinite(action).all():  # an env would do anything with it
                run.diverged(step, "what the student does", {"obs": obs.copy(), "action": action})
            with run.phase("env"):
                moved = self.envs.step(action)
            with run.phase("store"):
                done = moved.terminated | moved.truncated
                after = np.where(done[:, None], moved.final_obs, moved.obs) if done.any() else moved.obs
                if not (np.isfinite(after).all() and np.isfinite(moved.reward).all()):
                    run.diverged(step, f"what {self.cfg.task} gave back", {"obs": after, "reward": moved.reward.copy()})
                self.keep(obs, action, moved, after, step)
                for key, value in self.tally.saw(moved):
                    run.meters.add({key: value})
            before, step = step, step + self.cfg.num_envs
            if self.refill_from == 0 or step - self.refill_from > self.cfg.batch_size:
                self.tally.owed += self.owed(before, step)
        with run.phase("learn"):
            for _ in range(min(int(self.tally.owed), CATCH_UP)):
                self.update(step)
                self.tally.owed -= 1
        return step

    def watch(self, step: int) -> None:
        """Log, evaluate and save, where it is time to."""
        run = self.run
        if run.due("log", step):
            self.report(step)
        if run.due("eval", step):
            run.score(step, partial(self.evaluate, step), **self.parts)
        if run.due("save", step):
            with run.phase("save"):
                run.save(step, **self.parts)

    def report(self, step: int) -> None:
        """A train row. NumericalError where the critics' loss explodes."""
        if (loss := self.run.meters.mean("critic_loss", 0.0)) > EXPLODED:
            kept = self.run.checkpoints.steps()
            last = f"last good checkpoint: step {kept[-1]:,}" if kept else "no checkpoint had been written yet"
            raise NumericalError(f"{self.cfg.task}: critic_loss is {loss:.2g} at step {step:,}; {last}")
        broken = {"unstable": self.envs.unstable} if self.envs.unstable else {}
        self.run.train_row(step, self.sac.updates, **self.tally.row(), **self.shown(step), **broken)

    def evaluate(self, step: int) -> float:
        """Greedy episodes that training does not notice. Returns the score of a checkpoint, their mean return."""
        run = self.run
        with run.phase("evaluate"):
            played = self.exam.take(self.player())
        row = row_of(played)
        run.log("eval", step, row)
        self.tally.passes = self.tally.passes + 1 if played.success.all() else 0
        run.console.say(f"step {step:,}: success {row['success']:.0%}, return {row['return_mean']:.0f}")
        return float(row["return_mean"])

    def passed(self) -> bool:
        """Whether so many evaluations in a row went well that the run is over."""
        return self.cfg.early_stop is not None and self.tally.passes >= self.cfg.early_stop

    def close(self) -> None:
        """Close all envs."""
        self.envs.close()
        self.exam.close()


class Tally:
    """Counts: episodes and how the last ones went, updates that are owed, evaluations passed in a row."""

    def __init__(self, num_envs: int) -> None:
        self.stats = EpisodeStats(num_envs)
        self.succeeded = np.zeros(num_envs, bool)  # at any step of the running episode
        self.last: deque[bool] = deque(maxlen=LAST)
        self.episodes = self.passes = 0
        self.owed = 0.0
        self.begun = False

    def saw(self, moved: VecStep) -> list[tuple[str, float]]:
        """Count one step of all envs; what there is to average over the episodes that it ended."""
        self.succeeded |= moved.info["success"]
        done = moved.terminated | moved.truncated
        ended = self.stats.update(moved.reward, done)
        if not ended:
            return []
        found = [("return_mean", total) for total, _ in ended]
        found += [("success", float(flag)) for flag in self.succeeded[done]]
        self.last.extend(self.succeeded[done].tolist())
        self.episodes += len(ended)
        self.succeeded[done] = False
        return found

    def row(self) -> dict[str, Any]:
        """Counts, and the success of the last episodes."""
        return {"episodes": self.episodes, "success_last20": float(np.mean(self.last)) if self.last else None}

    def state_dict(self) -> dict[str, Any]:
        """Everything that shapes the future."""
        return {
            "stats": self.stats.state_dict(), "succeeded": self.succeeded.copy(), "last": list(self.last),
            "episodes": self.episodes, "passes": self.passes, "owed": self.owed, "begun": self.begun,
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self.stats.load_state_dict(state["stats"])
        self.succeeded[:] = np.asarray(state["succeeded"])
        self.last = deque((bool(each) for each in state["last"]), maxlen=LAST)
        self.episodes, self.passes = int(state["episodes"]), int(state["passes"])
        self.owed, self.begun = float(state["owed"]), bool(state["begun"])
