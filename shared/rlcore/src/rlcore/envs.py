"""One environment by its name, seeded by the (s, i, k) rule and able to return to the middle of an episode.

Episode k of env i under run seed s starts from `episode_seed(s, i, k)` and nothing else: a snapshot is k and the
actions since, restoring replays them.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete

from rlcore.errors import EnvironmentProblem, UsageError, why
from rlcore.seeding import episode_seed

MAX_REPLAY = 10_000  # actions; longer episodes are not replayed on resume
Array = np.ndarray[Any, Any]
Snapshot = tuple[int, Array | None]  # episode number; actions since its reset, None where they were too many to keep


def make_env(env_id: str, max_episode_steps: int | None = None, **kwargs: Any) -> gymnasium.Env[Any, Any]:
    """One env from a Gymnasium id or `module:factory` (looked up in the current folder too), its observations a Box."""
    module, colon, name = env_id.partition(":")
    try:
        if colon and os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())  # `python -m` has it, console scripts do not
        factory = getattr(importlib.import_module(module), name, None) if colon else None
        if callable(factory):
            env = factory(**kwargs)
            env = gymnasium.wrappers.TimeLimit(env, max_episode_steps) if max_episode_steps else env
        else:
            env = gymnasium.make(env_id, max_episode_steps=max_episode_steps, disable_env_checker=True, **kwargs)
        return env if isinstance(env.observation_space, Box) else gymnasium.wrappers.FlattenObservation(env)
    except gymnasium.error.UnregisteredEnv as error:
        raise UsageError(f"no environment {env_id!r}: {nearest(name or env_id, gymnasium.registry)}") from error
    except Exception as error:  # a missing package, too
        raise EnvironmentProblem(f"{env_id} cannot be built: {why(error)}") from error


def nearest(name: str, known: Any) -> str:
    """What a user may have meant by `name`."""
    close = difflib.get_close_matches(name, sorted(known), n=3)
    return f"did you mean {' or '.join(close)}?" if close else "give a Gymnasium id or module:factory"


class Episodes(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Env `index`. Every reset begins its next episode by the seeding rule, or replays a pending snapshot."""

    def __init__(self, env_id: str, max_episode_steps: int | None, seed: int, index: int) -> None:
        super().__init__(make_env(env_id, max_episode_steps))
        self.run_seed, self.index, self.discrete = seed, index, isinstance(self.action_space, Discrete)
        self.episode = -1
        self.actions: list[Any] = []
        self.pending: tuple[int, Any] | None = None  # episode, actions to replay

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        (self.episode, replay), self.pending = self.pending or (self.episode + 1, ()), None
        self.actions = []
        try:
            obs, _ = self.env.reset(seed=episode_seed(self.run_seed, self.index, self.episode))
        except Exception as error:
            raise failure(self.run_seed, self.index, self.episode, error) from error
        for action in replay:
            obs = self.step(action)[0]
        return obs, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        action = int(action) if self.discrete else action
        if len(self.actions) <= MAX_REPLAY:
            self.actions.append(action)
        try:
            obs, reward, terminated, truncated, info = self.env.step(action)
        except Exception as error:
            raise failure(self.run_seed, self.index, self.episode, error) from error
        success = info.get("success", info.get("is_success")) if info else None
        kept = {} if success is None else {"success": bool(success)}  # the rest would only cost a worker's pipe time
        return obs, float(reward), bool(terminated), bool(truncated and not terminated), kept

    def snapshot(self) -> Snapshot:
        kept = len(self.actions) <= MAX_REPLAY
        return self.episode, np.array(self.actions, self.action_space.dtype) if kept else None


def failure(seed: int, env: int, episode: int, error: Exception | str) -> EnvironmentProblem:
    """The error that names the episode in which something broke, so that it can be run again."""
    what = why(error) if isinstance(error, Exception) else error
    return EnvironmentProblem(f"env {env}, episode {episode} (reset seed {episode_seed(seed, env, episode)}): {what}")
