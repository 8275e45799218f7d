"""A planned episode as a film."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from prismatic import envs
from prismatic.run.saved import Saved
from rlcore import video
from rlcore.seeding import episode_seed


def film(saved: Saved, task: int, seed: int, output: Path) -> None:
    """Write the first of the episodes that `prismatic eval` plays under run seed `seed`, as it plays it.

    EnvironmentProblem where the env cannot be drawn, or the extra `video` is missing.
    """
    with contextlib.closing(envs.open_drawn(saved.tasks[task])) as env:
        video.write(output, frames(saved, task, seed, env), fps=env.metadata.get("render_fps", 30))


def frames(saved: Saved, task: int, seed: int, env: Any) -> Iterator[np.ndarray[Any, Any]]:
    """uint8 (H, W, 3), one a step, the start included."""
    policy = saved.agent.policy(task, seed, "planning")
    state, ended = policy.initial_state(1), False
    obs, _ = env.reset(seed=episode_seed(seed, 0, 0))
    yield envs.draw(env)
    while not ended:
        action, state = policy.act(obs[None], state)
        obs, _, terminated, truncated, _ = env.step(action[0])
        ended = terminated or truncated
        yield envs.draw(env)
