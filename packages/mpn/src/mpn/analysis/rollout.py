"""One greedy episode, every step of it kept."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from mpn.envs import make
from mpn.model import MPNDQN
from rlcore.envs import make_env
from rlcore.errors import EnvironmentProblem, QuintetError
from rlcore.seeding import episode_seed
from rlcore.vecenv import VecEnv

Array = np.ndarray[Any, Any]
FILMED_AS = {"mpn/CartPoleMasked-v0": "CartPole-v1"}  # the same physics from the same seed; only what is seen differs


@dataclass
class Episode:
    """Step t: the observation, the memory it met, what was then done and earned."""

    core: str
    observations: list[Array] = field(default_factory=list)  # T x (D,)
    memories: list[Array] = field(default_factory=list)  # T x (H, I) Hebbian matrix, or (H, 1) hidden state; layer 1
    q_values: list[Array] = field(default_factory=list)  # T x (A,)
    actions: list[int] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    frames: list[Array] = field(default_factory=list)  # T x (h, w, 3) uint8; empty where the env draws nothing


def record_episode(
    net: MPNDQN, env_id: str, seed: int, max_episode_steps: int | None, check: Callable[[VecEnv], None] | None = None
) -> Episode:
    """Play episode 0 of env 0 under run seed `seed`, greedily. `check` sees the envs before the first step."""
    envs = make(env_id, 1, seed=seed, max_episode_steps=max_episode_steps)
    if check is not None:
        check(envs)
    episode, camera = Episode(net.core_name), Camera(env_id, seed, max_episode_steps)
    obs, state, done = envs.reset(), net.init_state(1), False
    with torch.inference_mode():
        while not done:
            before = state[0] if isinstance(state, tuple) else state
            q, state = net(torch.as_tensor(obs), state)
            action = q.argmax(1).numpy()
            episode.frames += camera.picture()
            episode.observations.append(obs[0].copy())
            episode.memories.append(before[0].reshape(len(before[0]), -1).numpy().copy())
            episode.q_values.append(q[0].numpy().copy())
            episode.actions.append(int(action[0]))
            moved = envs.step(action)
            camera.follow(int(action[0]))
            episode.rewards.append(float(moved.reward[0]))
            obs, done = moved.obs, bool(moved.terminated[0] | moved.truncated[0])
    envs.close()
    camera.close()
    return episode


class Camera:
    """A second env of the same seed that takes the same actions and draws, where the environment can draw."""

    def __init__(self, env_id: str, seed: int, max_episode_steps: int | None) -> None:
        self.env: Any = None
        drawn = FILMED_AS.get(env_id, env_id)
        if drawn.startswith("mpn/"):
            return
        try:
            self.env = make_env(drawn, max_episode_steps, render_mode="rgb_array")
            self.env.reset(seed=episode_seed(seed, 0, 0))
            self.env.render()
        except QuintetError as error:
            raise EnvironmentProblem(f"{drawn} cannot be drawn: {error}") from error
        except Exception as error:
            install = "in a checkout: uv pip install './packages/mpn[render]'"
            hint = install if "pygame" in str(error) else "is a display library missing?"
            raise EnvironmentProblem(f"{drawn} cannot be drawn ({error}): {hint}") from error

    def picture(self) -> list[Array]:
        """What is to be seen now: one frame, or none."""
        frame = None if self.env is None else self.env.render()
        return [] if frame is None else [np.asarray(frame, np.uint8)]

    def follow(self, action: int) -> None:
        if self.env is not None:
            self.env.step(action)

    def close(self) -> None:
        if self.env is not None:
            with contextlib.suppress(Exception):
                self.env.close()
